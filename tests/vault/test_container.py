"""A fitted estimator comes back from its file as it was, deletes to the same bits, and no file can run code."""

import hashlib
import importlib.util
import inspect
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography")

from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer

from certified import cluster, decomposition, discriminant_analysis, linear_model, naive_bayes, neighbors, preprocessing
from certified.additive import AdditiveClassifier, AdditiveRegressor
from certified.compose import ColumnTransformer, make_union
from certified.errors import InvalidInput, NewerFormat, NotDeletable, StorageFailed
from certified.impute import SimpleImputer
from certified.kernel_approximation import Nystroem
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge
from certified.model_selection import GridSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, RobustScaler, StandardScaler
from certified.vault._container import dump, dumps, load, loads
from certified.vault._encode import state_of

N = 90
RNG = np.random.default_rng(0)
X = np.abs(np.round(RNG.standard_normal((N, 3)), 2))
IDS = np.array([f"P{i // 2:04d}" for i in range(N)])
Y = (X[:, 0] + RNG.standard_normal(N) > 0.5) * 1
POSITIVE = np.abs(RNG.standard_normal(N)) + 0.1


def every():
    """Every estimator that the packages export, and wholes made of them."""
    for module in (
        *(linear_model, naive_bayes, neighbors, cluster, decomposition, discriminant_analysis),
        preprocessing,
    ):
        for name in module.__all__:
            kind = getattr(module, name)
            needs = inspect.signature(kind).parameters.values() if isinstance(kind, type) else ()
            if hasattr(kind, "fit") and all(p.default is not p.empty for p in needs):
                yield name, kind()
    yield "by products", LogisticRegression(solver="newton-cg")
    yield "elastic net", LogisticRegression(C=0.3, l1_ratio=0.6)
    yield "balanced", LogisticRegression(class_weight="balanced")
    yield "poisson by products", PoissonRegressor(solver="newton-cg")
    yield "imputer, robust scaler, logistic", make_pipeline(SimpleImputer(), RobustScaler(), LogisticRegression())
    yield "union, bins, ridge", make_pipeline(make_union(StandardScaler(), KBinsDiscretizer(3)), Ridge())
    yield (
        "columns, ridge",
        make_pipeline(ColumnTransformer([("a", StandardScaler(), [0])], remainder="passthrough"), Ridge()),
    )
    yield "function, scaler", make_pipeline(FunctionTransformer(np.tanh), StandardScaler())
    yield "additive classifier", AdditiveClassifier(max_bins=8)
    yield "additive regressor", AdditiveRegressor(max_bins=8)
    yield "search", GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]})
    yield "kernel, ridge", make_pipeline(Nystroem(n_components=5), Ridge())


def trees():
    if importlib.util.find_spec("numba") is None:
        return
    from certified import ensemble

    yield "forest", ensemble.RandomForestClassifier(n_estimators=3)
    yield "extra trees", ensemble.ExtraTreesRegressor(n_estimators=3)
    yield "isolation forest", ensemble.IsolationForest(n_estimators=3)
    yield "boosting", ensemble.GradientBoostingClassifier(n_estimators=3)


def written(value, **how):
    file = io.BytesIO()
    dump(value, file, **how)
    return file.getvalue()


def fitted(estimator):
    regressor = getattr(estimator, "_estimator_type", "") == "regressor" or "Regressor" in type(estimator).__name__
    y = POSITIVE if regressor or isinstance(estimator, GridSearchCV) else Y
    try:
        return clone(estimator).fit(X, y, ids=IDS)
    except TypeError:
        return clone(estimator).fit(X, ids=IDS)


_TIMES = ("seconds",)  # how long something took
_DERIVED = ("_order", "_sorted", "_rank", "_first", "_stored", "_scratch")  # made again when it is needed


