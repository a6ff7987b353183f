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
from certified.exact import Products
from certified.rows import Rows, Subjects
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
        X = validate_data(self, X, dtype=np.float64, order="C")
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        subjects = Subjects(ids, len(X))
        rows = Rows(X, None, weight)
        fitted: list[tuple[str, Any]] = []
        values = X
        for name, step in self.steps[:-1]:
            step = _fitted(step, values, weight, None if fitted else getattr(self, "feature_names_in_", None))
            fitted.append((name, step))
            values = np.asarray(_apply(step, values), dtype=np.float64)
        name, final = self.steps[-1]
        final = clone(final).fit(values, y, ids=subjects, sample_weight=weight, **known)
        final._owned = True
        self.steps_ = [*fitted, (name, final)]
        self._subjects, self._rows = subjects, rows
        if hasattr(final, "classes_"):
            self.classes_ = final.classes_
        return self

    def _check_steps(self) -> None:
        names = [name for name, _ in self.steps]
        self._validate_names(names)
        for name, step in self.steps[:-1]:
            if not (_forgets(step) or _harmless(step)):
                raise NotDeletable(
                    f"Pipeline.fit got the step {name!r}, a {type(step).__name__}, which learns from the data and "
                    "cannot forget. Use its counterpart from `certified`, wrap it in FrozenEstimator if it was fitted "
                    "on other data that are not subject to deletion, or use FunctionTransformer if it learns nothing."
                )
        final = self.steps[-1][1]
        if not (isinstance(final, Deletable) and hasattr(final, "release") and not hasattr(final, "_learn")):
            raise NotDeletable(
                f"Pipeline.fit got the final step {names[-1]!r}, a {type(final).__name__}, which cannot forget. Use an "
                "estimator of `certified`, for example certified.linear_model.LogisticRegression."
            )

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        """Plan the deletion in every step; features are computed anew from the first step that changes."""
        final = self._final
        values, _, weight = self._rows.take(rows)
        planned: list[Products] = []
        for index, (_, step) in enumerate(self.steps_[:-1]):
            if not _forgets(step):
                values = np.asarray(_apply(step, values), dtype=np.float64)
                continue
            products, changed = step._without(_with_ones(values), weight)
            if changed:
                return self._plan_changed(rows, index, planned)
            planned.append(products)
            values = _apply(step, values)
        head = final._plan(rows)

        def commit() -> None:
            for step, products in zip(self._forgetting(), planned, strict=True):
                step._serve(products)
            head.commit()
            self._rows.erase(rows)
            self._changed = (self.steps_[-1][0],)

        return replace(head, commit=commit)

    def _plan_changed(self, rows: IntArray, index: int, planned: list[Products]) -> Plan:
        """A transformer's output changes: fit it and all that follow on the kept rows; certify the head by passes."""
        n = len(self._subjects.kept)
        kept = self._subjects.kept.copy()
        kept[rows] = False
        values = self._rows.x[:n]
        weight = np.where(kept, self._rows.weight[:n], 0.0)
        changed, fresh = [], []
        for position, (name, step) in enumerate(self.steps_[:-1]):
            if _forgets(step) and position >= index:
                new = _copy_unlearned(step)
                new._learn(_with_ones(values * kept[:, None]), weight * kept)
                if not _serves_same(new, step):
                    changed.append(name)
                fresh.append(new)
                step = new
            values = np.asarray(_apply(step, values), dtype=np.float64)
        final = self._final
        head = final._plan_features(rows, values) if changed else final._plan(rows)

        def commit() -> None:
            forgetting = self._forgetting()
            for step, products in zip(forgetting, planned, strict=False):
                step._serve(products)
            for step, new in zip(forgetting[len(planned) :], fresh, strict=True):
                step._serve(new._products)
            head.commit()
            self._rows.erase(rows)
            self._changed = (*changed, self.steps_[-1][0])

        return replace(head, commit=commit)

    def _forgetting(self) -> list[Any]:
        return [step for _, step in self.steps_[:-1] if _forgets(step)]

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
        values = validate_data(self, X, dtype=np.float64, reset=False)
        for _, step in self.steps_[:-1]:
            values = np.asarray(_apply(step, values), dtype=np.float64)
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
        return tags


def make_pipeline(*steps: Any) -> Pipeline:
    """Return a :class:`Pipeline` of these steps, named after their classes as in scikit-learn."""
    return Pipeline(_name_estimators(steps))


def _forgets(step: Any) -> bool:
    return hasattr(step, "_learn") and hasattr(step, "_without")


def _harmless(step: Any) -> bool:
    return step == "passthrough" or isinstance(step, FunctionTransformer | FrozenEstimator)


def _fitted(step: Any, values: FloatArray, weight: FloatArray, names: Any) -> Any:
    if isinstance(step, str):
        return step
    if not _forgets(step):
        return step if isinstance(step, FrozenEstimator) else clone(step).fit(values)
    step = clone(step)
    step._learn(_with_ones(values), weight)
    step.n_features_in_ = values.shape[1]
    if names is not None:
        step.feature_names_in_ = names
    step._owned = True
    return step


def _apply(step: Any, values: FloatArray) -> Any:
    if isinstance(step, str):
        return values
    return step._transform(values) if _forgets(step) else step.transform(values)


def _copy_unlearned(step: Any) -> Any:
    new = clone(step)
    new.n_features_in_, new._owned = step.n_features_in_, True
    return new


def _serves_same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a._learned, b._learned, strict=True))


def _with_ones(values: FloatArray) -> FloatArray:
    return np.column_stack([values, np.ones(len(values))])
