"""The contract of everything that can delete: fit with subjects, delete them, certify, release.

A deletion has two phases. ``_plan(rows)`` works out the new state from values and changes nothing; it may raise.
``plan.commit()`` stores it and cannot fail. So ``delete`` is all-or-nothing, for an estimator and for a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from certified._data.subjects import Subjects, as_ids
from certified.certificate import Certificate, Receipt
from certified.errors import InvalidInput, NotDeletable, ReleaseWithheld
from certified.typing import IntArray

__all__ = ["Deletable", "Guard", "Plan", "all_or_nothing", "named_like", "served_as"]


Guard = Callable[[Any, Any], Any]  # releases before and after -> an audit, with `refuted` and `reason`


@dataclass(frozen=True)
class Plan:
    """A deletion that is worked out and not yet carried out.

    Attributes
    ----------
    commit : callable
        Stores the new state. Called once, must not fail.
    changed : bool
        Whether what the estimator has learned (and serves to later steps) changes.
    method : str
        "exact", "measured" or "predicted".
    mu_differencing : float
        Distance of the states before and after, in units of the noise.
    passes : int
        Passes over the retained rows.
    """

    commit: Callable[[], None]
    changed: bool = True
    method: str = "exact"
    mu_differencing: float = 0.0
    passes: int = 0


class Deletable(BaseEstimator):
    """Base class of the estimators of this package.

    Subclasses set ``_subjects`` in ``fit`` and implement ``_plan(rows) -> Plan`` and ``certificate_``.
    """

    _subjects: Subjects
    _owned = False  # a part of a fitted pipeline or search deletes through the whole only
    _reentrant = True  # whether several may work in threads at a time
    _withheld: str | None = None  # why the present state is not to be published

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "release" in cls.__dict__:
            cls.release = _Release(cls.__dict__["release"])

    def delete(self, ids: Any, *, guard: Guard | None = None) -> Receipt:
        """Remove every row of these subjects from the fitted state.

        All or nothing: after an error the model is what it was before.

        Parameters
        ----------
        ids : array-like of shape (n_subjects,)
            Subjects given to ``fit``. A single id is allowed.
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
            The request names subjects that are not retained, repeats one, is empty, or would remove every row or the
            last row of a class.
        CannotCertify
            No valid bound can be given for what would be left.
        """
        self._check_whole("delete")
        wanted = as_ids(ids, "delete(ids=...)")
        rows = self._subjects.rows_of(wanted)
        before = None if guard is None else self._to_compare()
        plan = self._plan(rows)
        self._carry_out(plan, rows)
        audits = () if guard is None else (self._guarded(guard, before),)
        return Receipt(
            n_subjects=int(wanted.size),
            n_rows=int(rows.size),
            method=plan.method,
            certificate=self.certificate_.with_audits(*audits),
            mu_differencing=plan.mu_differencing,
            passes=plan.passes,
            changed=self._changed_steps(plan),
        )

    def approve(self) -> None:
        """Let the present state be released although a guard withheld it: the decision of a person."""
        self._check_fitted()
        self.__dict__.pop("_withheld", None)

    def _to_compare(self) -> Any:
        """Return a release for a guard, also of a state that is withheld."""
        if not hasattr(self, "release"):
            raise InvalidInput(
                f"delete(guard=...) was called on {type(self).__name__}, which has no release, "
                "so that there is nothing that a guard could withhold. Call delete without it. Nothing was changed."
            )
        withheld = self.__dict__.pop("_withheld", None)
        try:
            return self.release()
        finally:
            if withheld is not None:
                self._withheld = withheld

    def _guarded(self, guard: Guard, before: Any) -> Any:
        """Ask the guard; withhold the release unless it finds nothing."""
        self._withheld = "The guard did not come to an end."
        found = guard(before, self._to_compare())
        if not hasattr(found, "refuted"):
            raise InvalidInput(
                f"delete(guard=...) got {found!r} from the guard. An audit is needed, such as certified.audit.utility("
                "before, after, X, y). The rows were deleted, and the release is withheld until approve() is called."
            )
        if found.refuted:
            self._withheld = str(found.reason)
        else:
            self.approve()
        return found

    def _check_fitted(self) -> None:
        """Raise NotFittedError before fit; scikit-learn's own check, without its cost after fit."""
        if "_subjects" not in self.__dict__:
            check_is_fitted(self)

    def _check_whole(self, call: str) -> None:
        """Raise before fit, and for a part of something larger."""
        self._check_fitted()
        if self._owned:
            raise NotDeletable(
                f"{call} was called on {type(self).__name__}, which is part of a fitted pipeline or search. Call "
                f"{call} on the pipeline or the search, so that every part follows. Nothing was changed."
            )

    def _plan(self, rows: IntArray) -> Plan:
        raise NotImplementedError

    def _carry_out(self, plan: Plan, rows: IntArray) -> None:
        plan.commit()
        self._subjects.drop(rows)

    def _changed_steps(self, plan: Plan) -> tuple[str, ...]:
        return (type(self).__name__,) if plan.changed else ()

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


def all_or_nothing(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Give a ``fit`` that raises back the state from before the call."""

    @wraps(fit)
    def fit_or_restore(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(self.__dict__)
        try:
            self.__dict__.pop("_withheld", None)
            return fit(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return fit_or_restore


class _Release:
    """``release`` as a class defines it, which refuses while a guard withholds the state."""

    def __init__(self, defined: Any) -> None:
        self.defined = defined

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        release = self.defined.__get__(instance, owner)
        return release if instance is None or instance._withheld is None else partial(_refuse, instance)


def _refuse(model: Deletable, *args: Any, **kwargs: Any) -> None:
    raise ReleaseWithheld(
        f"release() of {type(model).__name__} is withheld by the guard of a deletion: {model._withheld} The rows are "
        "deleted. Fit again, delete with a guard that passes, or call approve() to publish it as it is."
    )


def named_like(out: Any, model: Any) -> Any:
    """Return `out` with the number and the names of the features that `model` was fitted on."""
    out.n_features_in_ = model.n_features_in_
    if hasattr(model, "feature_names_in_"):
        out.feature_names_in_ = model.feature_names_in_.copy()
    return out


def served_as(plain: Any, learned: dict[str, Any]) -> Any:
    """Return a plain estimator with these fitted attributes."""
    for name, value in learned.items():
        setattr(plain, name, value)
    return plain
