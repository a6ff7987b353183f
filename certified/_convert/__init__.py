"""Estimators of scikit-learn, and others by their name, to their counterparts that can delete."""

from __future__ import annotations

import warnings
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from certified._convert.hints import hint
from certified._steps.sequence import as_step
from certified.base import Deletable
from certified.errors import CertifiedError, InvalidInput, NotDeletable

__all__ = ["certify"]

# How the work is done or shown, not what is fitted; or a sample drawn otherwise here, by the hashes of the subjects.
# A value of these that is scikit-learn's default becomes ours; any other value that differs from ours is carried.
_WORK = {"max_iter", "tol", "random_state"}
_WORK |= {"copy", "copy_X", "n_jobs", "verbose", "solver", "svd_solver", "precompute", "warm_start", "subsample"}
_WORK |= {
    "iterated_power",
    "n_oversamples",
    "power_iteration_normalizer",
    "force_int_remainder_cols",
    "copy_x",
}
_ELSEWHERE = {
    ("interpret", "ExplainableBoostingClassifier"): ("additive", "AdditiveClassifier"),
    ("interpret", "ExplainableBoostingRegressor"): ("additive", "AdditiveRegressor"),
}
_INSIDE = ("steps", "transformers", "transformer_list", "estimator", "remainder")


_PROMISE = ("epsilon", "delta", "noise")


def certify(estimator: Any, *, epsilon: Any = None, delta: Any = None, noise: Any = None) -> Any:
    """Return the deletable counterpart of an unfitted estimator; see :func:`certified.certify`."""
    if isinstance(estimator, type | str) or not hasattr(estimator, "get_params"):
        raise InvalidInput(
            f"certify got {estimator!r}. An estimator, a pipeline or a search is needed, unfitted: an object, for "
            "example LogisticRegression(), and not the class or its name."
        )
    problems: list[str] = []
    found = _converted(estimator, "", problems, top=True)
    if not problems:
        _promise(found, dict(zip(_PROMISE, (epsilon, delta, noise), strict=True)))
        _try(found, estimator, type(found).__name__, problems)
    if problems:
        raise NotDeletable(
            "certify found no counterpart for:\n"
            + "\n".join(f"- {problem}" for problem in problems)
            + "\nReplace these, wrap what was fitted on other data in FrozenEstimator, or use FunctionTransformer for "
            "what learns nothing. Any estimator, a whole pipeline too, deletes in shards: `certified.ensemble`."
        )
    return found


def _promise(found: Any, given: dict[str, Any]) -> None:
    """Set epsilon, delta and noise of every part that has them."""
    parameters = found.get_params(deep=True)
    for name, value in given.items():
        if value is None:
            continue
        places = [key for key in parameters if key.rpartition("__")[2] == name]
        if not places:
            raise InvalidInput(
                f"certify({name}={value!r}) was given for {type(found).__name__}, no part of which adds noise: its "
                f"deletions are exact. Leave {name} out."
            )
        found.set_params(**dict.fromkeys(places, value))


def _try(found: Any, plain: Any, where: str, problems: list[str]) -> None:
    """Name what a fit would refuse: parameters of ours that fail on made-up rows on which the plain ones work."""
    for name, step, other in _parts(found, plain):
        _try(step, other, name, problems)
    if _parts(found, plain) or not isinstance(found, Deletable) or isinstance(plain, Deletable):
        return
    changed = {name for name, value in found.get_params(deep=False).items() if not _is_default(found, name, value)}
    if not changed - set(_PROMISE):
        return
    rows = np.linspace(0.5, 1.5, 96)[np.arange(96) * 37 % 96].reshape(24, 4)
    y = np.arange(24) % 2 + (0 if hasattr(found, "predict_proba") or "Classifier" in where else 1)
    small = {"n_estimators": 2} if "n_estimators" in found.get_params(deep=False) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clone(found).set_params(**small).fit(rows, y)
        except CertifiedError as error:
            try:
                clone(plain).set_params(**small).fit(rows, y)
            except Exception:
                return  # made-up rows that do not fit
            problems.append(f"{where}: {str(error).replace(' Nothing was changed.', '')}")
        except Exception:
            return


