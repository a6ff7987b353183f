"""A release predicts what its keeper predicts on everything that the keeper accepts, or refuses it.

Every estimator with a release, fitted on a table of one container and served one of another: every way to write what is
missing, columns in another order, more of them or fewer, labels of every type. A part of all pairs is drawn here; with
CERTIFIED_LONG=1 all are tried.
"""

import os
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.sparse import issparse
from sklearn.linear_model import LogisticRegression as PlainLogistic
from sklearn.pipeline import make_pipeline as plain_pipeline
from sklearn.preprocessing import OneHotEncoder as PlainOneHot
from zoo import KINDS, data, example

from certified.additive import AdditiveClassifier, AdditiveRegressor
from certified.compose import make_column_transformer
from certified.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    ShardedClassifier,
)
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import BernoulliNB, GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder, WOEEncoder
from certified.tree import DecisionTreeRegressor

N = 90
RNG = np.random.default_rng(3)
LONG = bool(os.environ.get("CERTIFIED_LONG"))
COLUMNS = {
    "job": [("clerk", "driver", "nurse", None)[k] for k in RNG.choice(4, N, p=[0.35, 0.3, 0.05, 0.3])],
    "age": [None if RNG.random() < 0.2 else float(v) for v in RNG.integers(20, 60, N)],
    "kids": [None if RNG.random() < 0.2 else int(v) for v in RNG.integers(0, 3, N)],
    "owner": [None if RNG.random() < 0.2 else bool(v) for v in RNG.integers(0, 2, N)],
}
Y = np.array([int((j is None) != (RNG.random() < 0.15)) for j in COLUMNS["job"]])


def served(columns):
    """The same columns with values that the fit has not seen, and with nothing missing, and with all missing."""
    new = {name: list(values) for name, values in columns.items()}
    new["job"][:3], new["age"][3:5] = ["pilot", None, "clerk"], [99.5, None]
    yield "new", {name: values[:20] for name, values in new.items()}
    full = [j for j in range(N) if all(values[j] is not None for values in columns.values())]
    yield "full", {name: [values[j] for j in full] for name, values in columns.items()}
    yield "empty", {name: [None, None] for name in columns}


# ------------------------------------------------------------------------------------- containers

PANDAS = {"job": "string", "age": "Float64", "kids": "Int64", "owner": "boolean"}
POLARS = {"job": pl.String, "age": pl.Float64, "kids": pl.Int64, "owner": pl.Boolean}
ARROW = {"job": pa.string(), "age": pa.float64(), "kids": pa.int64(), "owner": pa.bool_()}


def _objects(columns, missing):
    values = {name: [missing if v is None else v for v in column] for name, column in columns.items()}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in values.items()})


def _cast(columns, kind):
    return pd.DataFrame({name: pd.Series(v, dtype=kind(name)) for name, v in columns.items()})


def _numpy(columns):
    """As pandas 2 and 3 have them by default: numbers with NaN, text as objects or `str`."""
    frame = {n: [np.nan if v is None else v for v in c] if n in ("age", "kids") else c for n, c in columns.items()}
    return pd.DataFrame(frame)


def _array(columns):
    out = np.empty((len(columns["job"]), len(columns)), dtype=object)
    for j, values in enumerate(columns.values()):
        out[:, j] = values
    return out


CONTAINERS = {
    "polars": lambda c: pl.DataFrame({n: pl.Series(v, dtype=POLARS[n]) for n, v in c.items()}),
    "polars categorical": lambda c: pl.DataFrame({n: pl.Series(v, dtype=POLARS[n]) for n, v in c.items()}).with_columns(
        pl.col("job").cast(pl.Categorical)
    ),
    "pandas": _numpy,
    "pandas None": lambda c: _objects(c, None),
    "pandas NaN": lambda c: _objects(c, np.nan),
    "pandas NA": lambda c: _objects(c, pd.NA),
    "pandas nullable": lambda c: _cast(c, PANDAS.__getitem__),
    "pandas arrow": lambda c: _cast(c, lambda n: pd.ArrowDtype(ARROW[n])),
    "pandas categorical": lambda c: _numpy(c).astype({"job": "category"}),
    "pyarrow": lambda c: pa.table({n: pa.array(v, type=ARROW[n]) for n, v in c.items()}),
    "objects": _array,
    "lists": lambda c: [list(row) for row in zip(*c.values(), strict=True)],
}

