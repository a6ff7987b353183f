"""What people use to unlearn a logistic regression today, and this package: methods that ``bench_audit.py`` audits.

Each gets the full fit, the deleted rows F and the retained rows R (features, classes), and returns parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import SGDClassifier

from certified import audit
from certified.linear_model import LogisticRegression


def newton(X: np.ndarray, y: np.ndarray, start: Any = None, weight: Any = None, steps: int = 12) -> np.ndarray:
    """Logistic regression with C = 1 and an intercept, to the minimum; parameters [coef, intercept]."""
    table = np.column_stack([X, np.ones(len(X))])
    w = np.zeros(table.shape[1]) if start is None else start.copy()
    s = np.ones(len(y)) if weight is None else weight
    for _ in range(steps):
        w = w - np.linalg.solve(hessian(table, w, s), gradient(table, y, w, s))
    return w


def penalty_of(w: np.ndarray) -> np.ndarray:
    return np.append(np.ones(len(w) - 1), 0.0)


def gradient(table: np.ndarray, y: np.ndarray, w: np.ndarray, s: Any) -> np.ndarray:
    """Gradient of the penalised sum."""
    return table.T @ (s * (expit(table @ w) - y)) + penalty_of(w) * w


def hessian(table: np.ndarray, w: np.ndarray, s: Any) -> np.ndarray:
    """Hessian of the penalised sum."""
    p = expit(table @ w)
    return (table.T * (s * p * (1 - p))) @ table + np.diag(penalty_of(w))


class Linear(ClassifierMixin, BaseEstimator):
    """A logistic model with given parameters."""

    def __init__(self, w: Any = None) -> None:
        self.w = w

    def fit(self, X: Any = None, y: Any = None) -> Linear:
        """Set the parameters."""
        self.coef_, self.intercept_, self.classes_ = self.w[None, :-1], self.w[-1:], np.array([0, 1])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities."""
        p = expit(X @ self.w[:-1] + self.w[-1])
        return np.column_stack([1 - p, p])


# Each method gets the full fit, the deleted and the retained rows, and returns parameters.
def do_nothing(w: Any, F: Any, R: Any) -> Any:
    """Serve the model as it was."""
    return w


def influence(w: Any, F: Any, R: Any) -> Any:
    """One influence-function step with the Hessian of all rows, no noise."""
    table = np.column_stack([np.vstack([F[0], R[0]]), np.ones(len(F[1]) + len(R[1]))])
    gone = table[: len(F[1])]
    return w + np.linalg.solve(hessian(table, w, 1.0), gone.T @ (expit(gone @ w) - F[1]))


def newton_step(w: Any, F: Any, R: Any) -> Any:
    """One Newton step on the retained rows, no noise."""
    return newton(*R, start=w, steps=1)


def fine_tune(w: Any, F: Any, R: Any) -> Any:
    """Five gradient steps on the retained rows."""
    table = np.column_stack([R[0], np.ones(len(R[1]))])
    rate = 1.0 / np.linalg.eigvalsh(hessian(table, w, 1.0))[-1]
    for _ in range(5):
        w = w - rate * gradient(table, R[1], w, 1.0)
    return w


def ascend(w: Any, F: Any, R: Any) -> Any:
    """Five gradient steps up the loss of the deleted rows, then five down on the kept ones."""
    table = np.column_stack([F[0], np.ones(len(F[1]))])
    rate = 0.5 / np.linalg.eigvalsh(hessian(np.column_stack([R[0], np.ones(len(R[1]))]), w, 1.0))[-1]
    for _ in range(5):
        w = w + rate * table.T @ (expit(table @ w) - F[1])
    return fine_tune(w, F, R)


def flip_labels(w: Any, F: Any, R: Any) -> Any:
    """Refit with the labels of the deleted rows flipped."""
    return newton(np.vstack([F[0], R[0]]), np.append(1 - F[1], R[1]), start=w, steps=8)


def negative_weights(w: Any, F: Any, R: Any) -> Any:
    """scikit-learn's SGDClassifier.partial_fit on the deleted rows with weight -1."""
    model = SGDClassifier(loss="log_loss", alpha=1.0 / (len(F[1]) + len(R[1])), random_state=0)
    model.partial_fit(F[0][:2], F[1][:2], classes=[0, 1])
    model.coef_, model.intercept_, model.t_ = w[None, :-1].copy(), w[-1:].copy(), float(len(F[1]) + len(R[1]))
    model.partial_fit(F[0], F[1], sample_weight=-np.ones(len(F[1])))
    return np.append(model.coef_, model.intercept_)


def river_undone(w: Any, F: Any, R: Any) -> Any:
    """river's logistic regression, which learns the deleted rows once more with weight -1."""
    from river import linear_model, optim

    model = linear_model.LogisticRegression(optim.SGD(0.01), intercept_init=w[-1])  # its default rate
    model._weights.update({j: value for j, value in enumerate(w[:-1].tolist())})
    for x, y in zip(F[0].tolist(), F[1].tolist(), strict=True):
        model.learn_one(dict(enumerate(x)), bool(y), w=-1.0)
    return np.append([model.weights.get(j, 0.0) for j in range(len(w) - 1)], model.intercept)


def ours(w: Any, F: Any, R: Any) -> Any:
    """This package: fit, delete, release with noise of a tenth of a standard error."""
    model = LogisticRegression(tol=1e-4)
    n = len(F[1])
    model.fit(np.vstack([F[0], R[0]]), np.append(F[1], R[1]))
    model.delete(range(n))
    return np.append(model.coef_, model.intercept_)


def ours_before(F: Any, R: Any) -> Any:
    """The release of this package before the deletion."""
    model = LogisticRegression(tol=1e-4).fit(np.vstack([F[0], R[0]]), np.append(F[1], R[1]))
    return np.append(model.coef_, model.intercept_)


def ours_bare(w: Any, F: Any, R: Any) -> Any:
    """The same without the noise of the release, for the distance."""
    model = LogisticRegression(tol=1e-4)
    model.fit(np.vstack([F[0], R[0]]), np.append(F[1], R[1]))
    model.delete(range(len(F[1])))
    return audit.private_parameter(model)


def refitted(w: Any, F: Any, R: Any) -> Any:
    """The control: a refit without noise."""
    return newton(*R)


METHODS: tuple[Callable[..., Any], ...] = (
    refitted,
    ours,
    do_nothing,
    influence,
    newton_step,
    fine_tune,
    ascend,
    flip_labels,
    negative_weights,
    *([river_undone] if find_spec("river") else []),
)
