"""What is exact, and what noise is shaped by, is the same on any number of threads."""

import ast
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import certified
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.ensemble import GradientBoostingClassifier
from certified.kernel_approximation import Nystroem
from certified.linear_model import ElasticNet, LogisticRegression, Ridge

SOURCE = Path(certified.__file__).parent
FACTORISE = {
    *("cholesky", "cho_factor", "cho_solve", "eigh", "eigvalsh", "svd", "qr", "lstsq", "solve", "solve_triangular"),
    *("inv", "pinv", "dpotri", "eigsh", "lu_factor"),
}
# Steps and bounds of a head: what they find is measured, whatever it is, and none of it shapes the noise.
MEASURED = {
    *("derivatives.py", "downdate.py", "bounds.py", "new_columns.py", "active_set.py", "proximal_newton.py"),
    *(
        "leave_out.py",
        "left_out_by_passes.py",
        "newton_cg.py",
        "leaf_solver.py",
        "_state.py",
        "_regressors.py",
        "_checks.py",
    ),
}
MEASURED_IN = {("leaf_metric.py", name) for name in ("corrected", "_inverse", "_ratio")}


def outside(path):
    """Calls of linear algebra in a file that run on any number of threads: function and line."""
    found = []

    def visit(node, function, limited):
        if isinstance(node, ast.FunctionDef):
            function = node.name
            limited = limited or any(isinstance(d, ast.Name) and d.id == "one_thread" for d in node.decorator_list)
        if isinstance(node, ast.With):
            limited = limited or any("on_one_thread" in ast.unparse(item) for item in node.items)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in FACTORISE and not limited and (path.name, function) not in MEASURED_IN:
                own = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("self", "metric")
                if not own:
                    found.append((path.name, function, node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, function, limited)

    visit(ast.parse(path.read_text()), "", False)
    return found


def test_no_exact_state_and_no_metric_is_factorised_on_several_threads():
    files = [f for f in SOURCE.rglob("*.py") if f.name not in MEASURED and "audit" not in f.parts]
    assert len(files) > 50
    assert [place for file in files for place in outside(file)] == []


def test_a_factorisation_on_several_threads_is_found(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from scipy.linalg import eigh\ndef learn(matrix):\n    return eigh(matrix)\n")
    assert outside(wrong) == [("wrong.py", "learn", 3)]


@pytest.mark.parametrize(
    "model",
    [
        PCA(),
        LinearDiscriminantAnalysis(),
        Nystroem(n_components=150, key=0),
        Ridge(),
        ElasticNet(alpha=0.01),
    ],
    ids=lambda m: type(m).__name__,
)
def test_exact_states_are_the_same_on_one_thread_and_on_two(model):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 200))
    y = (X[:, 0] > 0) * 1 if isinstance(model, LinearDiscriminantAnalysis) else X[:, 0] + rng.standard_normal(600)
    digests = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            digests.append(type(model)(**model.get_params()).fit(X, y).state_digest_)
    assert digests[0] == digests[1]


def test_the_shape_of_the_noise_is_the_same_on_one_thread_and_on_two():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1500, 260))
    y = (X[:, 0] + rng.standard_normal(1500) > 0) * 1
    model = LogisticRegression(C=0.1).fit(X, y)
    boosted = GradientBoostingClassifier(n_estimators=40, max_depth=4).fit(X[:, :5], y)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            seeded = np.random.default_rng(7)
            release = model._noise_metric_now()
            shape = boosted._state.noise_metric.factor()
            found.append([release.factor, release.noised(model._state.solution.w, 0.1, seeded), shape])
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)