MIXED = ["age", "kids"]


def columns(text):
    """Text by one step, numbers filled and scaled."""
    return make_column_transformer(
        (text, ["job", "owner"]), (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), MIXED)
    )


def alone(step, only=None):
    return make_pipeline(make_column_transformer((step, only or ["job"])), LogisticRegression())


ORDINAL = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
MODELS = {
    "one-hot": lambda: alone(OneHotEncoder(handle_unknown="ignore")),
    "one-hot, all": lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    "one-hot, infrequent": lambda: alone(OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=8)),
    "one-hot, dropped": lambda: alone(OneHotEncoder(handle_unknown="ignore", drop="first")),
    "one-hot, error": lambda: alone(OneHotEncoder()),
    "ordinal": lambda: alone(OrdinalEncoder(encoded_missing_value=-2, **ORDINAL), ["job", "owner", "kids"]),
    "target": lambda: alone(TargetEncoder(target_type="continuous"), ["job", "owner", "kids"]),
    "evidence": lambda: make_pipeline(WOEEncoder(), LogisticRegression()),
    "imputed": lambda: alone(
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["job"]
    ),
    "imputed, all": lambda: make_pipeline(
        SimpleImputer(strategy="most_frequent", add_indicator=True),
        OrdinalEncoder(encoded_missing_value=-2, **ORDINAL),
        GaussianNB(),
    ),
    "mixed": lambda: make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), LogisticRegression()),
    "mixed, naive Bayes": lambda: make_pipeline(columns(TargetEncoder(cv=None)), BernoulliNB()),
    "searched": lambda: GridSearchCV(
        make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), LogisticRegression()),
        {"logisticregression__C": [0.1, 1.0]},
        cv=2,
    ),
    "boosted": lambda: make_pipeline(
        columns(OneHotEncoder(handle_unknown="ignore")), GradientBoostingClassifier(n_estimators=3)
    ),
    "sharded": lambda: ShardedClassifier(plain_pipeline(PlainOneHot(handle_unknown="ignore"), PlainLogistic()), 2),
    "additive": lambda: AdditiveClassifier(interactions=0),
    "additive, pairs": lambda: AdditiveClassifier(interactions=[(0, 1), (0, 3)]),
    "additive, common": lambda: AdditiveClassifier(interactions=0, min_frequency=1),
    "forest": lambda: RandomForestClassifier(n_estimators=3),
    "extra trees": lambda: ExtraTreesClassifier(n_estimators=3),
    "numbers, additive": lambda: AdditiveRegressor(interactions=0),
    "numbers, ridge": lambda: make_pipeline(columns(TargetEncoder(target_type="continuous")), Ridge()),
    "numbers, tree": lambda: DecisionTreeRegressor(),
    "numbers, Poisson": lambda: make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), PoissonRegressor()),
}
LABELS = {
    "text": np.array(["no", "yes"], dtype=object)[Y],
    "words": np.where(Y == 1, "b", "a"),
    "whole": Y + 1,
    "bool": Y.astype(bool),
}


def answers(model, X):
    out = [np.asarray(model.predict(X))]
    if hasattr(model, "predict_proba"):
        out.append(np.asarray(model.predict_proba(X)))
    return out