def differences(a, b, path="model", seen=None):
    """Yield where two object graphs differ in any bit."""
    seen = set() if seen is None else seen
    if id(a) in seen:
        return
    seen.add(id(a))
    if type(a) is not type(b):
        yield path, type(a), type(b)
    elif isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape or (a.dtype != object and a.tobytes() != b.tobytes()):
            yield path, "array"
        elif a.dtype == object:
            for i, pair in enumerate(zip(a.ravel(), b.ravel(), strict=True)):
                yield from differences(*pair, f"{path}[{i}]", seen)
        elif a.ndim > 1 and a.size > 1 and a.flags.c_contiguous != b.flags.c_contiguous:
            yield path, "order"
    elif isinstance(a, dict):
        if list(a) != list(b):
            yield path, set(map(str, a)) ^ set(map(str, b))
        for key in (key for key in a if key in b and not str(key).endswith("_time")):
            yield from differences(a[key], b[key], f"{path}.{key}", seen)
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            yield path, len(a), len(b)
        for i, pair in enumerate(zip(a, b, strict=False)):
            yield from differences(*pair, f"{path}[{i}]", seen)
    elif isinstance(a, int | float | str | bytes | bytearray | type | np.generic | slice) or a is None:
        if a != b and not (a != a and b != b):
            yield path, a, b
    elif hasattr(a, "__dict__"):
        parts = [_attributes(x) for x in (a, b)]
        seen.add(id(parts))  # keep apart from later ones
        _ALIVE.append(parts)
        yield from differences(*parts, path, seen)


_ALIVE = []


def _attributes(value):
    state = state_of(value) if type(value).__module__.startswith("certified.") else vars(value)
    return {key: state[key] for key in sorted(state) if key not in (*_DERIVED, *_TIMES)}


@pytest.mark.parametrize(("name", "estimator"), [pytest.param(*pair, id=pair[0]) for pair in (*every(), *trees())])
def test_an_estimator_comes_back_and_deletes_to_the_same_bits(name, estimator):
    model = fitted(estimator)
    again = loads(written(model))
    assert list(differences(model, again)) == []
    for gone in (["P0003"], ["P0007", "P0011"], [f"P{i:04d}" for i in range(20, 30)]):
        receipts = [one.delete(gone) for one in (model, again)]
        assert receipts[0].certificate.digest == receipts[1].certificate.digest
    assert list(differences(model, again)) == []
    assert again.ids_.tolist() == model.ids_.tolist()
    data = written(again)
    assert not any(code in data for code in (b"P0003", "P0007".encode("utf-32-le"), "P0011".encode("utf-16-le")))


def test_what_is_shared_stays_shared_and_cycles_come_back():
    inner = [1.5, np.arange(3)]
    ring = {"inner": inner, "same": inner}
    ring["self"] = ring
    again = loads(written(ring))
    assert again["inner"] is again["same"]
    assert again["self"] is again


def test_values_come_back_with_their_types_and_bits():
    values = [
        *(None, True, 7, -(2**70), 1.5, float("inf"), -0.0, "text", b"bytes", bytearray(b"more")),
        *((1, "a"), {"b": 2, 3: 4}, {5}, frozenset({6}), slice(1, None, 2)),
        *(np.float64(0.1), np.int8(3), np.str_("x"), np.float64, np.tanh),
    ]
    values = [value for value in values if value is not np.float64]
    again = loads(written(values))
    assert repr(again) == repr([str(v) if isinstance(v, np.str_) else v for v in values])
    nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000001234))[0]
    array = np.array([nan, 1.0])
    assert loads(written(array)).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)),
        np.array(5.0),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(20.0)[::2],
        np.array(["a", "bcd"]),
        np.array([("x", 1, [1.0, 2.0])], dtype=[("a", "U3"), ("b", "i4"), ("c", "f8", (2,))]),
        np.array([None, "text", 1.5], dtype=object),
        np.arange(3, dtype=np.longdouble) / 3,
    ],
    ids=lambda a: f"{a.dtype} {a.shape}",
)
def test_arrays_come_back_bit_for_bit_aligned_and_in_their_order(array):
    again = loads(written([array]))[0]
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert repr(again.tolist()) == repr(array.tolist())
    if array.dtype != object:
        assert again.ctypes.data % 64 == 0 or again.size == 0
        assert again.flags.writeable
    assert again.flags.f_contiguous == array.flags.f_contiguous or array.ndim < 2 or not array.flags.contiguous


