"""Pipelines whose every step deletes.

A certificate for the last step is worth little while a step before it still remembers the deleted rows. So each step
must be deletable (a transformer of this package), stateless (``FunctionTransformer``), "passthrough", or declared to
have learned from elsewhere (``FrozenEstimator``); anything else is refused.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.pipeline import Pipeline as _SklearnPipeline
from sklearn.pipeline import _name_estimators
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    check_is_fitted,
)

from certified._data.feature_change import FeatureChange
from certified._data.frames import Columns, is_frame, split_column, split_ids
from certified._data.reproducible import digest, same
from certified._data.rows import placed
from certified._data.subjects import Subjects
from certified._data.table import Table
from certified._data.targets import codes_among
from certified._data.whole import depends_on_key, key_for, part_of
from certified._keeper.keyed import Keyed
from certified._keeper.turns import turn_of
from certified._steps.remaining import remaining
from certified._steps.sequence import (
    admit,
    as_step,
    delete_through,
    fit_through,
    served,
    targets,
)
from certified._steps.stateless import StatelessStep, as_named, is_of_text, is_passthrough, is_stateless, of_table
from certified._steps.step import ExactStep
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Certificate
from certified.compose import FeatureUnion, make_union
from certified.errors import InvalidInput, NotDeletable
from certified.parts._source import Parts
from certified.parts._table import PartedTable
from certified.pipeline._classes import ClassesLeft
from certified.pipeline._delegation import final_has
from certified.pipeline._parted import InParts
from certified.pipeline._transforming import Transforming
from certified.typing import IntArray

__all__ = ["FeatureUnion", "Pipeline", "make_pipeline", "make_union"]


class Pipeline(ClassesLeft, InParts, Transforming, Keyed, Deletable):
    """Transformers and a final estimator that are fitted, deleted from and released as one.

    Parameters
    ----------
    steps : list of (str, estimator)
        Transformers, then a certified estimator. Steps are cloned; the fitted ones are in ``steps_``. "passthrough" or
        None hands on what it gets.
    transform_input, memory : None
        Refused otherwise: what scikit-learn would keep in a cache, no deletion would reach.
    verbose : bool, default=False
        Accepted for scikit-learn's sake.
    key : int or None, default=None
        Key from which those of all steps are derived, 128 bits; None takes one that was given to a step, or draws one.

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

    _depends_on_key = False  # its steps may
    _adaptivity = ""

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        transform_input: None = None,
        memory: None = None,
        verbose: bool = False,
        key: int | None = None,
    ) -> None:
        self.steps = steps
        self.key = key
        self.transform_input = transform_input
        self.memory = memory
        self.verbose = verbose

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        ids: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
        exposure: Any = None,
        **params: Any,
    ) -> Self:
        """Fit every step on all rows.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_rows, n_features), texts of shape (n_rows,), or Parts
            With :class:`certified.parts.Parts`, y and the others are names of columns of the source. Sparse where the
            first step takes it, texts where that is a vectoriser.
        y : array-like of shape (n_rows,)
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; several rows may share one. None numbers the rows 0..n-1.
        sample_weight : array-like of shape (n_rows,), column name or None
            Given to every step that takes it, of which the final one must be one.
        offset, exposure : array-like of shape (n_rows,), column name or None
            Given to the final estimator, where it takes them. A column named here or as ids is not a feature.
        **params
            ``<final>__sample_weight``, ``<final>__offset`` and ``<final>__exposure``: given to the final step alone.

        Returns
        -------
        self
        """
        before, final = self._checked_steps()
        own, offset, exposure = self._of_final(params, final, sample_weight, offset, exposure)
        named = (ids, sample_weight, own, offset, exposure)
        self._aside = tuple(column for column in named if isinstance(column, str))
        if isinstance(X, Parts):
            return self._fit_source(
                X,
                y,
                before,
                final,
                ids=ids,
                sample_weight=sample_weight,
                own=own,
                offset=offset,
                exposure=exposure,
            )
        X, ids = split_ids(X, ids)
        X, sample_weight = split_column(X, sample_weight, "sample_weight")
        X, own = split_column(X, own, "sample_weight")
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        given = {"sample_weight": sample_weight, "offset": offset, "exposure": exposure}
        self._given = tuple(name for name, values in given.items() if values is not None) + ("own",) * (own is not None)
        known = (
            {}
            if isinstance(final, ExactStep) and offset is exposure is None
            else self._known(final.fit, offset, exposure)
        )
        x, schema = self._read(X, before)
        n_rows = x.shape[0]
        weight = self._weights(sample_weight, own, n_rows, final, known)
        subjects = Subjects(ids, n_rows, key_for(self))
        target = targets([step for step in before if step._supervised], y, n_rows)
        table = Table(x, weight, target, subjects.hashes())
        self._adaptivity = subjects.key.adaptivity if depends_on_key(self) else ""
        coded = target is not None and target.dtype.kind == "i"
        self._labels = np.unique(np.asarray(y)) if coded else None  # their positions are the codes
        for step in before:
            step._see(X if is_frame(X) else x, getattr(self, "feature_names_in_", None), schema)
            if not is_passthrough(step):
                break
        statistics, learned, features = fit_through(before, table.with_weight())
        width = int(self.n_features_in_)
        for step, statistic, part in zip(before, statistics, learned, strict=True):
            width = served(step, statistic, part, width)
        if not isinstance(final, ExactStep):
            values = self._placed(features, weight > 0.0)
            with part_of(key=subjects.key.derive("final step")):
                final = clone(final).fit(values, y, ids=subjects, **known)
            final._owned = True
            self.steps_ = [*self._named(before), (self.steps[-1][0], final)]
        else:
            self.steps_ = self._named(before)
        self._before, self._schema, self._table, self._subjects = before, schema, table, subjects
        if hasattr(final, "classes_"):
            self.classes_ = final.classes_
        return self

    def _named(self, before: list[ExactStep]) -> list[tuple[str, Any]]:
        """Return fitted steps with their names; one that learns nothing as the plain transformer it is."""
        pairs = zip(self.steps, before, strict=False)
        return [(name, step._release() if isinstance(step, StatelessStep) else step) for (name, _), step in pairs]

    @property
    def _final(self) -> Any:
        """The final estimator, fitted if the pipeline is; as a step where it learns nothing. None without steps."""
        if not self.steps:
            return None
        if "steps_" in self.__dict__ and len(self._before) == len(self.steps):
            return self._before[-1]
        final = as_named(getattr(self, "steps_", self.steps)[-1][1])
        return final if isinstance(final, Deletable) or not is_stateless(final) else StatelessStep(final)

    def _placed(self, features: Any, retained: Any) -> Any:
        """Return features at the positions of their rows, zeros elsewhere."""
        if isinstance(features, Columns):
            raise InvalidInput(
                f"{type(self.steps[-1][1]).__name__} got features that are text. Put "
                "certified.preprocessing.OneHotEncoder in front of it."
            )
        return placed(self._taken(features), retained)

    def _taken(self, features: Any) -> Any:
        """Return features as the final estimator takes them: dense where it takes no sparse ones."""
        if issparse(features) and not get_tags(self.steps[-1][1]).input_tags.sparse:
            return features.toarray()
        return features

    def _checked_steps(self) -> tuple[list[ExactStep], Any]:
        """Return the steps that are stable, as clones, and the final one."""
        if not self.steps:
            raise InvalidInput("The pipeline is empty. Please add steps: a certified estimator is needed as the last.")
        for name in ("memory", "transform_input"):
            if getattr(self, name, None) is not None:
                raise InvalidInput(
                    f"Pipeline({name}={getattr(self, name)!r}) is not allowed: rows would be kept where no deletion "
                    f"reaches them, or other data transformed along. Leave {name} out. Nothing was changed."
                )
        names = [name for name, _ in self.steps]
        self._validate_names(names)
        final = as_named(self.steps[-1][1])
        if not isinstance(final, Deletable) and not is_stateless(final):
            raise NotDeletable(
                f"Pipeline.fit got the final step {names[-1]!r}, a {type(final).__name__}, which cannot delete. Use an "
                "estimator of `certified`, for example certified.linear_model.LogisticRegression."
            )
        if isinstance(final, Deletable) and not isinstance(final, ExactStep):
            return [as_step(step, name, "Pipeline.fit") for name, step in self.steps[:-1]], final
        before = [as_step(step, name, "Pipeline.fit") for name, step in self.steps]
        return before, before[-1]

    # --------------------------------------------------------------- delete

    def _check_rest(self, rows: IntArray) -> None:
        super()._check_rest(rows)
        if self._schema is not None and self._schema.objects:
            self._schema.check_rest(self._table.x, self._subjects.without(rows))
        if not isinstance(self._final, ExactStep):
            self._final._check_rest(rows)

    def _plan_deletion(self, rows: IntArray) -> Plan:
        """Plan the deletion in every step; features are computed anew from the first step that changes."""
        removed = self._table.take(rows).with_weight()
        statistics, learned, moved, pieces = delete_through(self._before, removed, remaining(self._table, rows))
        changed = [name for (name, _), flag in zip(self.steps_, moved, strict=False) if flag]
        final, head = self._final, Plan(_nothing, bool(changed), "exact", np.inf if changed else 0.0)
        if not isinstance(final, ExactStep):
            if changed and isinstance(self._table, PartedTable):
                head = self._plan_parts(rows, pieces(whole=True)[0])
            elif changed:
                retained = self._table.weight > 0.0
                retained[rows] = False
                head = final._plan_features(rows, FeatureChange(retained, [self._taken(piece) for piece in pieces()]))
            else:
                head = final._plan_deletion(rows)
            changed.append(self.steps_[-1][0])

        twins, steps = self._served(statistics, learned)

        def commit() -> None:
            head.commit()
            self._adopt(twins, steps)
            self._table.erase(rows)
            if "classes_" in self.__dict__:
                self.classes_ = self._final.classes_  # one may have left with its last row

        return replace(head, commit=commit, steps=tuple(changed))

    def _served(self, statistics: Any, learned: Any) -> tuple[list[Any], list[tuple[str, Any]]]:
        """Return twins of the steps before the final one, which serve what they have learned, and then ``steps_``."""
        twins, width = [step._twin() for step in self._before], self.n_features_in_
        for twin, statistic, part in zip(twins, statistics, learned, strict=True):
            width = served(twin, statistic, part, width)
        plain = [
            twin if isinstance(twin, StatelessStep) else step for step, twin in zip(self._before, twins, strict=True)
        ]
        return twins, [*self._named(plain), *self.steps_[len(plain) :]]

    def _adopt(self, twins: list[Any], steps: list[tuple[str, Any]]) -> None:
        """Take over what the twins serve. Cannot fail."""
        for step, twin in zip(self._before, twins, strict=True):
            step._adopt(twin)
        self.steps_ = steps

    def _members(self) -> tuple[Any, ...]:
        steps = dict.fromkeys([*self._before, self._final]) if "_before" in self.__dict__ else ()  # not fitted
        return tuple(step for step in steps if isinstance(step, Deletable))

    # ------------------------------------------------------------------ add

    @available_if(final_has("_plan_addition"))
    def _plan_addition(
        self, X: Any, y: Any, ids: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None
    ) -> Plan:
        """Plan to add rows to every step.

        The transformers count all rows anew. Where they serve the same as before the final estimator adds the rows,
        else it is solved again from where it was.
        """
        final, exact = self._final, isinstance(self._final, ExactStep)
        self._check_given(sample_weight, offset, exposure)
        known = {} if exact else self._known(final._plan_addition, offset, exposure)
        x, schema = self._read(X)
        if schema is not None:
            schema.check_added(x, "Pipeline.add")
        own = None
        if "own" in self._given:
            sample_weight, own = None, sample_weight
        weight = self._weights(sample_weight, own, x.shape[0], final, known)
        retained, subjects = self._subjects.added(ids, x.shape[0])
        new = Table(x, weight, self._more_targets(y, x.shape[0]))
        table = self._table.added(retained, new, subjects.hashes())
        statistics, learned, features = fit_through(self._before, table.with_weight())
        moved = [
            name
            for (name, _), step, part in zip(self.steps_, self._before, learned, strict=False)
            if not same(part, step._learned)
        ]
        head, last = Plan(_nothing, bool(moved), "exact", np.inf if moved else 0.0), self.steps_[-1]
        if not exact:
            final, count = deepcopy(final) if moved else final._draft(), int(np.count_nonzero(weight))
            first = features.shape[0] - count
            if moved:
                before = self._table.weight > 0.0
                change = FeatureChange(before, [self._taken(features[:first])])
                final._plan_features(np.empty(0, dtype=np.intp), change).commit()
                final._turn = turn_of(self)
            head = final._plan_addition(placed(self._taken(features[first:]), weight > 0.0), y, ids, **known)
            head.commit()  # to the copy
            final._subjects, last = subjects, (last[0], final)
            moved.append(last[0])
        twins, steps = self._served(statistics, learned)
        steps = steps if exact else [*steps[:-1], last]

        def commit() -> None:
            self._adopt(twins, steps)
            self.__dict__.update(_table=table, _subjects=subjects)

        return replace(head, commit=commit, steps=tuple(moved))

    def _plan_rekeying(self, subjects: Subjects) -> Plan:
        """Plan to learn anew from the rows retained, for subjects with another key."""
        table = self._table._replace(hashes=np.where(subjects.retained, subjects.hashes(), np.uint64(0)))
        statistics, learned, features = fit_through(self._before, table.with_weight())
        twins, steps = self._served(statistics, learned)
        final = self._final
        if not isinstance(final, ExactStep):
            final = deepcopy(final)
            if not all(same(part, step._learned) for step, part in zip(self._before, learned, strict=False)):
                change = FeatureChange(self._table.weight > 0.0, [self._taken(features)])
                final._plan_features(np.empty(0, dtype=np.intp), change).commit()
            final._subjects, final._turn = subjects, turn_of(self)
            if hasattr(final, "rekey"):
                given, fitted = final.key, final.__dict__.get("_fitted_with")
                final._owned = False
                final.rekey(subjects.key.derive("final step"))
                final.__dict__.update(_owned=True, key=given, _fitted_with=fitted)
            steps = [*steps[:-1], (self.steps_[-1][0], final)]

        def commit() -> None:
            self._adopt(twins, steps)
            self.__dict__.update(_table=table, _subjects=subjects)

        return Plan(commit, True, "exact", np.inf)

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        """Return the targets of rows that are added, as the table holds them."""
        if self._labels is not None:
            return codes_among(self._labels, y, n_rows, "Pipeline.add")
        return targets([step for step in self._before if step._supervised], y, n_rows, more=True)

    @available_if(final_has("_plan_refinement"))
    def _plan_refinement(self) -> Plan:
        return self._final._plan_refinement()

    @property
    def state_digest_(self) -> str:
        """Digest of every step, where the final one is exact: equal if two states are, bit for bit. Private."""
        check_is_fitted(self)
        final = [self._final.state_digest_]  # an AttributeError where it is not exact
        names = repr(getattr(self, "feature_names_in_", np.empty(0)).tolist())
        given = [
            names,
            repr(self._schema and self._schema.served()),
            repr(None if self._labels is None else self._labels.tolist()),
        ]
        return digest(*[step.state_digest_ for step in self._before if step is not self._final], *final, *given)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the whole pipeline."""
        check_is_fitted(self)
        if isinstance(self._final, ExactStep):
            found = Certificate.exact(estimator="", n_features=0, n_rows=self.n_rows_)
        else:
            found = self._final.certificate_
        return replace(
            found,
            scope="pipeline",
            versions=self._versions(),
            estimator=" > ".join(type(step).__name__ for _, step in self.steps_),
            n_features=int(self.n_features_in_),
            declared="; ".join(clause for step in self._before for clause in step._declared()),
            adaptivity=self._adaptivity or found.adaptivity,
        )

    # -------------------------------------------------------------- predict

    def _transformed(self, X: Any) -> Any:
        check_is_fitted(self)
        values = self._read(X)[0]
        for step in self._before:
            if step is not self._final:
                admit(step, values)
                values = step._apply(step._learned, values)
        return self._taken(values) if issparse(values) else np.asarray(values)

    @available_if(final_has("_release"))
    def _release(self) -> _SklearnPipeline:
        """Return a plain scikit-learn pipeline with the released parameters; it holds no training row."""
        check_is_fitted(self)
        released = [(name, step.release() if isinstance(step, Deletable) else step) for name, step in self.steps_]
        first = next((j for j, (_, step) in enumerate(released) if not isinstance(step, str)), 0)
        return _SklearnPipeline(
            [(name, of_table(step, step) if j > first else step) for j, (name, step) in enumerate(released)]
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if not self.steps:
            return tags
        final = get_tags(self._final)
        tags.estimator_type = final.estimator_type
        tags.classifier_tags = final.classifier_tags
        tags.regressor_tags = final.regressor_tags
        tags.target_tags = final.target_tags
        tags.transformer_tags = final.transformer_tags
        first = get_tags(self._first()).input_tags
        for name in ("categorical", "sparse"):
            setattr(tags.input_tags, name, getattr(first, name))
        tags.input_tags.allow_nan = self._allows_missing()
        of_text = is_of_text(self._first())
        tags.input_tags.string, tags.input_tags.two_d_array = of_text or first.string, not of_text
        return tags


def make_pipeline(
    *steps: Any, transform_input: None = None, memory: None = None, verbose: bool = False, key: int | None = None
) -> Pipeline:
    """Return a :class:`Pipeline` of these steps, named after their classes as in scikit-learn."""
    named = _name_estimators(steps)
    return Pipeline(named, transform_input=transform_input, memory=memory, verbose=verbose, key=key)


def _nothing() -> None:
    """Commit nothing."""
