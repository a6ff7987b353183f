"""The contract of everything that can delete: fit with subjects, delete them, certify, release.

A change has two phases. A hook such as ``_plan_deletion(rows)`` works out the new state from values and changes
nothing; it may raise. ``plan.commit()`` stores it: it only assigns, cannot fail, and is finished by the next act after
an interrupt. So every act is all-or-nothing, for an estimator and for a pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter

from certified._data.frames import split_column, split_ids
from certified._data.subjects import Subjects, as_ids
from certified._keeper.acts import take_turns
from certified._keeper.keeper import Keeper, all_or_nothing
from certified._keeper.turns import turn_of
from certified.certificate import Certificate, Preview, Receipt
from certified.errors import (
    CertifiedError,
    InvalidInput,
    InvalidRequest,
    LastOfClass,
    ReleaseWithheld,
)
from certified.progress import log
from certified.typing import Features, Ids, IntArray, Targets

__all__ = ["Deletable", "DeletionCost", "Guard", "Plan", "all_or_nothing"]


Guard = Callable[[Any, Any], Any]  # releases before and after -> an audit, with `refuted` and `reason`


@dataclass(frozen=True)
class Plan:
    """A change that is worked out and not yet carried out: a deletion, an addition, a refinement.

    Attributes
    ----------
    commit : callable
        Stores the new state: assignments of values that the plan has prepared, and overwriting. It must not fail, must
        call no public method of the model, and may be called again after an interrupt, with the same end.
    changed : bool
        Whether what the estimator has learned (and serves to later steps) changes.
    method : str
        "exact", "measured" (by a pass over the retained rows) or "predicted" (without one).
    mu_differencing : float
        Distance of the states before and after, in units of the noise.
    passes : int
        Passes over the retained rows.
    steps : tuple of str or None
        Steps whose learned state changes; None for the estimator itself.
    """

    commit: Callable[[], None]
    changed: bool = True
    method: str = "exact"
    mu_differencing: float = 0.0
    passes: int = 0
    steps: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DeletionCost:
    """What a deletion costs.

    Attributes
    ----------
    seconds : float
        Measured, or estimated from what was measured.
    share : float
        The same as a share of a fit.
    rows : float
        Rows that are read again, counted as often as they are.
    parts : float
        Parts that learn again: shards, groups of trees. Where no request was given, how many are to be expected.
    """

    seconds: float
    share: float
    rows: float
    parts: float = 0.0


_Act = TypeVar("_Act", bound=Callable[..., Any])


def _where(hook: str) -> Callable[[_Act], _Act]:
    """Let a method be there where the class has this hook; where it has not, the hook may give the reason."""
    return cast("Callable[[_Act], _Act]", available_if(lambda model: getattr(model, hook) is not None))


class Deletable(Keeper):
    """Base class of the estimators of this package.

    Subclasses set ``_subjects`` in ``fit`` and give ``certificate_`` and hooks, which the methods here call::

        _plan_deletion(rows) -> Plan                  # of delete and plan
        _plan_addition(X, y, ids, **known) -> Plan    # of add, where rows can be added; its commit sets _subjects
        _plan_refinement() -> Plan                    # of refine, where there is something to refine
        _release(**options)                           # of release, where something can be published

    A plan changes nothing. One thread at a time acts on a model: every public method and property of a subclass waits
    for its turn, and its parts share it.
    """

    _subjects: Subjects
    _withheld: str | None = None  # why the present state is not to be published

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("add", "delete", "refine", "release"):
            if name in cls.__dict__:
                raise TypeError(f"{cls.__name__} defines {name}. Give the hook that Deletable.{name} calls instead.")

    # --------------------------------------------------------------- delete

    def delete(self, ids: Ids, *, missing: str = "raise", guard: Guard | None = None) -> Receipt:
        """Remove every row of these subjects from the fitted state.

        All or nothing: after an error the model is what it was before.

        Parameters
        ----------
        ids : array-like of shape (n_subjects,)
            Subjects given to ``fit``. A single id is allowed.
        missing : {"raise", "ignore"}, default="raise"
            What to do with subjects that are not retained, unknown or deleted already. With "ignore" the receipt lists
            them, and an id that is repeated counts once, so that a list can be run again.
        guard : callable or None
            ``guard(before, after)`` gets the releases of the states before and after the deletion and returns an
            audit, such as that of :func:`certified.audit.utility`. The rows go in any case. Where the audit is refuted,
            or the guard raises, :meth:`release` refuses until a deletion passes its guard, :meth:`approve` is called,
            or the model is fitted again. Both releases are drawn for the guard and count in the transcript.

        Returns
        -------
        Receipt
            What was removed and how, with the certificate of the new state; with a guard, its audit is in the
            certificate's audit block.

        Raises
        ------
        UnknownIds, InvalidRequest
            The request names subjects that are not retained, repeats one, is empty, or would remove every row.
        LastOfClass
            Fewer than two classes would be left; otherwise a class leaves with its last row, as in a refit.
        CannotCertify
            No valid bound can be given for what would be left.
        """
        self._check_whole("delete")
        self._check_guard("delete", guard)
        self._check_writable("delete")
        wanted, ignored = self._requested(ids, missing)
        if wanted.size == 0 and missing == "ignore":
            return Receipt(0, 0, self.certificate_.method, self.certificate_, 0.0, ignored=ignored)
        rows = self._subjects.rows_of(wanted)
        before = None if guard is None else self._to_compare()
        plan = self._planned_deletion(rows)
        turn_of(self).commit(self._carried_out(plan, rows))
        return self._receipt(plan, wanted.size, rows.size, guard, before, ignored=ignored)

    def plan(self, ids: Ids, *, missing: str = "raise") -> Preview:
        """Work out what :meth:`delete` would do, and change nothing.

        Parameters
        ----------
        ids, missing
            As in :meth:`delete`.

        Returns
        -------
        Preview
            Subjects and rows found, the steps that would change, what it costs, and why it would be refused, if so.

        Raises
        ------
        UnknownIds, InvalidRequest
            The request itself is not one: it is empty, or names subjects that are not retained.
        """
        self._check_whole("plan")
        wanted, ignored = self._requested(ids, missing, "plan(ids=...)")
        nothing = wanted.size == 0 and missing == "ignore"
        rows = np.empty(0, dtype=np.intp) if nothing else self._subjects.rows_of(wanted, "plan(ids=...)")
        found: dict[str, Any] = {"n_subjects": int(wanted.size), "n_rows": int(rows.size), "ignored": ignored}
        if not rows.size:
            return Preview(**found, method=self.certificate_.method, changed=())
        started = time.perf_counter()
        try:
            plan = self._planned_deletion(rows)
        except CertifiedError as error:
            return Preview(**found, method="", changed=(), refused=str(error))
        seconds = time.perf_counter() - started
        return Preview(
            **found,
            method=plan.method,
            changed=self._changed_steps(plan),
            mu_differencing=plan.mu_differencing,
            passes=plan.passes,
            seconds=seconds,
        )

    def deletion_cost(self, ids: Ids = None) -> DeletionCost:
        """Return what a deletion costs, measured: it is worked out and thrown away. Nothing changes.

        Parameters
        ----------
        ids : array-like of shape (n_subjects,) or None
            One request; None for one subject, of which three are tried.
        """
        self._check_whole("deletion_cost")
        every = self._subjects.ids
        requests = [every[[len(every) * k // 4]] for k in (1, 2, 3)] if ids is None else [ids]
        found = []
        for request in requests:
            rows = self._subjects.rows_of(as_ids(request, "deletion_cost(ids=...)"), "deletion_cost(ids=...)")
            try:
                found.append(self._rehearsed(rows))
            except CertifiedError:
                if ids is not None or (request is requests[-1] and not found):
                    raise
        seconds = sum(seconds for seconds, _ in found) / len(found)
        read = self._subjects.n_rows * sum(plan.passes for _, plan in found) / len(found)
        return DeletionCost(seconds=seconds, share=seconds / self._fit_seconds, rows=read)

    def _rehearsed(self, rows: IntArray) -> tuple[float, Plan]:
        """Return the seconds that the work of a deletion takes, and its plan."""
        started = time.perf_counter()
        plan = self._planned_deletion(rows)
        return time.perf_counter() - started, plan

    def _requested(self, ids: Any, missing: str, caller: str = "delete(ids=...)") -> tuple[Any, tuple[Any, ...]]:
        """Return the ids to look for, and those that are not retained and may be ignored."""
        if missing not in ("raise", "ignore"):
            raise InvalidRequest(
                f"{caller} got missing={missing!r}. 'raise' or 'ignore' is needed. Nothing was changed."
            )
        wanted = as_ids(ids, caller)
        if missing == "raise" or wanted.size == 0:
            return wanted, ()
        wanted = np.unique(wanted)
        held = self._subjects.holds(wanted, caller)
        return wanted[held], tuple(wanted[~held].tolist())

    def _check_rest(self, rows: IntArray) -> None:
        """Raise where nothing would be left, or no row of a class."""
        if rows.size >= self._subjects.n_rows:
            raise InvalidRequest(
                f"delete(ids=...) would remove every row of {type(self).__name__}. Discard the model instead. Nothing "
                "was changed."
            )
        counts = self._class_counts(rows)
        if counts is not None and not np.all(counts > 0):
            gone = self._class_names()[int(np.flatnonzero(~(counts > 0))[0])]
            raise LastOfClass(
                f"{type(self).__name__} would be left without a row (of weight > 0) of class {gone!r}. A class leaves "
                "with its last row where two others stay, as a refit would have it; here a refit is refused too. "
                "Discard the model, or delete other rows. Nothing was changed."
            )

    def _class_counts(self, rows: IntArray) -> Any:
        """Return how many rows (or what weight) each class would have without these; None for no classes."""
        return None

    def _class_names(self) -> list[Any]:
        return np.asarray(self.classes_).tolist()

    def _plan_deletion(self, rows: IntArray) -> Plan:
        raise NotImplementedError

    def _planned_deletion(self, rows: IntArray) -> Plan:
        """Return the plan of a deletion of these rows, after the checks that all models share."""
        try:
            self._check_rest(rows)
            return self._plan_deletion(rows)
        except LastOfClass:
            found = self._with_classes_left(rows)
            if found is None:
                raise
        model, clear = found
        plan = model._planned_deletion(rows)

        def commit() -> None:
            plan.commit()
            self._become(model)
            clear()

        steps = None if plan.steps is None else tuple(dict.fromkeys([*plan.steps, model.steps_[-1][0]]))
        return replace(plan, commit=commit, changed=True, mu_differencing=np.inf, steps=steps)

    def _with_classes_left(self, rows: IntArray) -> tuple[Any, Callable[[], None]] | None:
        """Return a model of the classes that stay when these rows leave, in which they have no weight, and what
        overwrites what it does not share with this one. None where a refit on the other rows is refused too."""
        return None

    def _carried_out(self, plan: Plan, rows: IntArray) -> Callable[[], None]:
        """Return what carries out a deletion, the subjects included."""
        drop = self._subjects.dropping(rows)

        def carry_out() -> None:
            plan.commit()
            drop()

        return carry_out

    def _changed_steps(self, plan: Plan) -> tuple[str, ...]:
        own = (type(self).__name__,) if plan.changed else ()
        return own if plan.steps is None else plan.steps

    def _receipt(
        self, plan: Plan, n_subjects: int, n_rows: int, guard: Guard | None, before: Any, **fields: Any
    ) -> Receipt:
        audits = () if guard is None else (self._guarded(guard, before),)
        told = type(self).__name__, fields.get("act", "delete"), n_rows, n_subjects, plan.method, plan.passes
        log.info("%s: %s %d rows of %d subjects (%s, passes over the retained rows: %d)", *told)
        return Receipt(
            n_subjects=int(n_subjects),
            n_rows=int(n_rows),
            method=plan.method,
            certificate=self.certificate_.with_audits(*audits),
            mu_differencing=plan.mu_differencing,
            passes=plan.passes,
            changed=self._changed_steps(plan),
            ids=self._subjects.source,
            **fields,
        )

    # ------------------------------------------------------------------ add

    @_where("_plan_addition")
    def add(
        self,
        X: Features,
        y: Targets = None,
        *,
        ids: Ids = None,
        sample_weight: Any = None,
        offset: Any = None,
        exposure: Any = None,
        guard: Guard | None = None,
    ) -> Receipt:
        """Add rows: the opposite of a deletion, under the same certificate, which compares with a fit on all rows.

        All or nothing: after an error the model is what it was before.

        Parameters
        ----------
        X, y, sample_weight, offset, exposure
            As in ``fit``, for the new rows; what ``fit`` does not take is refused. Of classes, those of the fit only.
        ids : array-like of shape (n_new_rows,) or column name
            Subject of each row; a subject that is already retained gets more rows.
        guard : callable or None
            As in :meth:`delete`.

        Returns
        -------
        Receipt
            What was added and how, with the certificate of the new state.

        Raises
        ------
        InvalidInput
            The rows are not like those of the fit, or have no ids.
        CannotCertify
            No valid bound can be given for the new state.
        """
        self._check_whole("add")
        self._check_guard("add", guard)
        self._check_writable("add")
        name = f"{type(self).__name__}.add"
        if ids is None:
            raise InvalidInput(
                f"{name} got no ids. add needs ids=..., the subject of each new row (an array, or the name of a column "
                "of X), so that these rows can be deleted later. Nothing was changed."
            )
        X, ids = split_ids(X, ids)
        known = {"sample_weight": sample_weight, "offset": offset, "exposure": exposure}
        known = {key: value for key, value in known.items() if value is not None}
        for key in known:
            if not has_fit_parameter(self, key):
                raise InvalidInput(f"{name} got {key}, which its fit does not take. Leave it out. Nothing was changed.")
            X, known[key] = split_column(X, known[key], key)
        ids = as_ids(ids, "add(ids=...)")
        before = None if guard is None else self._to_compare()
        plan = self._plan_addition(X, y, ids, **known)
        turn_of(self).commit(plan.commit)
        return self._receipt(plan, np.unique(ids).size, ids.size, guard, before, act="add")

    # --------------------------------------------------------------- refine

    @_where("_plan_refinement")
    def refine(self) -> Certificate:
        """Pass over the retained rows until the state is within ``tol`` of the minimiser, and measure it.

        Afterwards the state depends on deleted rows through a distance of ``tol`` at most; see "what a keeper
        remembers" in the documentation. The next access to released parameters draws fresh noise, which is one more
        release in the transcript.

        Returns
        -------
        Certificate
            Of the measured state.
        """
        self._check_whole("refine")
        self._check_writable("refine")
        plan = self._plan_refinement()
        turn_of(self).commit(plan.commit)
        return self.certificate_

    # -------------------------------------------------------------- release

    @_where("_release")
    def release(self, *args: Any, **options: Any) -> Any:
        """Return a plain object of scikit-learn (of XGBoost, for boosted trees) that predicts, without a training row.

        It needs no part of this package to be loaded, but for the few classes that say so. Options are those that the
        class documents.

        Raises
        ------
        OtherVersions, ReleaseWithheld, SimulatedNoise
            The guard of a deletion or an addition has found the model too much changed.
        """
        self._check_fitted()
        if self._withheld is not None:
            raise ReleaseWithheld(
                f"release() of {type(self).__name__} is withheld by a guard: {self._withheld} The rows are deleted (or "
                "added). Fit again, delete with a guard that passes, or call approve() to publish it as it is."
            )
        return self._release(*args, **options)

    def approve(self) -> None:
        """Let the present state be released although a guard withheld it: the decision of a person."""
        self._check_fitted()
        self.__dict__.pop("_withheld", None)

    def _check_guard(self, call: str, guard: Guard | None) -> None:
        """Raise for a guard that cannot be asked, or has nothing to compare."""
        if guard is None:
            return
        if not callable(guard):
            raise InvalidInput(
                f"{call}(guard={guard!r}) got no function. guard(before, after) is needed, which gets two releases and "
                "returns an audit, such as certified.audit.utility(before, after, X, y). Nothing was changed."
            )
        if not hasattr(self, "release"):
            raise InvalidInput(
                f"{call}(guard=...) was called on {type(self).__name__}, which has no release, so that there is "
                f"nothing that a guard could withhold. Call {call} without it. Nothing was changed."
            )

    def _to_compare(self) -> Any:
        """Return a release for a guard, also of a state that is withheld."""
        return self._release()

    def _guarded(self, guard: Guard, before: Any) -> Any:
        """Ask the guard; withhold the release unless it finds nothing."""
        self._withheld = "The guard did not come to an end."
        found = guard(before, self._to_compare())
        if not hasattr(found, "refuted"):
            raise InvalidInput(
                f"The guard returned {found!r}. An audit is needed, such as certified.audit.utility(before, after, X, "
                "y). The rows were deleted (or added), and the release is withheld until approve() is called."
            )
        if found.refuted:
            self._withheld = str(found.reason)
        else:
            self.approve()
        return found

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state."""
        raise NotImplementedError

    @property
    def ids_(self) -> Any:
        """Ids of the subjects retained, sorted, each once."""
        self._check_fitted()
        return self._subjects.ids

    @property
    def n_rows_(self) -> int:
        """Number of retained rows."""
        self._check_fitted()
        return self._subjects.n_rows

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_subjects")


take_turns(Deletable)