def tampered(tree):
    """A file with this tree, and a checksum that holds."""
    head = json.dumps({"tree": tree, "arrays": []}).encode()
    data = struct.pack("<8sIQ12x", b"CERTSTAT", 1, len(head)) + head
    return data + hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:Popen",
        "certified.vault._container:json.loads",
        "certified.vault._files:os.unlink",
        "certified.errors:__builtins__",
        "sklearn.metrics._scorer:np.load",
        "sklearn.metrics._ranking:trapezoid.__globals__",
        "certified.cli:main.<locals>",
        "certifiedx.evil:Class",
        "sklearn.pipeline:Pipeline",
        "functools:partial",
    ],
)
@pytest.mark.parametrize("form", ["class", "object", "tuple"])
def test_a_file_that_names_anything_else_is_refused(name, form):
    tree = {"class": {"n": 0, "t": name}, "object": {"n": 0, "c": name, "d": {}}, "tuple": {"n": 0, "c": name, "f": []}}
    with pytest.raises((NotDeletable, StorageFailed), match=r"names|cannot be read"):
        loads(tampered(tree[form]))


def test_objects_are_filled_and_never_called():
    class Loud:
        def __init__(self):
            raise AssertionError("called")

    made = loads(tampered({"n": 0, "c": "certified.linear_model._ridge:Ridge", "d": {"coef_": 3, "alpha": 1}}))
    assert vars(made) == {"coef_": 3, "alpha": 1}


def test_values_that_cannot_be_stored_are_refused_when_they_are_written():
    for value, match in (
        (np.random.default_rng(0), "seeded generator"),
        (lambda: 0, "names"),
        (object(), "names"),
        (np.array([(None,)], dtype=[("a", object)]), "cannot be stored"),
        (io.BytesIO(), "names"),
    ):
        with pytest.raises(NotDeletable, match=match):
            written([value])


def test_classes_of_others_can_be_trusted_by_name():
    from sklearn.linear_model import LinearRegression

    plain = LinearRegression().fit(X, POSITIVE)
    with pytest.raises(NotDeletable, match=r"trusted=\(\.\.\.\)"):
        written(plain)
    name = ("sklearn.linear_model._base:LinearRegression",)
    data = written(plain, trusted=name)
    with pytest.raises(NotDeletable, match="trusted"):
        loads(data)
    assert np.array_equal(loads(data, trusted=name).predict(X), plain.predict(X))


def test_damage_is_found_wherever_it_is():
    data = written(fitted(StandardScaler()))
    for at in range(0, len(data), 97):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises((StorageFailed, NewerFormat)):
            loads(bytes(broken))
    for cut in (0, 10, 100, len(data) - 1):
        with pytest.raises(StorageFailed):
            loads(data[:cut])


def test_a_file_of_a_later_version_is_refused_with_advice():
    data = bytearray(written([1]))
    data[8:12] = struct.pack("<I", 2)
    with pytest.raises(NewerFormat, match="Install a newer version"):
        loads(bytes(data))


def test_arrays_can_be_stored_elsewhere():
    array = np.arange(5.0)
    head, arrays = dumps({"x": array, "y": 2.0}, lambda a, where: "there" if where == "x" else None)
    assert arrays == []
    data = head + hashlib.sha256(head).digest()
    assert loads(data, inside=lambda name: {"there": array}[name])["x"] is array
    with pytest.raises(StorageFailed, match="stored elsewhere"):
        loads(data)


def test_a_keeper_that_the_first_format_stored_loads_and_deletes():
    """The file was written by the first version with this format; it must load in every later one."""
    path = Path(__file__).parent / "stored" / "scaler-1.state"
    model = load(path)
    assert model.ids_.tolist() == [f"subject-{i}" for i in range(8)]
    model.delete(["subject-3"])
    rows = np.delete(np.arange(24.0).reshape(8, 3) ** 1.5, 3, axis=0)
    again = StandardScaler().fit(rows, ids=[f"subject-{i}" for i in range(8) if i != 3])
    assert model.state_digest_ == again.state_digest_


def test_what_could_not_be_read_again_is_not_written():
    """An exception, say, which a model keeps by mistake: a state with it would be lost."""
    with pytest.raises(NotDeletable, match="cannot be read again"):
        dumps({"problem": InvalidInput("x")})
