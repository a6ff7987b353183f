"""One example of everything that a vault can hold: the classes are found, not listed; wholes are made of them."""

import importlib
import importlib.util
import inspect
import pkgutil

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.base import clone

import certified
from certified.compose import ColumnTransformer, make_union
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge
from certified.model_selection import GridSearchCV, RandomizedSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
    WOEEncoder,
)

TREES = importlib.util.find_spec("numba") is not None
BASES = {"ExactClassifier", "ExactRegressor", "ExactTransformer"}  # of certified.extend: to be filled in
IN_CONTEXT = {"ContextClassifier", "ContextRegressor"}  # hold a foreign estimator, and the rows it is asked with


def found():
    """Every class with ``fit`` and ``delete`` that a public module exports, by name."""
    out = {}
    for module in pkgutil.walk_packages(certified.__path__, "certified."):
        if any(part.startswith("_") for part in module.name.split(".")[1:]) or module.name.endswith(".vault"):
            continue
        try:
            names = importlib.import_module(module.name)
        except ImportError:  # an extra that is not installed
            continue
        for name in getattr(names, "__all__", ()):
            kind = getattr(names, name)
            deletable = isinstance(kind, type) and hasattr(kind, "fit") and hasattr(kind, "delete")
            if deletable and not inspect.isabstract(kind) and name not in BASES:
                out[name] = kind
    return out


def needs_more(kind):
    given = inspect.signature(kind).parameters.values()
    return any(p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in given)


def _encoded(encoder):
    return ColumnTransformer([("numbers", StandardScaler(), ["a", "b"]), ("text", encoder, ["job"])])


def examples():
    """Estimator, kind of rows, and classes of others that are trusted, by name."""
    out = {}
    for name, kind in found().items():
        if not needs_more(kind):
            few = {"n_estimators": 3} if "n_estimators" in inspect.signature(kind).parameters else {}
            out[name] = kind(**few), "dense", ()
    logistic = LogisticRegression()
    out |= {
        "by products": (LogisticRegression(solver="newton-cg"), "dense", ()),
        "balanced": (LogisticRegression(class_weight="balanced"), "dense", ()),
        "elastic net": (LogisticRegression(C=0.3, l1_ratio=0.6), "dense", ()),
        "poisson by products": (PoissonRegressor(solver="newton-cg"), "dense", ()),
        "sparse": (logistic, "sparse", ()),
        "wide and sparse": (logistic, "wide", ()),
        "wide and sparse, by products": (LogisticRegression(solver="newton-cg"), "wide", ()),
        "one-hot": (make_pipeline(_encoded(OneHotEncoder(handle_unknown="ignore")), logistic), "text", ()),
        "targets": (make_pipeline(_encoded(TargetEncoder()), logistic), "text", ()),
        "weights of evidence": (make_pipeline(_encoded(WOEEncoder()), logistic), "text", ()),
        "gaps": (make_pipeline(SimpleImputer(), RobustScaler(), logistic), "gaps", ()),
        "union": (make_pipeline(make_union(StandardScaler(), KBinsDiscretizer(3)), Ridge()), "dense", ()),
        # of two candidates one is hopeless: a choice that changes is a new fit, which lays out its rows anew
        "search": (GridSearchCV(logistic, {"C": [1e-7, 1.0]}, cv=3, scoring="neg_log_loss"), "dense", ()),
        "search of pipelines": (
            GridSearchCV(
                make_pipeline(StandardScaler(), logistic),
                {"logisticregression__C": [1e-7, 1.0]},
                cv=2,
                scoring="neg_log_loss",
            ),
            "dense",
            (),
        ),
        "random search": (RandomizedSearchCV(Ridge(), {"alpha": [0.1, 1e9]}, n_iter=2, cv=2), "dense", ()),
    }
    if TREES:
        from certified.ensemble import RandomForestClassifier, ShardedClassifier, ShardedRegressor

        ordinal = _encoded(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))
        out |= {
            "codes, forest": (make_pipeline(ordinal, RandomForestClassifier(n_estimators=3)), "text", ()),
            "search of forests": (
                GridSearchCV(RandomForestClassifier(n_estimators=2), {"max_depth": [0, 3]}, cv=2),
                "dense",
                (),
            ),
            "shards": (
                ShardedClassifier(logistic, n_shards=3),
                "dense",
                ("sklearn.linear_model._logistic:LogisticRegression",),
            ),
            "shards of numbers": (
                ShardedRegressor(Ridge(), n_shards=3),
                "dense",
                ("sklearn.linear_model._ridge:Ridge",),
            ),
        }
    return out


def rows_like(kind, x):
    """The same numbers, three columns, as other kinds of rows."""
    if kind == "sparse":
        return sp.csr_array(np.where(x > 1, x, 0))
    if kind == "wide":
        return sp.csr_array(np.hstack([np.where(x > 1, x, 0)] * 100))
    if kind == "text":
        return pd.DataFrame(
            {"a": x[:, 0], "b": x[:, 1], "job": np.array(list("abcd"))[np.minimum(x[:, 2] * 2, 3).astype(int)]}
        )
    return np.where(x < 0.1, np.nan, x) if kind == "gaps" else x


def fitted(estimator, X, y, ids):
    """Fit with one key; on numbers where the estimator takes no classes, and without targets where it has none."""
    model = clone(estimator)
    keys = {name: 7 for name, value in model.get_params().items() if name.split("__")[-1] == "key" and value is None}
    model.set_params(**keys)
    numbers = y + 0.1 + np.arange(len(y)) % 7 / 7
    targets = (numbers, y) if getattr(model, "_estimator_type", "") == "regressor" else (y, numbers)
    problem = None
    for target in targets:
        try:
            return model.fit(X, target, ids=ids)
        except (ValueError, TypeError) as error:
            problem = error
    try:
        return model.fit(X, ids=ids)
    except (ValueError, TypeError):
        raise problem from None