def differs(keeper, release, X):
    """Whether the keeper accepts these rows, and what the release says otherwise; None for nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            want = answers(keeper, X)
        except Exception:
            return False, None
        try:
            got = answers(release, X)
        except Exception as error:
            return True, f"refused: {type(error).__name__}: {error}"[:150]
    if not np.array_equal(want[0], got[0]) and not np.allclose(want[0], got[0], atol=1e-6):
        return True, f"WRONG: {want[0][:4]} {got[0][:4]}"
    gap = max((np.abs(a - b).max() for a, b in zip(want[1:], got[1:], strict=True)), default=0.0)
    return True, f"WRONG by {gap:.3g}" if gap > 1e-6 else None


def _named(kind):
    return kind not in ("objects", "lists")


def pairs(model):
    """Containers of the fit and of what is served, some of them unless all are asked for."""
    fits = [kind for kind in CONTAINERS if _named(kind) or "job" not in str(model)]
    every = [(a, b) for a in fits for b in CONTAINERS]
    if LONG:
        return every
    rng = np.random.default_rng(sum(map(ord, model)))
    return [every[k] for k in rng.choice(len(every), 4, replace=False)]


@pytest.mark.parametrize("name", MODELS)
def test_a_release_is_its_keeper(name):
    y = list(LABELS.values())[sum(map(ord, name)) % len(LABELS)] if "numbers" not in name else Y + 0.5
    if "Poisson" in name:
        y = Y
    models, wrong, refused, compared, tried = {}, [], [], 0, 0
    for fitted, other in pairs(name):
        if fitted not in models:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    keeper = MODELS[name]().fit(CONTAINERS[fitted](COLUMNS), y)
                    models[fitted] = keeper, keeper.release()
                except (TypeError, ValueError):
                    if _named(fitted) and name != "sharded":  # whose encoder is scikit-learn's
                        raise
                    models[fitted] = None  # columns by name, of an array
        if models[fitted] is None:
            continue
        for what, rows in served(COLUMNS):
            for order, X in _arranged(CONTAINERS[other](rows), other):
                tried += 1
                accepted, said = differs(*models[fitted], X)
                compared += accepted
                where = f"fitted on {fitted}, served {other} ({what}, {order}): {said}"
                if said is not None:
                    (refused if said.startswith("refused") else wrong).append(where)
    assert not wrong, "\n".join(wrong)
    assert compared > len(refused), "\n".join(refused)
    if os.environ.get("CERTIFIED_SHOW"):
        print(f"\n{name}: {tried} tried, {compared} accepted, {len(refused)} refused by the release alone")
        print("\n".join(sorted(set(refused))[:4]))


def _arranged(X, kind):
    """The columns as they were, in another order, with one more, without one."""
    yield "as fitted", X
    if kind == "polars":
        yield "reordered", X.select(["owner", "kids", "age", "job"])
        yield "extra", X.with_columns(pl.lit(1.0).alias("extra"))
        yield "absent", X.drop("kids")
    elif kind.startswith("pandas"):
        yield "reordered", X[["owner", "kids", "age", "job"]]
        yield "extra", X.assign(extra=1.0)
        yield "absent", X.drop(columns="kids")
    elif kind == "pyarrow":
        yield "reordered", X.select(["owner", "kids", "age", "job"])
        yield "absent", X.drop_columns(["kids"])


@pytest.mark.parametrize("name", [name for name in KINDS if hasattr(example(name), "get_feature_names_out")])
def test_a_released_transformer_names_its_columns(name):
    keeper = example(name)
    X, y, ids = data(keeper)
    release = keeper.fit(X, y, ids=ids).release()
    if not hasattr(release, "get_feature_names_out"):
        assert not hasattr(release, "transform"), "what transforms has names"
        return
    names = keeper.get_feature_names_out()
    assert release.get_feature_names_out().tolist() == names.tolist()
    made = release.transform(X)
    assert made.shape == (len(X), len(names))
    if not issparse(made):  # pandas takes dense ones alone, as scikit-learn says
        assert release.set_output(transform="pandas").transform(X).columns.tolist() == names.tolist()
