"""The layout that CONTRIBUTING promises: imports point one way, packages have a purpose, files stay short."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from graph import circle, graph_of
from way import MODELS, modules_of, rooms_of, way_of

import certified

PACKAGE = Path(__file__).resolve().parents[2] / "certified"

# A package (or module) imports only from layers above its own, and from itself.
LAYERS = (
    ("errors", "typing"),
    ("progress", "accounting", "_data"),
    ("_keeper", "_exact", "noise", "parts"),
    ("ledger",),
    ("report",),
    ("certificate",),
    ("base",),
    ("_convex", "_steps", "_trees", "audit", "model_selection"),
    (
        "testing",
        "extend",
        "_convert",
        "compose",
        "linear_model",
        "preprocessing",
        "impute",
        "naive_bayes",
        "discriminant_analysis",
        "decomposition",
        "neighbors",
        "cluster",
        "tree",
        "ensemble",
    ),
    ("pipeline", "kernel_approximation"),
    ("additive", "influence", "survival"),
    ("vault",),
    ("service",),
    ("cli",),
)
# These know the families of estimators through `base` alone.
FAMILIES = {"linear_model", "preprocessing", "ensemble"}
KNOW_NO_FAMILY = {"pipeline", "vault", "report"}

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path != PACKAGE / "__init__.py"]


def name_of(path: Path) -> str:
    """The file's place in the package: linear_model/_ridge.py is linear_model._ridge."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(source: str, module: str) -> Iterator[str]:
    """The modules and families of the package that the source imports, anywhere in it, as "losses"."""
    parents = ["certified", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [] if node.level == 0 else parents[: len(parents) - node.level + 1]
            base = [*base, *(node.module.split(".") if node.module else [])]
            # `from certified import losses` imports a module, `from certified._convex.losses import Loss` need not
            names = [".".join([*base, alias.name]) for alias in node.names] if len(base) == 1 else [".".join(base)]
        else:
            continue
        for name in names:
            root, _, rest = name.partition(".")
            below = rest.partition(".")[0]
            if root == "certified" and below and not below.startswith("__"):  # the version is everybody's
                yield below


def layer_of(package: str) -> int:
    """The number of the layer in which a package stands."""
    return next(i for i, layer in enumerate(LAYERS) if package in layer)


def forbidden(source: str, module: str) -> set[str]:
    """What the module imports and must not."""
    own = module.partition(".")[0]
    if own == "__init__":
        return set(imported(source, module)) - {"errors"}
    allowed = {package for layer in LAYERS[: layer_of(own)] for package in layer} | {own}
    if own in KNOW_NO_FAMILY:
        allowed -= FAMILIES
    return set(imported(source, module)) - allowed


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_package_has_a_layer(path):
    own = name_of(path).partition(".")[0]
    assert any(own in layer for layer in LAYERS), f"add {own} to LAYERS, below all that it imports"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_only_from_modules_above_its_own(path):
    assert forbidden(path.read_text(encoding="utf-8"), name_of(path)) == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("errors", "import certified.accounting", {"accounting"}),
        ("_exact.sums", "from certified._convex.downdate import downdate", {"_convex"}),
        ("_exact.sums", "from certified import base", {"base"}),
        ("_data.rows", "def late():\n    from ..base import Deletable", {"base"}),
        ("_data.rows", "from .subjects import Subjects", set()),
        ("preprocessing._bins", "from certified.linear_model import Ridge", {"linear_model"}),
        ("pipeline._pipeline", "from certified.preprocessing import StandardScaler", {"preprocessing"}),
        ("linear_model._ridge", "from ..testing import check_deletable", {"testing"}),
        ("linear_model._ridge", "from ._base import Head", set()),
        ("linear_model.__init__", "from certified.linear_model._ridge import Ridge", set()),
        ("linear_model._ridge", "from certified.base import Deletable", set()),
        ("testing", "from certified.pipeline import Pipeline", {"pipeline"}),
        ("_convex.state", "from certified._steps import step", {"_steps"}),
        ("base", "from certified import __version__", set()),
        ("__init__", "from certified.errors import CertifiedError", set()),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(module, source, expected):
    assert forbidden(source, module) == expected


def test_importing_the_package_loads_nothing_heavy():
    code = "import json, sys, certified; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert loaded & {"jax", "jaxlib", "numpy", "scipy", "sklearn", "polars", "narwhals", "opendp"} == set()


def test_a_public_module_loads_when_it_is_first_named():
    code = "import sys, certified as c; assert 'certified.accounting' not in sys.modules; print(c.accounting.__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert run.stdout == "certified.accounting\n"
    assert {"linear_model", "survival", "certify"} <= set(dir(certified))


@pytest.mark.parametrize("name", ["nothing", "_nothing"])
def test_a_name_that_no_module_has_is_no_attribute(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(certified, name)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_holds_a_jax_array(path):
    """An array that is made at import has the precision of the host's setting then, mostly float32."""
    module = importlib.import_module("certified." + name_of(path).removesuffix(".__init__"))
    values = [value for name, value in vars(module).items() if not name.startswith("__")]
    assert [leaf for leaf in jax.tree_util.tree_leaves(values) if isinstance(leaf, jax.Array)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_reads_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


PACKAGES = [path for path in FILES if path.name == "__init__.py"]


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_package_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_import_goes_in_a_circle():
    assert circle(graph_of(PACKAGE)) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize(("name", "most"), [("LogisticRegression", 9), ("Pipeline", 12)])
def test_a_deletion_enters_few_rooms(name, most):
    assert len(rooms_of(way_of(MODELS[name]))) <= most


def test_every_room_on_the_way_is_seen():
    assert rooms_of(modules_of(lambda: importlib.import_module("certified.accounting").epsilon_of(1.0, 1e-5))) == [
        "accounting"
    ]


def crowded(source: str, most: int = 8) -> list[str]:
    """Functions with more positional parameters than anybody can tell apart; compiled ones take no other."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            given = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args) if arg.arg not in ("self", "cls")]
            compiled = any(
                ast.unparse(d).partition("(")[0] in ("compiled", "kernel", "njit") for d in node.decorator_list
            )
            if len(given) > most and not compiled:
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_positional_parameters_are_few(path):
    assert crowded(path.read_text(encoding="utf-8")) == []


def test_a_crowd_of_parameters_is_found():
    assert crowded("def f(a, b, c, d, e, f, g, h, i): ...") == ["f"]
    assert crowded("def f(self, a, b, c, d, e, f, g, h, *, i): ...") == []