def _parts(found: Any, plain: Any) -> list[tuple[str, Any, Any]]:
    """Return the estimators in another, with their names, and the plain ones they come from."""
    out: list[tuple[str, Any, Any]] = []
    for parameter in _INSIDE:
        ours, theirs = getattr(found, parameter, None), getattr(plain, parameter, None)
        if isinstance(ours, list) and isinstance(theirs, list):
            out += [(ours[k][0], ours[k][1], theirs[k][1]) for k in range(len(ours))]
        elif isinstance(ours, Deletable):
            out.append((parameter, ours, theirs))
    return out


def _is_default(estimator: Any, name: str, value: Any) -> bool:
    return _equal(value, _defaults(type(estimator)).get(name))


def _converted(estimator: Any, name: str, problems: list[str], top: bool = False) -> Any:
    if isinstance(estimator, str) or estimator is None:
        return estimator
    where = f"{name or type(estimator).__name__}"
    if isinstance(estimator, Deletable):
        return clone(estimator)
    counterpart = _counterpart(estimator)
    if counterpart is None:
        try:
            as_step(estimator, name, "certify")
        except NotDeletable:
            stateless = False
        else:
            stateless = not top
        if not stateless:
            kind = type(estimator).__name__
            problems.append(f"{where}: {kind} learns from the data and has no counterpart here.{hint(kind)}")
        return estimator
    own, defaults = _defaults(counterpart), _defaults(type(estimator))
    elsewhere = not type(estimator).__module__.startswith("sklearn.")  # its defaults are another library's
    given: dict[str, Any] = {}
    for parameter, value in estimator.get_params(deep=False).items():
        untouched = _equal(value, defaults.get(parameter))
        if parameter in _INSIDE:
            given[parameter] = _inside(value, name, problems)
        elif untouched and (elsewhere or parameter in _WORK or parameter not in own or _equal(value, own[parameter])):
            continue
        elif not untouched and (type(estimator).__name__, parameter) in _MEANS:
            given |= _MEANS[type(estimator).__name__, parameter](value, where, problems)
        elif parameter in own and parameter != "solver":  # ours chooses by itself
            given[parameter] = value
        elif parameter not in _WORK:
            why = _why(type(estimator).__name__, parameter)
            problems.append(f"{where}: {type(estimator).__name__}({parameter}={value!r}) is not supported{why}.")
    found = counterpart(**given)
    _check_grid(found, where, problems)
    return found


def _check_grid(found: Any, where: str, problems: list[str]) -> None:
    """Name the parameters of a search that its converted estimator does not have."""
    grids = getattr(found, "param_grid", getattr(found, "param_distributions", None))
    if grids is None or not hasattr(found.estimator, "get_params"):
        return
    known = found.estimator.get_params(deep=True)
    for parameter in dict.fromkeys(key for grid in ([grids] if isinstance(grids, dict) else grids) for key in grid):
        if parameter not in known:
            instead = " Use l1_ratio (1 for l1, 0 for l2)." if parameter.rpartition("__")[2] == "penalty" else ""
            problems.append(
                f"{where}: the search is over {parameter!r}, which {type(found.estimator).__name__} does not have "
                f"here.{instead}"
            )


def _inside(value: Any, name: str, problems: list[str]) -> Any:
    """Return steps, ``(name, estimator)`` or ``(name, estimator, columns)``, converted."""
    if not isinstance(value, list):
        return _converted(value, f"{name}__estimator" if name else "estimator", problems)
    out = []
    for inner, step, *columns in value:
        out.append((inner, _converted(step, f"{name}__{inner}" if name else inner, problems), *columns))
    return out


