"""The layout that CONTRIBUTING promises: imports point one way, importing is cheap, files stay short."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "certified"

# A module imports only from modules that stand before it.
ORDER = (
    "errors",
    "typing",
    "progress",
    "accounting",
    "_record",
    "certificate",
    "losses",
    "sparse_copy",
    "newton",
    "bounds",
    "active_set",
    "noise",
    "exact",
    "column_sums",
    "moments",
    "hashing",
    "columns",
    "selector",
    "renewal",
    "rows",
    "wide_rows",
    "wide_metric",
    "objective",
    "anchor",
    "column_warm_start",
    "passes",
    "head",
    "corners",
    "wide",
    "base",
    "released",
    "stable",
    "chain",
    "transformer",
    "linear_model",
    "preprocessing",
    "impute",
    "naive_bayes",
    "discriminant_analysis",
    "decomposition",
    "neighbors",
    "cluster",
    "forest",
    "tree",
    "ensemble",
    "kernel_approximation",
    "compose",
    "delegation",
    "pipeline",
    "additive",
    "model_selection",
    "conversion",
    "audit",
    "testing",
    "cli",
)
FAMILIES = {"linear_model", "preprocessing", "ensemble"}
# These know other estimators through `base` alone.
NO_FAMILY_INSIDE = FAMILIES | {"pipeline", "model_selection", "audit"}

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


def forbidden(source: str, module: str) -> set[str]:
    """What the module imports and must not."""
    own = module.partition(".")[0]
    if own == "__init__":
        return set(imported(source, module))
    allowed = set(ORDER[: ORDER.index(own)])
    if own in NO_FAMILY_INSIDE:
        allowed -= FAMILIES
    return set(imported(source, module)) - allowed - ({own} if "." in module else set())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_a_place_in_the_order(path):
    assert name_of(path).partition(".")[0] in ORDER, f"add {name_of(path)} to ORDER, below all that it imports"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_only_from_modules_above_its_own(path):
    assert forbidden(path.read_text(encoding="utf-8"), name_of(path)) == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("errors", "import certified._convex.losses", {"losses"}),
        ("losses", "from certified._convex.derivatives import downdate", {"newton"}),
        ("losses", "from certified import newton", {"newton"}),
        ("losses", "def late():\n    from . import newton", {"newton"}),
        ("losses", "from .newton import downdate", {"newton"}),
        ("preprocessing", "from certified.linear_model import Ridge", {"linear_model"}),
        ("pipeline", "from certified.preprocessing import StandardScaler", {"preprocessing"}),
        ("linear_model._ridge", "from ..testing import check_deletable", {"testing"}),
        ("linear_model._ridge", "from ._base import Head", set()),
        ("linear_model.__init__", "from certified.linear_model._ridge import Ridge", set()),
        ("linear_model._ridge", "from certified.base import Deletable", set()),
        ("testing", "from certified.pipeline import Pipeline", set()),
        ("base", "from certified import __version__", set()),
        ("__init__", "from certified.errors import CertifiedError", {"errors"}),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(module, source, expected):
    assert forbidden(source, module) == expected


def test_importing_the_package_loads_nothing_heavy():
    code = "import json, sys, certified; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert loaded & {"jax", "jaxlib", "numpy", "scipy", "sklearn", "polars", "narwhals", "opendp"} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_holds_a_jax_array(path):
    """An array that is made at import has the precision of the host's setting then, mostly float32."""
    module = importlib.import_module("certified." + name_of(path).removesuffix(".__init__"))
    values = [value for name, value in vars(module).items() if not name.startswith("__")]
    assert [leaf for leaf in jax.tree_util.tree_leaves(values) if isinstance(leaf, jax.Array)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_reads_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
