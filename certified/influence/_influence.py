"""Leave out every subject of a fitted model, one after the other, without a refit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from certified._convex.leave_out import LeftOut, Minimised, Setting, leave_out, reading_errors, setting
from certified._convex.left_out_by_passes import by_passes
from certified._convex.losses import Squared
from certified._data.subjects import Subjects
from certified._data.targets import codes_among
from certified._keeper.turns import turn_of
from certified.base import Deletable
from certified.errors import InvalidInput
from certified.influence._record import Influence
from certified.influence._validation import by_group, predictions
from certified.pipeline import Pipeline
from certified.typing import FloatArray, IntArray

__all__ = ["influence"]


def influence(
    model: Any,
    X: Any = None,
    y: Any = None,
    *,
    ids: Any = None,
    groups: Mapping[Any, Any] | None = None,
    by: Any = None,
    sample_weight: Any = None,
    offset: Any = None,
    prediction: bool = False,
    passes: int = 10,
) -> Influence:
    """Return what leaving out each subject would change, with a certified error, without a refit.

    Nothing in the model changes. For n rows and p coefficients all subjects together take about the time of two or
    three passes that form a Hessian, O(n p^2).

    Parameters
    ----------
    model : fitted estimator or Pipeline
        With an L2 penalty or none: LogisticRegression, PoissonRegressor, GammaRegressor, TweedieRegressor,
        LogCoshRegressor (solver "newton-cholesky"), Ridge, LinearRegression; alone or at the end of a pipeline, whose
        steps are then held as they are ("head given the steps"). Additive models, whose terms are such steps. Boosted
        trees for two classes and for numbers, whose trees are held ("leaf values given the trees"); the coefficients
        are then the leaf values, and a table of rows times leaves is formed.
    X : array-like of shape (n_validation_rows, n_features) or None
        Rows on which predictions are followed, as ``predict`` takes them.
    y : array-like of shape (n_validation_rows,) or None
        Their targets, for the loss.
    ids : array-like or None
        Subjects asked for; None for all.
    groups : dict or None
        Name of a group and its subjects: each is left out as a whole (a branch, a cohort). Not together with `ids`.
    by : array-like of shape (n_validation_rows,) or None
        Group of each validation row: loss and mean prediction are followed for each group.
    sample_weight, offset : arrays of shape (n_validation_rows,) or None
        Of the validation rows.
    prediction : bool, default=False
        Follow every single prediction, too: two matrices of shape (m, n_validation_rows).
    passes : int, default=10
        So many subjects or groups that are too large for one step are answered by passes over the retained rows, each
        about as long as a fit that starts near; the others, and those without whom there is no minimiser, have no
        bound.

    Returns
    -------
    Influence

    Raises
    ------
    InvalidInput
        The model, or a request, is none of these.
    UnknownIds
        A subject is not retained.
    CannotCertify
        The minimiser is not unique in float64, or its distance unknown.

    Notes
    -----
    The bound is theorem 4 of the documentation ("Influence"); for those answered by passes it is theorem 1.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.influence import influence
    >>> from certified.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression().fit(X / X.std(axis=0), y)
    >>> found = influence(model)
    >>> found.coef_change.shape
    (569, 31)
    >>> bool((found.error < found.size).mean() > 0.8)
    True
    """
    if not (isinstance(model, Deletable) and hasattr(model, "_subjects")):
        raise InvalidInput(
            f"influence(model) got {type(model).__name__}. A fitted linear model of this package is needed, or a "
            "pipeline that ends in one. Nothing was changed."
        )
    turn = turn_of(model)
    with turn.lock:
        turn.finish()
        head = model._final if isinstance(model, Pipeline) else model
        if not hasattr(head, "_minimised"):
            raise InvalidInput(
                f"influence(model) got {type(head).__name__}. LogisticRegression, PoissonRegressor, GammaRegressor, "
                "TweedieRegressor, LogCoshRegressor, Ridge, LinearRegression, boosted trees and additive models are "
                "allowed, alone or at the end of a pipeline. Delete the subject from a copy of the model instead. "
                "Nothing was changed."
            )
        names, order, starts = _asked(model._subjects, ids, groups)
        of = head._minimised()
        base = setting(of)
        found = leave_out(base, of.rows, order, starts)
        by_passes(base, of, found, order, starts, passes)
        errors = found.error if of.grid is None else found.error + reading_errors(base, of, found)
        known = _validated(model, head, X, y, by, sample_weight, offset)
    values: list[Any] = []
    loss = mean = each = None
    if known is not None:
        x, target, weight, shift = known
        values, loss, mean = by_group(base, found, errors, x, target, weight, shift, by)
        if prediction:
            if of.problem.loss.outputs > 1:
                raise InvalidInput(
                    "influence(prediction=True) got a model of several classes. Single predictions are followed for "
                    "one predictor; the loss is for all. Set prediction=False. Nothing was changed."
                )
            each = predictions(base, found, errors, x, shift)
    whole, without = _dispersion(base, of, found, order, starts)
    return Influence(
        names,
        np.diff(starts),
        found.change,
        found.size,
        errors,
        found.leverage,
        base.errors,
        whole,
        without,
        "head given the steps" if head is not model else getattr(head, "_held", "estimator"),
        loss,
        mean,
        each,
        values,
    )


def _asked(subjects: Subjects, ids: Any, groups: Any) -> tuple[Any, IntArray, IntArray]:
    """Names, positions of rows, and where those of each name start."""
    if groups is not None:
        if ids is not None or not isinstance(groups, Mapping) or not len(groups):
            raise InvalidInput(
                "influence(groups=...) needs a dict of a name and the ids of its subjects, and no ids. Nothing was "
                "changed."
            )
        rows = [subjects.rows_of(members, f"influence(groups={name!r})") for name, members in groups.items()]
        return np.array(list(groups), dtype=object), *_flat(rows)
    if ids is not None:
        names = subjects.wanted(ids, "influence(ids=...)")
        subjects.rows_of(names, "influence(ids=...)")
        return names, *_flat([subjects.rows_of(names[i : i + 1], "influence(ids=...)") for i in range(len(names))])
    live = subjects.retained[subjects._order]
    order, sorted_ids = subjects._order[live], subjects._sorted[live]
    first = np.flatnonzero(np.concatenate([[True], sorted_ids[1:] != sorted_ids[:-1]]))
    return sorted_ids[first], order, np.append(first, order.size)


def _flat(rows: list[IntArray]) -> tuple[IntArray, IntArray]:
    return np.concatenate(rows), np.concatenate([[0], np.cumsum([part.size for part in rows])])


def _validated(model: Any, head: Any, X: Any, y: Any, by: Any, sample_weight: Any, offset: Any) -> Any:
    """Validation rows as the head sees them: x, y, weights, offsets; None for none."""
    if X is None:
        given = [name for name, value in (("y", y), ("by", by), ("sample_weight", sample_weight)) if value is not None]
        if given:
            raise InvalidInput(f"influence({given[0]}=...) was given without X. Give X, or leave it out.")
        return None
    if head is not model:
        X = model._transformed(X)
    x, shift = head._features_of(X, offset)
    n = len(x)
    for name, value in (("y", y), ("by", by), ("sample_weight", sample_weight)):
        if value is not None and len(value) != n:
            raise InvalidInput(f"influence({name}=...) got {len(value)} values for {n} rows. One for each is needed.")
    weight = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if not (np.all(np.isfinite(weight)) and np.all(weight >= 0.0) and np.any(weight > 0.0)):
        raise InvalidInput("influence(sample_weight=...) needs finite weights >= 0, one of them > 0.")
    target = None
    if y is not None:
        if hasattr(head, "classes_"):
            target = codes_among(head.classes_, y, n, "influence").astype(np.float64)
        else:
            target = head._encoded(y, weight)[0] if hasattr(head, "_encoded") else np.asarray(y, dtype=np.float64)
    return x, target, weight, np.zeros(n) if shift is None else shift


def _dispersion(
    base: Setting, of: Minimised, found: LeftOut, order: IntArray, starts: IntArray
) -> tuple[float, FloatArray]:
    """Dispersion of the model and without each subject."""
    if not isinstance(of.problem.loss, Squared):
        return 1.0, np.ones(len(starts) - 1)
    rows, p = of.rows, len(base.point)
    squares = rows.weight * np.square(rows.x @ base.point - rows.y)
    n = int(np.count_nonzero(rows.weight))
    whole = float(squares.sum() + of.problem.penalty @ np.square(base.point))
    part = np.add.reduceat(squares[order], starts[:-1])
    left = n - np.add.reduceat((rows.weight[order] > 0.0).astype(np.int64), starts[:-1]) - p
    rest = np.maximum(whole - part - 2.0 * found.gain, 0.0)
    with np.errstate(all="ignore"):
        return whole / max(n - p, 1), np.where(left > 0, rest / np.maximum(left, 1), np.nan)
