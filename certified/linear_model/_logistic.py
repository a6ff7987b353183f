"""Logistic regression with certified deletion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import issparse
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression as _SklearnLogisticRegression
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from certified._convex.losses import Logistic, Loss, Softmax
from certified._convex.problem import Problem
from certified._data.frames import split_column, split_ids
from certified._data.numbers import validate_data
from certified._data.one_part import OnePart
from certified._data.targets import classes_left, codes_among
from certified.base import all_or_nothing
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model._certified import CertifiedLinear
from certified.linear_model._parted import class_counts, opened, scaled
from certified.linear_model._solvers import Solver, chosen
from certified.linear_model._state import Sizes, State, Totals
from certified.parts._source import Opened, Parts
from certified.typing import FloatArray, IntArray

__all__ = ["LogisticRegression"]

_MANY = 20  # classes of one row each, from which y is taken for something else
_TRIED = 10_000_000  # entries of the features up to which separation is looked for


class LogisticRegression(ClassifierMixin, CertifiedLinear):
    """Logistic regression whose subjects can be deleted, with a certificate.

    Minimises ``C * sum_i s_i log(1 + exp(-y_i (x_i'w + b))) + (1 - l1_ratio) ||w||^2 / 2 + l1_ratio ||w||_1`` as
    scikit-learn does; the intercept b is not penalised. With more than two classes the loss is the multinomial one,
    with a vector w and an intercept for every class. The fitted object is the private *keeper*: it holds the rows.
    ``coef_``, ``predict`` and ``release()`` serve the *released* parameters, to which Gaussian noise was added.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty; ``inf`` for none.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, from 0 to 1, for dense features and two classes. The private coefficients have zeros;
        a release with noise has none, because noise falls on every coefficient. A pure L1 penalty is refused where
        the Hessian is singular: with duplicate columns, or more features than rows.
    epsilon, delta : float, default=1.0 and 1e-6
        Every release is (epsilon, delta)-indistinguishable from one of a refit without the deleted subjects.
    noise : float, default=0.1
        Standard deviation of the noise in standard errors of the estimate. 0 releases the bare parameters and
        certifies nothing but the distance.
    fit_intercept : bool, default=True
    class_weight : dict, "balanced" or None, default=None
        Factors of the weights of each class. "balanced" is ``sum of weights / (n_classes * weight of the class)``; a
        deletion changes it for every row that stays, so that each takes a pass over the rows. The noise keeps to the
        unbalanced weights.
    solver : {"auto", "newton-cholesky", "newton-cg", "lbfgs", "sag", "saga"}, default="auto"
        "newton-cholesky" forms Hessians: dense features, up to some thousands; most deletions take no pass over the
        rows. "newton-cg" takes products with the rows alone: sparse features, which stay sparse, and wide ones; every
        request takes some passes, and the noise has a diagonal metric. It needs a penalty and serves two classes.
        "auto" takes "newton-cg" for more than 256 sparse coefficients, and for more than 1,000. scikit-learn's other
        names are taken for "auto", since the minimiser is the same; "liblinear", which penalises the intercept, is
        refused.
    removal : {"newton", "influence"}, default="newton"
        How rows are taken out without a pass. "newton" updates the Hessian, "influence" leaves it as it was: faster for
        hundreds of coefficients and more, at the cost of the bound, so that a pass is needed sooner.
    tol : float, default=1e-6
        ``fit`` stops when the distance to the minimiser is at most this, in standard errors.
    max_iter : int, default=100
        Largest number of passes over the rows for a fit or a deletion; of Newton steps with "newton-cg".
    random_state : int, RandomState or None, default=None
        None draws the noise from the operating system. A seed makes simulations repeatable and voids the
        certificate, because whoever knows the seed can subtract the noise.
    penalty
        As in scikit-learn, where C and l1_ratio say what it is: accepted where it agrees with them.
    dual, intercept_scaling, verbose, warm_start, n_jobs
        Accepted as in scikit-learn. They concern work alone, or liblinear.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
        Released coefficients.
    intercept_ : array of shape (1,) or (n_classes,)
        Released intercept.
    certificate_ : Certificate
    ids_ : array
        Ids of the subjects retained.
    n_rows_ : int
    private_coef_, private_intercept_, release_metric_
        State without noise, for auditors; never to be published.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    The loss is generalised self-concordant with constant 1; theorems 1 and 2 of the documentation bound the distance.
    With K classes the Hessian has K (n_features + 1) rows: up to a few thousand are practical.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression().fit(X / X.std(axis=0), y)
    >>> model.delete([3, 5]).n_rows
    2
    >>> model.certificate_.claim
    'indistinguishable'
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        l1_ratio: float = 0.0,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        fit_intercept: bool = True,
        class_weight: Any = None,
        solver: str = "auto",
        removal: str = "newton",
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
        penalty: Any = "deprecated",
        dual: bool = False,
        intercept_scaling: float = 1,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: Any = None,
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.solver = solver
        self.removal = removal
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.penalty = penalty
        self.dual = dual
        self.intercept_scaling = intercept_scaling
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None, offset: Any = None) -> Self:
        """Fit on all rows.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_rows, n_features), or Parts
            With :class:`certified.parts.Parts`, y and the others are names of columns of the source; all other columns
            are features.
        y : array-like of shape (n_rows,), or column name
            At least two classes.
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; several rows may share one. None numbers the rows 0..n-1. A column named here is not
            a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0.
        offset : array-like of shape (n_rows,), column name or None
            Known part of the linear predictor; two classes only. The predictions do not contain it.

        Returns
        -------
        self
        """
        self._check_penalty()
        if not (isinstance(self.C, int | float | np.number) and self.C > 0):
            raise InvalidInput(f"LogisticRegression(C={self.C!r}) is not allowed: a number > 0 is needed.")
        if not (isinstance(self.l1_ratio, int | float | np.number) and 0.0 <= self.l1_ratio <= 1.0):
            raise InvalidInput(
                f"LogisticRegression(l1_ratio={self.l1_ratio!r}) is not allowed: a number from 0 to 1 is needed."
            )
        if isinstance(X, Parts):
            return self._fit_source(X, y, ids, sample_weight, offset)
        X, ids = split_ids(X, ids)
        X, offset = split_column(X, offset, "offset")
        X, y = validate_data(self, X, y, dtype=np.float64, order="C", accept_sparse="csr")
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        offset = self._offset("fit", offset, None, X.shape[0])
        classes, encoded = np.unique(y, return_inverse=True)
        counts = np.bincount(encoded[weight > 0], minlength=len(classes))
        self._check_classes(classes, counts, offset is not None)
        weight = weight * self._class_factors(classes)[encoded]
        loss = Logistic() if len(classes) == 2 else Softmax(len(classes))
        self._fit_rows(loss, X, encoded.astype(np.float64), weight, ids, offset)
        self.classes_, self._counts = classes, counts
        return self

    def _fit_source(self, X: Parts, y: Any, ids: Any, sample_weight: Any, offset: Any) -> Self:
        """Fit on rows in parts."""
        with opened(
            self, X, y, ids, as_classes=True, ones=self.fit_intercept, sample_weight=sample_weight, offset=offset
        ) as found:
            return self._fit_opened(found)

    def _fit_opened(self, found: Opened) -> Self:
        classes = found.classes
        counts = class_counts(found.rows, len(classes))
        self._check_classes(classes, counts, found.rows.has_offset)
        scaled(found.rows, self._class_factors(classes))
        self._fit_parts(Logistic() if len(classes) == 2 else Softmax(len(classes)), found)
        self.classes_, self._counts = classes, counts
        return self

    def _prepared(self, rows: Any) -> None:
        scaled(rows, self._class_factors(self.classes_))

    def _check_classes(self, classes: Any, counts: IntArray, with_offset: bool) -> None:
        """Raise InvalidInput for too few classes, for classes that are ids, and for an offset of several."""
        if len(classes) < 2 or np.any(counts == 0):
            raise InvalidInput(
                "Classifier can't train when only one class is present: at least two classes, each with a positive "
                f"weight, are needed; y has {np.unique(classes[counts > 0]).tolist()}. Leave out rows of other classes."
            )
        if len(classes) > _MANY and counts.max() == 1:
            raise InvalidInput(
                f"LogisticRegression.fit got y with {len(classes)} classes, one row each ({classes[:3].tolist()}...). "
                "A classifier needs rows that share a class. Are these the ids? They are given by name: fit(X, y, "
                "ids=ids). Nothing was changed."
            )
        if with_offset and len(classes) > 2:
            raise InvalidInput(f"LogisticRegression.fit got an offset with {len(classes)} classes; two are allowed.")

    def _check_penalty(self) -> None:
        """Raise InvalidInput where scikit-learn's older words ask for another penalty than C and l1_ratio say."""
        ask = {
            "deprecated": True,
            "l2": self.l1_ratio == 0 and np.isfinite(self.C),
            "l1": self.l1_ratio == 1 and np.isfinite(self.C),
            "elasticnet": np.isfinite(self.C),
            None: np.isinf(self.C),
        }
        if not (isinstance(self.penalty, str | None) and ask.get(self.penalty, False)):
            raise InvalidInput(
                f"LogisticRegression(penalty={self.penalty!r}) got C={self.C!r} and l1_ratio={self.l1_ratio!r}. As in "
                "scikit-learn since 1.8, C and l1_ratio say what the penalty is: l1_ratio=1 for 'l1', 0 for 'l2', "
                "between for 'elasticnet', and C=inf for none. Leave penalty out. Nothing was changed."
            )
        if self.dual or self.intercept_scaling != 1:
            raise InvalidInput(
                f"LogisticRegression(dual={self.dual!r}, intercept_scaling={self.intercept_scaling!r}) is not allowed: "
                "both belong to liblinear, which penalises the intercept. Leave them at False and 1."
            )

    def _chosen(self, sparse: bool, width: int, loss: Loss) -> type[Solver]:
        penalised = bool(np.isfinite(self.C))
        l1 = penalised and self.l1_ratio > 0
        return chosen(type(self).__name__, self.solver, sparse, width, loss.outputs, penalised, l1)

    def _problem_of(self, loss: Loss, n_columns: int, totals: Totals | None) -> Problem:
        penalized = self._penalized(loss, n_columns)
        total, share = 1.0 / float(self.C), float(self.l1_ratio)
        if total == 0.0:
            penalized = np.zeros_like(penalized)
        factors = self._factors(totals)
        max_weight_ratio = 1.0 if factors is None else float(np.max(factors))
        return Problem(
            loss,
            penalized,
            (1.0 - share) * total,
            loss.scale(0.5),
            l1_strength=share * total,
            max_weight_ratio=max_weight_ratio,
        )

    def _start(self, problem: Problem, totals: Totals | None, rows: Any) -> FloatArray:
        start = super()._start(problem, totals, rows)
        if self.fit_intercept and not self._solver.predicts:
            codes = np.arange(max(2, problem.loss.outputs))
            logs = np.log([float(np.sum(rows.weight[rows.y == k])) for k in codes])
            if problem.loss.outputs == 1:
                start[-1] = logs[1] - logs[0]
            else:
                start.reshape(len(codes), -1)[:, -1] = logs - logs.mean()
        return start

    def _solve(self, rows: Any, totals: Totals | None, sizes: Sizes, problem: Problem, *rest: Any, **how: Any) -> State:
        try:
            return super()._solve(rows, totals, sizes, problem, *rest, **how)
        except CannotCertify:
            if problem.strength or problem.l1_strength or not _separated(rows, problem.loss.outputs):
                raise
            raise CannotCertify(
                f"LogisticRegression(C={self.C!r}) got classes that the features separate without error, so that "
                "coefficients grow without end and there is no minimiser. Give a finite C, which is a penalty, or "
                "leave out the feature that gives the class away. Nothing was changed."
            ) from None

    def _summed_classes(self, loss: Loss) -> int | None:
        return max(2, loss.outputs) if self.class_weight == "balanced" else None

    def _factors(self, totals: Totals | None) -> FloatArray | None:
        if totals is None:
            return None
        return 1.0 / (totals.classes * totals.means)

    def _class_factors(self, classes: Any) -> FloatArray:
        """Factors of a dict, shape (n_classes,)."""
        given = self.class_weight
        if given is None or (isinstance(given, str) and given == "balanced"):
            return np.ones(len(classes))
        names = classes.tolist()
        if not isinstance(given, dict) or not set(given) <= set(names):
            raise InvalidInput(
                f'LogisticRegression(class_weight={given!r}) is not allowed: None, "balanced" or a dict from the '
                f"classes {names} to numbers > 0 is needed."
            )
        factors = np.array([float(given.get(name, 1.0)) for name in names])
        if not np.all((factors > 0) & np.isfinite(factors)):
            raise InvalidInput(f"LogisticRegression(class_weight={given!r}) is not allowed: numbers > 0 are needed.")
        return factors

    def _class_counts(self, rows: IntArray) -> IntArray:
        return self._counts - self._count(rows)

    def _with_classes_left(self, rows: IntArray) -> tuple[Any, Callable[[], None]] | None:
        old, subjects = self._rows, self._subjects
        if not isinstance(self._rows, OnePart):
            return None
        left = subjects.retained.copy()
        n = len(left)
        left[rows] = False
        found = classes_left(old.y[:n].astype(np.int64), left, len(self.classes_))
        if found is None:
            return None
        draft = self._draft()
        draft.classes_, draft._counts = self.classes_[found[0]], (self._counts - self._count(rows))[found[0]]
        draft._class_factors(draft.classes_)  # raises where they name a class that is gone, as a fit does
        loss = Logistic() if len(draft.classes_) == 2 else Softmax(len(draft.classes_))
        draft._solver = draft._chosen(self._sparse, self.n_features_in_, loss)
        x, y = old.x[:n, : self.n_features_in_], found[1].astype(np.float64)
        draft._rows = draft._held(x, y, old.without(rows)[:n], None)
        posed = draft._posed(loss, draft._rows, self.n_features_in_ + self.fit_intercept)
        draft._store(draft._solve(draft._rows, *posed, rest=0.0), np.inf)
        draft._released = None
        return draft, old.clear

    def _counted_out(self, rows: IntArray) -> dict[str, Any]:
        return {"_counts": self._counts - self._count(rows)}

    def _encoded(self, y: Any, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        codes = codes_among(self.classes_, y, len(weight), "LogisticRegression.add")
        return codes.astype(np.float64), weight * self._class_factors(self.classes_)[codes]

    def _counted_in(self, y: FloatArray, weight: FloatArray) -> dict[str, Any]:
        return {"_counts": self._counts + np.bincount(y[weight > 0].astype(np.int64), minlength=len(self.classes_))}

    def _count(self, rows: IntArray) -> IntArray:
        """Rows of each class with a positive weight, shape (n_classes,)."""
        _, y, weight = self._rows.take(rows)
        return np.bincount(y[weight > 0].astype(np.int64), minlength=len(self.classes_))

    def _shaped(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        table = w.reshape(self._state.problem.loss.outputs, -1)
        if self.fit_intercept:
            return table[:, :-1].copy(), table[:, -1].copy()
        return table.copy(), np.zeros(len(table))

    def decision_function(self, X: Any) -> FloatArray:
        """Return the released linear predictor, shape (n_rows,), or (n_rows, n_classes) for more than two classes."""
        self._check_fitted()
        X = validate_data(self, X, dtype=np.float64, reset=False, accept_sparse="csr")
        coef, intercept = self._shaped(self._parameter)
        z = X @ coef.T + intercept
        return z[:, 0] if z.shape[1] == 1 else z

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, shape (n_rows,)."""
        z = self.decision_function(X)
        return self.classes_[(z > 0).astype(int) if z.ndim == 1 else np.argmax(z, axis=1)]

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        z = self.decision_function(X)
        return softmax(np.column_stack([np.zeros_like(z), z]) if z.ndim == 1 else z)

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithms of :meth:`predict_proba`."""
        z = self.decision_function(X)
        if z.ndim == 1:
            return np.column_stack([-np.logaddexp(0.0, z), -np.logaddexp(0.0, -z)])
        return log_softmax(z, axis=1)

    def _release(self) -> _SklearnLogisticRegression:
        """Return a plain scikit-learn classifier with the released parameters.

        It holds no training row and needs no part of this package to be loaded.
        """
        coef, intercept = self.coef_, self.intercept_
        out = _SklearnLogisticRegression(C=self.C, fit_intercept=self.fit_intercept)
        if self.l1_ratio > 0:
            out.set_params(l1_ratio=self.l1_ratio, solver="saga")
        out.coef_, out.intercept_, out.classes_ = coef, intercept, self.classes_.copy()
        out.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.solver != "newton-cholesky" and self.l1_ratio == 0
        tags.classifier_tags.multi_class = self.l1_ratio == 0
        return tags


def _separated(rows: Any, outputs: int) -> bool:
    """Whether a hyperplane has all rows of one class on one side (of several: of each class and the others)."""
    if not isinstance(rows, OnePart) or issparse(rows.x) or rows.x.size > _TRIED:
        return False
    used = np.flatnonzero(rows.weight > 0)
    x, y = rows.x[used], rows.y[used]
    size = np.abs(x).max(axis=0)
    x = x / np.where(size > 0, size, 1.0)
    for code in range(2 if outputs == 1 else outputs)[1 if outputs == 1 else 0 :]:
        side = np.where(y == code, -1.0, 1.0)[:, None] * x
        found = linprog(np.zeros(x.shape[1]), A_ub=side, b_ub=-np.ones(len(x)), bounds=(None, None))
        if found.status == 0:
            return True
    return False
