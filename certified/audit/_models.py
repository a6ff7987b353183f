"""How an auditor reads models: parameters in one order, refits that are solved tightly, fresh draws of a release."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.sparse import issparse
from sklearn.base import clone

from certified import noise
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = [
    "draws",
    "features",
    "final",
    "join",
    "noise_metric",
    "parameter",
    "private_parameter",
    "refit",
    "release_factor",
    "same_key",
    "sigma_of",
    "split",
    "steps",
]

_TIGHT = 1e-10  # standard errors: below what any certificate measures


def steps(model: Any) -> list[tuple[str, Any]]:
    """Return the named steps of a pipeline, of ours or of scikit-learn; another model is its only step."""
    found = getattr(model, "steps_", None) or getattr(model, "steps", None)
    return list(found) if found else [(type(model).__name__, model)]


def final(model: Any) -> Any:
    """Return the last step."""
    return steps(model)[-1][1]


def join(coef: Any, intercept: Any, size: int | None = None) -> FloatArray:
    """Return coefficients and intercepts as one vector, output by output, in the order of ``noise_metric_``.

    `size` is the number of parameters with noise: where it equals that of the coefficients, there is no intercept.
    """
    table = np.atleast_2d(np.asarray(coef, dtype=np.float64))
    if size is not None and size == table.size:
        return table.ravel()
    column = np.broadcast_to(np.asarray(intercept, dtype=np.float64).reshape(-1, 1), (len(table), 1))
    return np.hstack([table, column]).ravel()


def split(theta: FloatArray, n_outputs: int, intercept: bool = True) -> tuple[FloatArray, FloatArray]:
    """Return coefficients, shape (n_outputs, n_features), and intercepts, shape (n_outputs,), from a vector."""
    table = np.asarray(theta).reshape(n_outputs, -1)
    return (table[:, :-1], table[:, -1]) if intercept else (table, np.zeros(n_outputs))


def parameter(published: Any, size: int | None = None) -> FloatArray:
    """Return the parameter vector of a published linear model, of the last step of a pipeline."""
    model = final(published)
    if not hasattr(model, "coef_"):
        raise InvalidInput(
            f"The audit got a {type(model).__name__} without coef_. A linear model, or a pipeline that ends in one, is "
            "needed. For other models compare predictions: certified.audit.empirical."
        )
    return join(model.coef_, getattr(model, "intercept_", 0.0), size)


def private_parameter(model: Any) -> FloatArray:
    """Return the parameter vector without noise, for which a keeper is needed."""
    if not hasattr(model, "private_coef_"):
        raise InvalidInput(
            f"The audit got a {type(model).__name__} without private_coef_. It needs the private keeper of a linear "
            "model; for published models see certified.audit.release_test."
        )
    return join(model.private_coef_, model.private_intercept_, model.noise_metric_.shape[0])


def noise_metric(model: Any) -> FloatArray:
    """Return ``noise_metric_`` as a dense array; that of a wide model is a sparse diagonal."""
    metric = model.noise_metric_
    return metric.toarray() if issparse(metric) else metric


def release_factor(model: Any) -> FloatArray:
    """Return lower-triangular L with ``L L' = noise_metric_``."""
    try:
        return np.asarray(cholesky(noise_metric(model), lower=True))
    except LinAlgError:
        raise InvalidInput("The audit got a noise metric that is not positive definite.") from None


def sigma_of(model: Any) -> float:
    """Return the noise of a fitted keeper, in standard errors, as its certificate states it."""
    return float(model.certificate_.sigma)


def same_key(model: Any) -> Any:
    """Return an unfitted clone that fits with the key that this model has, so that exact states can be compared.

    Examples
    --------
    >>> from certified.cluster import KMeans
    >>> model = KMeans(2).fit([[0.0], [1.0], [5.0]])
    >>> same_key(model).key == model.key_
    True
    """
    recipe = clone(model)
    if getattr(recipe, "key", 0) is None and hasattr(model, "key_"):
        recipe.set_params(key=model.key_)
    return recipe


def refit(model: Any, X: Any, y: Any, ids: Any = None, **fit: Any) -> Any:
    """Return a fit of the same recipe to these rows; one that is solved iteratively is solved tightly.

    A model that drew its key is compared with a refit of the same key, as its certificate is.
    """
    tight = same_key(model)
    head = final(tight)
    known = {} if ids is None else {"ids": ids}
    iterative = hasattr(head, "tol") and hasattr(head, "epsilon")  # exact models keep to their own parameters
    if iterative:
        name = "tol" if "tol" in tight.get_params(deep=False) else f"{steps(tight)[-1][0]}__tol"
        tight.set_params(**{name: min(_TIGHT, head.tol)})
    return tight.fit(X, y, **known, **fit)


def features(published: Any, X: Any) -> Any:
    """Return X as the last step of a published pipeline sees it."""
    named = steps(published)
    if len(named) == 1:
        return X.to_numpy() if hasattr(X, "to_numpy") else np.asarray(X)
    for _, step in named[:-1]:
        X = X if isinstance(step, str) else step.transform(X)
    return np.asarray(X)


def draws(model: Any, n_draws: int, random_state: int | None = None) -> FloatArray:
    """Return fresh releases of one state, shape (n_draws, p), with the library's own noise.

    Parameters
    ----------
    model : fitted keeper of a linear model
        Not changed, and nothing is recorded in its transcript: for auditors only.
    n_draws : int
    random_state : int or None
        None draws from the operating system, as a release does.
    """
    w, factor, sigma = private_parameter(model), release_factor(model), sigma_of(model)
    if sigma == 0.0:
        return np.tile(w, (n_draws, 1))
    rng = None if random_state is None else np.random.default_rng(random_state)
    point = np.rint(noise.whiten(w, factor, sigma)[0] / noise.STEP)
    jumps = noise.discrete_gaussian(n_draws * len(w), 1 / noise.STEP, rng).reshape(n_draws, len(w))
    lattice = (point + jumps) * noise.STEP
    return sigma * solve_triangular(factor, lattice.T, lower=True, trans="T").T