def _counterpart(estimator: Any) -> Any:
    """Return the class of the same name in the module of the same name, one known by its name, or None."""
    root, _, rest = type(estimator).__module__.partition(".")
    if (known := _ELSEWHERE.get((root, type(estimator).__name__))) is not None:
        return getattr(import_module(f"certified.{known[0]}"), known[1])
    if root != "sklearn" or not isinstance(estimator, BaseEstimator):
        return None
    try:
        module = import_module("certified." + rest.partition(".")[0])
    except ModuleNotFoundError:
        return None
    name = type(estimator).__name__
    return getattr(module, name) if name in module.__all__ else None


def _defaults(kind: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in signature(kind.__init__).parameters.items()}


def _equal(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and np.ndim(a) == 0 and bool(a == b)) or (_is_nan(a) and _is_nan(b))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _penalty(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if value is None or value == "none":
        return {"C": np.inf}
    return {"l1": {"l1_ratio": 1.0}, "l2": {"l1_ratio": 0.0}}.get(value, {})  # l1_ratio of its own for "elasticnet"


def _seedless(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    return {}  # of a solver or a subsample; here a seed would make the noise of a release known


def _seed(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if isinstance(value, int | np.integer):
        return {"random_state": int(value)}
    problems.append(f"{where}: random_state={value!r} is not supported, a refit has to repeat it: give a whole number.")
    return {}


def _objective(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    losses = {"poisson_deviance": "poisson", "gamma_deviance": "gamma"}
    if value not in losses:
        problems.append(f"{where}: objective={value!r} is not supported; one of {['rmse', *losses]} is.")
        return {}
    return {"loss": losses[value]}


def _folds(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if value is None or (isinstance(value, int | np.integer) and not isinstance(value, bool)):
        return {} if value is None else {"cv": int(value)}
    problems.append(f"{where}: cv={value!r} is not supported: folds follow from the hashes of subjects; give a number.")
    return {}


def _pairs(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if value is None or isinstance(value, str | float):
        problems.append(f"{where}: interactions={value!r} is not supported: give a whole number or a list of pairs.")
        return {}
    return {"interactions": value}


def _why(name: str, parameter: str) -> str:
    if name not in _TREES:
        return ""
    from certified._trees.unsupported import REASONS  # needs numba, which is optional

    return f": {REASONS[parameter]}" if parameter in REASONS else ""


def _key(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    found = _seed(value, where, problems)
    return {"key": found["random_state"]} if found else {}


def _impurity(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if value not in ("gini", "entropy", "log_loss", "squared_error", "friedman_mse", "poisson"):
        problems.append(f"{where}: criterion={value!r} is not supported: sums of whole numbers do not give it.")
        return {}
    return {"criterion": value}


def _weights(value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if value != "balanced" and not isinstance(value, dict):
        problems.append(f"{where}: class_weight={value!r} is not supported: a dict or 'balanced' is.")
        return {}
    return {"class_weight": value}


_FORESTS = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_TREES = (*_FORESTS, "DecisionTreeClassifier", "DecisionTreeRegressor")
_MEANS: dict[tuple[str, str], Any] = {
    **{(name, "criterion"): _impurity for name in _TREES},
    **{(name, "class_weight"): _weights for name in _TREES if name.endswith("Classifier")},
    **{(name, "random_state"): _key for name in (*_TREES, "IsolationForest")},
    ("ExplainableBoostingRegressor", "objective"): _objective,
    ("ExplainableBoostingClassifier", "interactions"): _pairs,
    ("ExplainableBoostingRegressor", "interactions"): _pairs,
    ("LogisticRegression", "penalty"): _penalty,
    **{(name, "random_state"): _key for name in ("KMeans", "Nystroem", "RandomizedSearchCV")},
    ("GridSearchCV", "cv"): _folds,
    ("RandomizedSearchCV", "cv"): _folds,
    **{
        (name, "random_state"): _seedless
        for name in (
            *("LogisticRegression", "Ridge", "ElasticNet", "Lasso", "KBinsDiscretizer", "PCA", "TargetEncoder"),
            *("ExplainableBoostingClassifier", "ExplainableBoostingRegressor"),
        )
    },
}
