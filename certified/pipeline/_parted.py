"""Pipelines on rows in parts: the table of the source in parts, and in others what comes out of the steps."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import numpy as np
from sklearn.base import clone, is_classifier

from certified._data.whole import depends_on_key, key_for
from certified._steps.sequence import fit_through, served
from certified._steps.stateless import is_passthrough
from certified._steps.step import ExactStep
from certified.base import Plan
from certified.errors import InvalidInput
from certified.parts._dealing import Roles
from certified.parts._source import Opened, Parts
from certified.parts._table import PartedTable
from certified.pipeline._entry import Entry
from certified.typing import IntArray

__all__ = ["InParts"]


class InParts(Entry):
    """Mixin of pipelines: fit on rows in parts."""

    steps: list[tuple[str, Any]]
    steps_: list[tuple[str, Any]]
    _table: Any
    _subjects: Any
    _final: Any
    classes_: Any
    feature_names_in_: Any
    n_features_in_: int

    def _fit_source(
        self,
        X: Parts,
        y: Any,
        before: list[ExactStep],
        final: Any,
        *,
        ids: Any,
        sample_weight: Any,
        own: Any,
        offset: Any,
        exposure: Any,
    ) -> Self:
        """Fit every step on rows in parts, and the final one on parts of what comes out."""
        name = type(final).__name__
        exact = isinstance(final, ExactStep)
        if own is not None or not (exact or hasattr(final, "_fit_opened")):
            what = "weights for the final step alone" if own is not None else f"the final step {name}"
            raise InvalidInput(
                f"Pipeline.fit got Parts and {what}, which rows in parts do not have yet. Linear models with dense "
                "features and naive Bayes are solved on them, behind scalers, imputers and encoders. Nothing was "
                "changed."
            )
        supervised = not exact or any(step._supervised for step in before)
        if supervised and y is None:
            raise InvalidInput("Pipeline.fit got Parts and no y. The name of the column of targets is needed.")
        if (exact and offset is not None) or (exact and exposure is not None):
            raise InvalidInput(f"Pipeline.fit got an offset or exposure, which its last step, {name}, does not take.")
        coded = supervised and is_classifier(final)
        roles = Roles.named_by(
            "Pipeline.fit",
            y if supervised else None,
            ids,
            sample_weight,
            offset,
            exposure,
            as_classes=coded,
            ones=False,
            raw=True,
        )
        with X.open("Pipeline.fit", roles) as found:
            return self._fit_on(found, roles, before, final, exact, coded)

    def _fit_on(
        self, found: Opened, roles: Roles, before: list[ExactStep], final: Any, exact: bool, coded: bool
    ) -> Self:
        self._aside = tuple(roles.named())
        self._given = ()
        _, schema = self._read(found.example, before)
        key = found.subjects.key = key_for(self)
        table = PartedTable(found.rows, found.text, coded, key=key.derive("sample").value)
        entered = getattr(before[0], "_entered", None) if before else None
        table = table if entered is None else table.select(entered)
        self._adaptivity = key.adaptivity if depends_on_key(self) else ""
        self._labels = found.classes if coded else None
        for step in before:
            step._see(found.example, self.feature_names_in_, schema)
            if not is_passthrough(step):
                break
        for step in before:
            if step._supervised and coded:
                step.classes_ = found.classes
        statistics, learned, made = fit_through(before, table)
        width = int(self.n_features_in_)
        for step, statistic, part in zip(before, statistics, learned, strict=True):
            width = served(step, statistic, part, width)
        if exact:
            self.steps_ = self._named(before)
        else:
            final = clone(final)
            with self._opened(final, found, made) as opened:
                final._fit_opened(opened)
            final._owned = True
            self.steps_ = [*self._named(before), (self.steps[-1][0], final)]
        self._before, self._schema, self._table, self._subjects = before, schema, table, found.subjects
        if hasattr(final, "classes_"):
            self.classes_ = final.classes_
        return self

    def _opened(self, final: Any, found: Opened, made: PartedTable) -> Opened:
        """Return the parts of what comes out of the steps, as the final estimator is fitted on them."""
        out = copy(found)
        out.rows = self._written(final, made)
        width = out.rows.width - _extra(final)
        out.features = [f"x{j}" for j in range(width)]
        final.n_features_in_ = width
        return out

    def _written(self, final: Any, made: PartedTable) -> Any:
        targets_last = final._parted_targets == "last"
        return made.features(type(final).__name__, targets_last, targets_last or final.fit_intercept)

    def _plan_parts(self, rows: IntArray, made: PartedTable) -> Plan:
        """Plan the deletion in the final estimator where what comes out of the steps changes: in new parts."""
        final = self._final
        fresh = self._written(final, made)
        plan: Plan = final._plan_parts(rows, fresh, fresh.width - _extra(final))
        return plan

    def _named(self, before: list[ExactStep]) -> list[tuple[str, Any]]:
        raise NotImplementedError


def _extra(final: Any) -> int:
    """Columns of a part that are no features: targets and ones."""
    if final._parted_targets == "last":
        return 2
    return int(np.bool_(final.fit_intercept))
