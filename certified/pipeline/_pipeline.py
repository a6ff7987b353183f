"""Pipelines whose every step deletes.

A certificate for the last step is worth little while a step before it still remembers the deleted rows. So each step
must be deletable (a transformer of this package), stateless (``FunctionTransformer``), "passthrough", or declared to
have learned from elsewhere (``FrozenEstimator``); anything else is refused.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.pipeline import Pipeline as _SklearnPipeline
from sklearn.pipeline import _name_estimators
from sklearn.utils import get_tags
from sklearn.utils._set_output import _safe_set_output, _wrap_data_with_container
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_sample_weight,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from certified._data.feature_change import FeatureChange
from certified._data.frames import Columns, Schema, is_frame, read, split_column, split_ids
from certified._data.reproducible import digest, same
from certified._data.rows import placed
from certified._data.subjects import Subjects
from certified._data.table import RemainingRows, Table
from certified._data.targets import codes_among
from certified._steps.sequence import as_step, delete_through, fit_through, served, targets
from certified._steps.stateless import StatelessStep, is_of_text, is_passthrough, of_table
from certified._steps.step import ExactStep
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Certificate, versions
from certified.compose import FeatureUnion, make_union
from certified.errors import InvalidInput, InvalidRequest, NotDeletable
from certified.pipeline._delegation import Delegation, final_has
from certified.typing import FloatArray, IntArray

__all__ = ["FeatureUnion", "Pipeline", "make_pipeline", "make_union"]


class Pipeline(Delegation, Deletable):
    """Transformers and a final estimator that are fitted, deleted from and released as one.

    Parameters
    ----------
    steps : list of (str, estimator)
        Transformers, then a certified estimator. Steps are cloned; the fitted ones are in ``steps_``.

    Attributes
    ----------
    steps_ : list of (str, fitted estimator)
    certificate_, ids_, n_rows_, coef_, intercept_, private_coef_, private_intercept_, release_metric_
        Of the final estimator; the certificate has the scope "pipeline".

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.linear_model import LogisticRegression
    >>> from certified.pipeline import make_pipeline
    >>> from certified.preprocessing import StandardScaler
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> model.delete([17, 42]).certificate.scope
    'pipeline'
    """

    _changed: tuple[str, ...]

    def __init__(self, steps: list[tuple[str, Any]]) -> None:
        self.steps = steps

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(
        self,
        X: Any,
        y: Any = None,
        ids: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
        exposure: Any = None,
    ) -> Pipeline:
        """Fit every step on all rows.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_rows, n_features), or texts of shape (n_rows,)
            Sparse where the first step takes it, texts where that is a vectoriser.
        y : array-like of shape (n_rows,)
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; several rows may share one. None numbers the rows 0..n-1.
        sample_weight : array-like of shape (n_rows,) or None
            Given to every step that takes it.
        offset, exposure : array-like of shape (n_rows,), column name or None
            Given to the final estimator, where it takes them. A column named here or as ids is not a feature.

        Returns
        -------
        self
        """
        before, final = self._checked_steps()
        X, ids = split_ids(X, ids)
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        known = self._known(final.fit, offset, exposure)
        x, schema = self._read(X, reset=True)
        n_rows = x.shape[0]
        weight = self._weights(sample_weight, n_rows, final, known)
        subjects = Subjects(ids, n_rows)
        target = targets([step for step in before if step._supervised], y, n_rows)
        table = Table(x, weight, target, subjects.hashes())
        coded = target is not None and target.dtype.kind == "i"
        self._labels = np.unique(np.asarray(y)) if coded else None  # their positions are the codes
        for step in before:
            step._see(X if is_frame(X) else x, getattr(self, "feature_names_in_", None), schema)
            if not is_passthrough(step):
                break
        statistics, learned, features = fit_through(before, table.with_weight())
        width = x.shape[1]
        for step, statistic, part in zip(before, statistics, learned, strict=True):
            width = served(step, statistic, part, width)
        if not isinstance(final, ExactStep):
            values = self._placed(features, weight > 0.0)
            final = clone(final).fit(values, y, ids=subjects, **known)
            final._owned = True
            self.steps_ = [*self._named(before), (self.steps[-1][0], final)]
        else:
            self.steps_ = self._named(before)
        self._before, self._schema, self._table, self._subjects = before, schema, table, subjects
        if hasattr(final, "classes_"):
            self.classes_ = final.classes_
        return self

    def _weights(self, sample_weight: Any, n_rows: int, final: Any, known: dict[str, Any]) -> FloatArray:
        """Return the weights; put them among the arguments of a final estimator that takes them."""
        weight = np.array(_check_sample_weight(sample_weight, np.ones(n_rows), dtype=np.float64))
        if np.any(weight < 0.0):
            raise ValueError("Negative values in data passed to `sample_weight`.")
        if has_fit_parameter(final, "sample_weight"):
            known["sample_weight"] = weight
        elif sample_weight is not None and not isinstance(final, ExactStep):
            raise InvalidInput(
                f"Pipeline got sample_weight, which its last step, {type(final).__name__}, does not take. Leave the "
                "weights out. Nothing was changed."
            )
        return weight

    def _named(self, before: list[ExactStep]) -> list[tuple[str, Any]]:
        """Return fitted steps with their names; one that learns nothing as the plain transformer it is."""
        pairs = zip(self.steps, before, strict=False)
        return [(name, step.release() if isinstance(step, StatelessStep) else step) for (name, _), step in pairs]

    def _read(self, X: Any, reset: bool) -> tuple[Any, Schema | None]:
        """Return the features in the form used inside; text may enter where the first step takes it."""
        step = self._first()
        first = get_tags(step).input_tags
        if is_of_text(step):
            return read(self, _as_column(X, type(step).__name__), None if reset else self._schema)
        if first.categorical:
            return read(self, X, None if reset else self._schema)
        nan: Any = "allow-nan" if first.allow_nan else True
        allowed: Any = "csr" if first.sparse else False
        x = validate_data(
            self, X, dtype=np.float64, order="C", reset=reset, ensure_all_finite=nan, accept_sparse=allowed
        )
        if issparse(x):
            return csr_array(x, copy=reset), None
        return np.array(x) if reset else x, None

    def _first(self) -> Any:
        """The first step that does anything."""
        return next(step for _, step in self.steps if not isinstance(step, str))

    def _placed(self, features: Any, retained: Any) -> Any:
        """Return features at the positions of their rows, zeros elsewhere."""
        if isinstance(features, Columns):
            raise InvalidInput(
                f"{type(self.steps[-1][1]).__name__} got features that are text. Put "
                "certified.preprocessing.OneHotEncoder in front of it."
            )
        return placed(features, retained)

    def _checked_steps(self) -> tuple[list[ExactStep], Any]:
        """Return the steps that are stable, as clones, and the final one."""
        names = [name for name, _ in self.steps]
        self._validate_names(names)
        final = self.steps[-1][1]
        if not isinstance(final, Deletable):
            raise NotDeletable(
                f"Pipeline.fit got the final step {names[-1]!r}, a {type(final).__name__}, which cannot delete. Use an "
                "estimator of `certified`, for example certified.linear_model.LogisticRegression."
            )
        if not isinstance(final, ExactStep):
            return [as_step(step, name, "Pipeline.fit") for name, step in self.steps[:-1]], final
        before = [as_step(step, name, "Pipeline.fit") for name, step in self.steps]
        return before, before[-1]

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        """Plan the deletion in every step; features are computed anew from the first step that changes."""
        if rows.size >= self.n_rows_:
            raise InvalidRequest(
                "delete(ids=...) would remove every row. Discard the model instead. Nothing was changed."
            )
        removed = self._table.take(rows).with_weight()
        statistics, learned, moved, pieces = delete_through(self._before, removed, RemainingRows(self._table, rows))
        changed = [name for (name, _), flag in zip(self.steps_, moved, strict=False) if flag]
        final, head = self._final, Plan(_nothing, bool(changed), "exact", np.inf if changed else 0.0)
        if not isinstance(final, ExactStep):
            if changed:
                retained = self._table.weight > 0.0
                retained[rows] = False
                head = final._plan_features(rows, FeatureChange(retained, pieces()))
            else:
                head = final._plan(rows)
            changed.append(self.steps_[-1][0])

        def commit() -> None:
            head.commit()  # first: growing trees anew may be interrupted
            width = self.n_features_in_
            for step, statistic, part in zip(self._before, statistics, learned, strict=True):
                width = served(step, statistic, part, width)
            self._table.erase(rows)
            self._changed = tuple(changed)
            self.steps_ = [*self._named(self._before), *self.steps_[len(self._before) :]]

        return replace(head, commit=commit)

    def _changed_steps(self, plan: Plan) -> tuple[str, ...]:
        return self._changed

    # ------------------------------------------------------------------ add

    @available_if(final_has("add"))
    @all_or_nothing
    def add(
        self,
        X: Any,
        y: Any = None,
        ids: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
        exposure: Any = None,
    ) -> Certificate:
        """Add rows to every step: the opposite of a deletion, so that a window of rows may slide under one certificate.

        All or nothing: after an error the model is what it was before. The transformers count all rows anew; where
        they serve the same as before the final estimator adds the rows, else it is solved again from where it was.

        Parameters
        ----------
        X, y, sample_weight, offset, exposure
            As in :meth:`fit`, for the new rows. Of classes, those of the fit only.
        ids : array-like of shape (n_new_rows,) or column name
            Subject of each row; a subject that is already retained gets more rows.

        Returns
        -------
        Certificate
            Of the new state.
        """
        self._check_whole("add")
        final, exact = self._final, isinstance(self._final, ExactStep)
        X, ids = split_ids(X, ids)
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        known = {} if exact else self._known(final.add, offset, exposure)
        x, _ = self._read(X, reset=False)
        weight = self._weights(sample_weight, x.shape[0], final, known)
        retained, subjects = self._subjects.added(ids, x.shape[0])
        new = Table(x, weight, self._more_targets(y, x.shape[0]))
        table = self._table.added(retained, new, subjects.hashes())
        statistics, learned, features = fit_through(self._before, table.with_weight())
        if not exact:
            moved = not all(same(part, step._learned) for step, part in zip(self._before, learned, strict=True))
            final, count = deepcopy(final) if moved else copy(final), int(np.count_nonzero(weight))
            first = features.shape[0] - count
            if moved:
                before = self._table.weight > 0.0
                final._plan_features(np.empty(0, dtype=np.intp), FeatureChange(before, [features[:first]])).commit()
            final._owned = False
            final.add(placed(features[first:], weight > 0.0), y, ids=ids, **known)
            final._owned, final._subjects = True, subjects
            self.steps_ = [*self.steps_[:-1], (self.steps[-1][0], final)]
        width = x.shape[1]
        for step, statistic, part in zip(self._before, statistics, learned, strict=True):
            width = served(step, statistic, part, width)
        self.steps_ = [*self._named(self._before), *self.steps_[len(self._before) :]]
        self._table, self._subjects = table, subjects
        return self.certificate_

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        """Return the targets of rows that are added, as the table holds them."""
        if self._labels is not None:
            return codes_among(self._labels, y, n_rows, "Pipeline.add")
        return targets([step for step in self._before if step._supervised], y, n_rows)

    def refine(self) -> Certificate:
        """Pass over the retained rows and measure the distance to the minimiser (``refine`` of the final estimator)."""
        check_is_fitted(self)
        self._final.refine()
        return self.certificate_

    @property
    def state_digest_(self) -> str:
        """Digest of every step, where the final one is exact: equal if two states are, bit for bit. Private."""
        check_is_fitted(self)
        final = [self._final.state_digest_]  # an AttributeError where it is not exact
        return digest(*[step.state_digest_ for step in self._before if step is not self._final], *final)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the whole pipeline."""
        check_is_fitted(self)
        if isinstance(self._final, ExactStep):
            found = Certificate.exact(estimator="", n_features=0, n_rows=self.n_rows_, versions=versions())
        else:
            found = self._final.certificate_
        return replace(
            found,
            scope="pipeline",
            estimator=" > ".join(type(step).__name__ for _, step in self.steps_),
            n_features=int(self.n_features_in_),
        )

    # -------------------------------------------------------------- predict

    def _transformed(self, X: Any) -> Any:
        check_is_fitted(self)
        values = self._read(X, reset=False)[0]
        for step in self._before:
            if step is not self._final:
                values = step._apply(step._learned, values)
        return values if issparse(values) else np.asarray(values)

    @available_if(final_has("transform"))
    def transform(self, X: Any) -> Any:
        """Transform X by every step, shape (n_rows, n_features_out)."""
        return self._named_out(self._final.transform(self._transformed(X)))

    @available_if(final_has("transform"))
    def fit_transform(self, X: Any, y: Any = None, ids: Any = None, sample_weight: Any = None) -> Any:
        """Fit every step, and return the transformed rows."""
        X, ids = split_ids(X, ids)
        self.fit(X, y, ids=ids, sample_weight=sample_weight)
        if not any(step._supervised for step in self._before):
            return self.transform(X)
        table = self._table
        for step in self._before:
            table = table._replace(x=step._apply_rows(step._learned, table))
        return self._named_out(_wrap_data_with_container("transform", np.asarray(table.x), X, self._final))

    def _named_out(self, out: Any) -> Any:
        """Return what comes out; a frame with the names that the steps give."""
        if is_frame(out):
            out.columns = list(self.get_feature_names_out())
        return out

    @available_if(final_has("transform"))
    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out of the last step."""
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        for step in self._before:
            names = step.get_feature_names_out(names)
        return names

    def set_output(self, *, transform: Any = None) -> Pipeline:
        """Choose the container that ``transform`` returns: "default", "pandas" or "polars"."""
        for steps in (self.steps, getattr(self, "steps_", [])):
            for _, step in steps:
                _safe_set_output(step, transform=transform)
        return self

    @available_if(final_has("release"))
    def release(self) -> _SklearnPipeline:
        """Return a plain scikit-learn pipeline with the released parameters; it holds no training row."""
        check_is_fitted(self)
        released = [(name, step.release() if isinstance(step, Deletable) else step) for name, step in self.steps_]
        first = next(j for j, (_, step) in enumerate(released) if not isinstance(step, str))
        return _SklearnPipeline(
            [(name, of_table(step, step) if j > first else step) for j, (name, step) in enumerate(released)]
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        final = get_tags(self.steps[-1][1])
        tags.estimator_type = final.estimator_type
        tags.classifier_tags = final.classifier_tags
        tags.regressor_tags = final.regressor_tags
        tags.target_tags = final.target_tags
        tags.transformer_tags = final.transformer_tags
        first = get_tags(self._first()).input_tags
        for name in ("allow_nan", "categorical", "sparse"):
            setattr(tags.input_tags, name, getattr(first, name))
        of_text = is_of_text(self._first())
        tags.input_tags.string, tags.input_tags.two_d_array = of_text or first.string, not of_text
        return tags


def make_pipeline(*steps: Any) -> Pipeline:
    """Return a :class:`Pipeline` of these steps, named after their classes as in scikit-learn."""
    return Pipeline(_name_estimators(steps))


def _as_column(X: Any, name: str) -> Any:
    """Return texts, one for each row, as a table of one column."""
    if is_frame(X) or getattr(X, "ndim", 1) != 1 or isinstance(X, str):
        raise InvalidInput(
            f"Pipeline got no list of texts, which its first step {name} takes. Give one text for each row, for "
            f"example the column X['text'], or choose it: ColumnTransformer([('text', {name}(), 'text')])."
        )
    column = np.empty((len(X), 1), dtype=object)
    column[:, 0] = list(X)
    return column


def _nothing() -> None:
    """Commit nothing."""
