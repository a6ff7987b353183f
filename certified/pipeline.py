"""Pipelines whose every step forgets.

A certificate for the last step is worth little while a step before it still remembers the deleted rows. So each step
must be deletable (a transformer of this package), stateless (``FunctionTransformer``), "passthrough", or declared to
have learned from elsewhere (``FrozenEstimator``); anything else is refused.
"""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline as _SklearnPipeline
from sklearn.pipeline import _name_estimators
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metaestimators import _BaseComposition, available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from certified.base import Deletable, Plan, all_or_nothing, split_column, split_ids
from certified.certificate import Certificate
from certified.errors import InvalidInput, NotDeletable
from certified.rows import Rows, Subjects
from certified.stable import Stable, Table, same
from certified.typing import FloatArray, IntArray

__all__ = ["Pipeline", "make_pipeline"]


def _final_has(name: str) -> Any:
    return lambda self: hasattr(self._final, name)


class Pipeline(_BaseComposition, Deletable):
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
        X : array-like or data frame of shape (n_rows, n_features)
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
        self._check_steps()
        X, ids = split_ids(X, ids)
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        known = self._known(self.steps[-1][1].fit, offset, exposure)
        X = validate_data(self, X, dtype=np.float64, order="C", ensure_all_finite=self._finite())
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        subjects = Subjects(ids, len(X))
        rows = Rows(X, None, weight)
        fitted: list[tuple[str, Any]] = []
        values = X
        hashes = subjects.hashes()
        for name, step in self.steps[:-1]:
            names = None if fitted else getattr(self, "feature_names_in_", None)
            step = _fitted(step, Table(values, weight, None, hashes), names)
            fitted.append((name, step))
            values = _transformed(step, values)
        name, final = self.steps[-1]
        final = clone(final).fit(values, y, ids=subjects, sample_weight=weight, **known)
        final._owned = True
        self.steps_ = [*fitted, (name, final)]
        self._subjects, self._rows, self._hashes = subjects, rows, hashes
        if hasattr(final, "classes_"):
            self.classes_ = final.classes_
        return self

    def _finite(self) -> Any:
        """Whether features must be finite: NaN may enter where the first step that does anything takes it."""
        first = next(step for _, step in self.steps if step != "passthrough")
        return "allow-nan" if get_tags(first).input_tags.allow_nan else True

    def _check_steps(self) -> None:
        names = [name for name, _ in self.steps]
        self._validate_names(names)
        for name, step in self.steps[:-1]:
            if not (isinstance(step, Stable) or _harmless(step)):
                raise NotDeletable(
                    f"Pipeline.fit got the step {name!r}, a {type(step).__name__}, which learns from the data and "
                    "cannot forget. Use its counterpart from `certified`, wrap it in FrozenEstimator if it was fitted "
                    "on other data that are not subject to deletion, or use FunctionTransformer if it learns nothing."
                )
        final = self.steps[-1][1]
        if not (isinstance(final, Deletable) and hasattr(final, "release") and not isinstance(final, Stable)):
            raise NotDeletable(
                f"Pipeline.fit got the final step {names[-1]!r}, a {type(final).__name__}, which cannot forget. Use an "
                "estimator of `certified`, for example certified.linear_model.LogisticRegression."
            )

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        """Plan the deletion in every step; features are computed anew from the first step that changes."""
        final = self._final
        changed: list[str] = []
        served: list[tuple[Any, Any, Any, Any]] = []  # step; statistic, what it serves, n_features after the deletion
        removed = self._table().take(rows).present()
        left: Table | None = None  # the rows that stay, where a step has to see them all
        for index, (name, step) in enumerate(self.steps_[:-1]):
            after = learned = None
            if isinstance(step, Stable):
                after = None if changed else step._discount(step._statistic, removed)
                if after is None:
                    left = left or self._left(rows, index)
                    after = step._count(left)
                learned = step._derive(after)
                if not same(learned, step._learned):
                    changed.append(name)
                    left = left or self._left(rows, index)
                served.append((step, after, learned, step.n_features_in_ if left is None else left.x.shape[1]))
            if left is not None:
                left = left._replace(x=_transformed(step, left.x, learned))
            if not changed:
                removed = removed._replace(x=_transformed(step, removed.x))
        if changed and left is not None:
            values = np.zeros((len(self._subjects.kept), left.x.shape[1]))
            values[self._staying(rows)] = left.x
            head = final._plan_features(rows, values)
        else:
            head = final._plan(rows)

        def commit() -> None:
            for step, statistic, learned, n_features in served:
                step._serve(statistic, learned)
                step.n_features_in_ = n_features
            head.commit()
            self._rows.erase(rows)
            self._hashes[rows] = 0
            self._changed = (*changed, self.steps_[-1][0])

        return replace(head, commit=commit)

    def _table(self) -> Table:
        n = len(self._subjects.kept)
        return Table(self._rows.x[:n], self._rows.weight[:n], None, self._hashes)

    def _staying(self, rows: IntArray) -> Any:
        """Which positions hold a row of positive weight after these leave."""
        held = self._rows.weight[: len(self._subjects.kept)] > 0.0
        held[rows] = False
        return held

    def _left(self, rows: IntArray, index: int) -> Table:
        """Return the rows that stay, as the first `index` steps transform them now."""
        left = self._table().take(self._staying(rows))
        for _, step in self.steps_[:index]:
            left = left._replace(x=_transformed(step, left.x))
        return left

    def _changed_steps(self, plan: Plan) -> tuple[str, ...]:
        return self._changed

    def refine(self) -> Certificate:
        """Pass over the kept rows and measure the distance to the minimiser; see the final estimator's ``refine``."""
        check_is_fitted(self)
        self._final.refine()
        return self.certificate_

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the whole pipeline."""
        check_is_fitted(self)
        return replace(
            self._final.certificate_,
            scope="pipeline",
            estimator=" > ".join(type(step).__name__ for _, step in self.steps_),
            n_features=int(self.n_features_in_),
        )

    # -------------------------------------------------------------- predict

    def _transformed(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite=self._finite())
        for _, step in self.steps_[:-1]:
            values = _transformed(step, values)
        return values

    def _known(self, method: Any, offset: Any, exposure: Any) -> dict[str, Any]:
        """Arguments for the known part of the predictors, where given."""
        given = {name: value for name, value in (("offset", offset), ("exposure", exposure)) if value is not None}
        unknown = sorted(set(given) - set(signature(method).parameters))
        if unknown:
            name = type(self.steps[-1][1]).__name__
            raise InvalidInput(f"Pipeline got {unknown[0]}=..., which its final estimator {name} does not take here.")
        return given

    def predict(self, X: Any, offset: Any = None, exposure: Any = None) -> Any:
        """Transform X and return the final estimator's predictions, shape (n_rows,)."""
        known = self._known(self._final.predict, offset, exposure)
        return self._final.predict(self._transformed(X), **known)

    @available_if(_final_has("predict_proba"))
    def predict_proba(self, X: Any) -> FloatArray:
        """Transform X and return the probability of each class."""
        return self._final.predict_proba(self._transformed(X))

    @available_if(_final_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> FloatArray:
        """Transform X and return the logarithm of the probability of each class."""
        return self._final.predict_log_proba(self._transformed(X))

    @available_if(_final_has("decision_function"))
    def decision_function(self, X: Any) -> FloatArray:
        """Transform X and return the final estimator's decision function."""
        return self._final.decision_function(self._transformed(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None) -> float:
        """Transform X and return the final estimator's score."""
        known = self._known(self._final.score, offset, exposure)
        return self._final.score(self._transformed(X), y, sample_weight=sample_weight, **known)

    def release(self) -> _SklearnPipeline:
        """Return a plain scikit-learn pipeline with the released parameters; it holds no training row."""
        check_is_fitted(self)
        steps = [(name, step.release() if isinstance(step, Deletable) else step) for name, step in self.steps_]
        return _SklearnPipeline(steps)

    # ------------------------------------------------------------ delegates

    @property
    def _final(self) -> Any:
        return getattr(self, "steps_", self.steps)[-1][1]

    @property
    def named_steps(self) -> Bunch:
        """Steps by name: the fitted ones after ``fit``."""
        return Bunch(**dict(getattr(self, "steps_", self.steps)))

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients of the final estimator."""
        return self._final.coef_

    @property
    def intercept_(self) -> Any:
        """Released intercept of the final estimator."""
        return self._final.intercept_

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        return self._final.private_coef_

    @property
    def private_intercept_(self) -> Any:
        """Intercept without noise. For auditors; never to be published."""
        return self._final.private_intercept_

    @property
    def release_metric_(self) -> FloatArray:
        """G of the final estimator. For auditors; never to be published."""
        return self._final.release_metric_

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the pipeline and of its steps."""
        return self._get_params("steps", deep=deep)

    def set_params(self, **kwargs: Any) -> Pipeline:
        """Set parameters, ``step__name=value`` for those of a step."""
        self._set_params("steps", **kwargs)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        final = get_tags(self.steps[-1][1])
        tags.estimator_type = final.estimator_type
        tags.classifier_tags = final.classifier_tags
        tags.regressor_tags = final.regressor_tags
        tags.target_tags = final.target_tags
        tags.input_tags.allow_nan = self._finite() == "allow-nan"
        return tags


def make_pipeline(*steps: Any) -> Pipeline:
    """Return a :class:`Pipeline` of these steps, named after their classes as in scikit-learn."""
    return Pipeline(_name_estimators(steps))


def _harmless(step: Any) -> bool:
    return step == "passthrough" or isinstance(step, FunctionTransformer | FrozenEstimator)


def _fitted(step: Any, table: Table, names: Any) -> Any:
    if isinstance(step, str):
        return step
    if not isinstance(step, Stable):
        return step if isinstance(step, FrozenEstimator) else clone(step).fit(table.x)
    step = clone(step)
    if not (get_tags(step).input_tags.allow_nan or np.isfinite(table.x).all()):
        raise InvalidInput(
            f"{type(step).__name__} got features that are missing (NaN) or infinite from the steps before it. Put "
            "certified.impute.SimpleImputer in front of it, or correct the rows."
        )
    statistic = step._count(table.present())
    step._serve(statistic, step._derive(statistic))
    step.n_features_in_ = table.x.shape[1]
    if names is not None:
        step.feature_names_in_ = names
    step._owned = True
    return step


def _transformed(step: Any, values: FloatArray, learned: Any = None) -> FloatArray:
    """Return the rows after this step, as it serves now or after it has learned something else."""
    if isinstance(step, str):
        return values
    if isinstance(step, Stable):
        return step._apply(step._learned if learned is None else learned, values)
    return np.asarray(step.transform(values), dtype=np.float64)
