"""What estimators with a key share."""

from __future__ import annotations

from typing import Any

from certified._data.hashing import Key
from certified._data.whole import depends_on_key
from certified._keeper.acts import parameters_of, take_turns
from certified._keeper.turns import turn_of

__all__ = ["Keyed"]


@take_turns
class Keyed:
    """Mixin of keepers whose subjects hold a key. Subclasses give ``_plan_rekeying(subjects) -> Plan``."""

    key: Any
    _subjects: Any
    _check_fitted: Any
    _check_whole: Any
    _draft: Any
    _plan_rekeying: Any

    @property
    def key_(self) -> int:
        """The key, private: a refit with it has the same state; who knows it can choose requests that depend on it."""
        self._check_fitted()
        return self._subjects.key.value

    def rekey(self, key: int | None = None) -> Any:
        """Fit again, on the rows retained, with another key: all that anybody has learned of the old one is void.

        Parameters
        ----------
        key : int or None, default=None
            The new key, and the parameter ``key`` from now on; None draws one.

        Returns
        -------
        self
        """
        self._check_whole("rekey")
        subjects = self._subjects.rekeyed(Key.of(key, f"{type(self).__name__}.rekey"))
        draft = self._draft()
        draft.key = key
        after: dict[str, Any] = {"key": key, "_fitted_with": parameters_of(draft)}
        after["_adaptivity"] = subjects.key.adaptivity if depends_on_key(self) else ""
        plan = self._plan_rekeying(subjects)

        def commit() -> None:
            plan.commit()
            self.__dict__.update(after)

        turn_of(self).commit(commit)
        return self
