"""What every estimator made of exact trees shares: fit with ids, delete, predict.

The trees are a function of the set of (id, row) pairs, of the parameters and of the key. A deletion changes them in
place; if that is interrupted, they are grown again from the rows, which gives the same trees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, Self

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils import check_array
from sklearn.utils.validation import _check_sample_weight

from certified._data.feature_change import FeatureChange
from certified._data.frames import split_ids
from certified._data.hashing import Key
from certified._data.reproducible import digest
from certified._data.subjects import Subjects
from certified._data.whole import key_for
from certified._keeper.acts import parameters_of
from certified._keeper.turns import turn_of
from certified._trees.binning import Coding, coding_of, encode
from certified._trees.categories import Categories, Remaining
from certified._trees.features import ReadsFeatures
from certified._trees.forest import Forest, Growth, Work
from certified._trees.shared_state import SharedState, bits_for, rounded
from certified._trees.to_sklearn import leaf_values
from certified._trees.unsupported import check_unsupported
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Certificate
from certified.errors import InvalidInput, InvalidRequest
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["ForestEstimator"]

_SAMPLE = 1000  # subjects that choose the centre and scale of the codes


class ForestEstimator(ReadsFeatures, Deletable):
    """Base class. Subclasses say how to grow (:meth:`_growth`) and what the targets are (:meth:`_target`)."""

    n_jobs: Any
    key: Any
    _computed_by = ("numba",)
    _lazy = False
    _forest: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let parameters of scikit-learn that are no parameters here be refused with the reason."""
        super().__init_subclass__(**kwargs)
        make = cls.__dict__.get("__init__")
        if make is not None:
            own = signature(make).parameters

            @wraps(make)
            def checked(self: Any, *args: Any, **given: Any) -> None:
                check_unsupported(type(self).__name__, own, given)
                make(self, *args, **given)

            cls.__init__ = checked  # type: ignore[method-assign]

    def _growth(self, n_features: int, shared: SharedState) -> Growth:
        """Return how trees are grown; raise InvalidInput for parameters that are not allowed."""
        raise NotImplementedError

    def _floor(self, shared: SharedState) -> float:
        """Return what a split has to explain, in units of the integers."""
        return 0.0

    def _target(self, y: Any, n_rows: int) -> Any:
        """Return targets of shape (n_rows, n_targets): codes of classes as uint16, or float64."""
        raise NotImplementedError

    def _count_classes(self) -> None:
        """Count the rows of each class, where there are classes."""

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, *, ids: Any = None, sample_weight: Any = None) -> Self:
        """Grow trees on all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
            Read as float32, as scikit-learn's trees do; NaN and nulls stand for missing values. Columns of text and of
            pandas' or polars' categorical types are categories. A sparse matrix is made dense.
        y : array-like of shape (n_rows,) or (n_rows, n_outputs)
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row. All rows of a subject are seen by the same trees.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0, rounded to 38 binary digits of the largest. A row of weight 0 counts as absent.

        Returns
        -------
        self
        """
        X, ids = split_ids(X, ids)
        self._schema, self._categorical = self._table_kind(X)
        self._labels = None
        x, categories = self._read(X, reset=True)
        x = np.array(x, order="C") + np.float32(0.0)  # -0.0 and 0.0 are one value
        targets = self._target(y, len(x))
        weight = np.array(_check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True))
        subjects = Subjects.of(ids, len(x))
        self._subjects, (self._key, self._drawn) = subjects, key_for(self)
        self._x, self._y, self._weight = x, targets, weight
        self._hashes = subjects.hashes(self._key)
        self._retained = weight > 0.0
        if not self._retained.any():
            raise InvalidInput(f"{type(self).__name__}.fit got only rows of weight 0. One row of weight > 0 is needed.")
        if categories:
            self._labels = Categories(categories, self._retained, type(self).__name__)
            self._x[:, self._categorical] = self._labels.codes_of_rows()
        self._shared = self._based(self._retained, None, None)
        self._count_classes()
        self._check_rest(np.empty(0, np.int64))
        self._forest = None
        self._changed()
        self._grown()
        return self

    def _based(self, retained: BoolArray, before: SharedState | None, gone: Any, x: Any = None) -> SharedState:
        """Return the basis of the retained rows; what the rows gone cannot have changed is taken from before."""
        if before is None or np.any(self._hashes[gone] <= before.coding.cut):
            coding = self._coding(retained, before, self._x if x is None else x)
        else:
            coding = before.coding
        weighted, exponent, exponents, factors = False, 0, np.zeros(0, np.int64), self._factors(retained)
        if before is None or before.weighted or factors.size:
            weight = self._weight_with(factors)[retained]
            weighted = bool(np.any(weight != 1.0))
            exponent = int(np.frexp(weight.max())[1]) if weighted else 0
        if self._y.dtype != np.uint16:
            if (
                before is not None
                and not before.weighted
                and np.all(np.frexp(np.abs(self._y[gone]).max(axis=0))[1] < before.exponents)
            ):
                exponents = before.exponents
            else:
                size = np.abs(self._y[retained]) * (self._weight[retained, None] if weighted else 1.0)
                exponents = np.frexp(size.max(axis=0))[1].astype(np.int64)
        bits, mass = bits_for(int(np.count_nonzero(retained))), 0.0
        if self._weighs():
            units = np.rint(np.ldexp(weight, bits - exponent)).astype(np.int64).sum() if weighted else retained.sum()
            mass = float(np.ldexp(rounded(float(units)), exponent - bits if weighted else 0))
        n_rows = float(rounded(float(np.count_nonzero(retained)))) if self._takes_shares() else 0.0
        return SharedState(coding, exponents, weighted, exponent, factors, mass, bits, n_rows)

    def _takes_shares(self) -> bool:
        """Whether the trees depend on the number of all rows."""
        return False

    def _weighs(self) -> bool:
        """Whether the trees depend on the weight of all rows."""
        return False

    def _factors(self, retained: BoolArray) -> FloatArray:
        """Return what the weights of each class are multiplied by; empty for nothing."""
        return np.empty(0)

    def _weight_with(self, factors: FloatArray) -> FloatArray:
        return self._weight * factors[self._y[:, 0]] if factors.size else self._weight

    def _coding(self, retained: BoolArray, before: SharedState | None, x: Any) -> Coding:
        if before is not None and before.coding.cut < 2**62:  # the new sample is among twice as many subjects
            near = np.flatnonzero(retained & (self._hashes <= 2 * before.coding.cut))
            if np.unique(self._hashes[near]).size >= _SAMPLE:
                return coding_of(x[near], self._hashes[near], _SAMPLE, self._categorical)
        return coding_of(x[retained], self._hashes[retained], _SAMPLE, self._categorical)

    def _grow(self, shared: SharedState, retained: BoolArray, x: Any = None) -> Any:
        """Grow all trees on the retained rows."""
        x = self._x if x is None else x
        growth = replace(self._growth(x.shape[1], shared), floor=self._floor(shared))
        n, summed = len(x), shared.weighted or self._y.dtype != np.uint16
        if n * growth.trees * growth.share >= 2**31 or (summed and n > 2**24):
            raise InvalidInput(
                f"{type(self).__name__} got {n} rows. Sums stay exact up to {2**24} rows with weights or targets, and "
                f"the trees may see {2**31} rows together. Lower n_estimators or max_samples, or fit on fewer rows. "
                "Nothing was changed."
            )
        weights = np.empty(0, np.int64)
        targets, w = self._y, self._weight_with(shared.factors)
        if shared.weighted:
            weights = np.rint(np.ldexp(np.where(retained, w, 0.0), shared.bits - shared.exponent)).astype(np.int64)
            retained = retained & (weights > 0)
        if targets.dtype == np.uint16:
            targets = np.where(retained[:, None], targets, np.uint16(0))  # what goes leaves its class nowhere
        else:
            values = np.where(retained[:, None], targets * w[:, None] if shared.weighted else targets, 0.0)
            targets = np.rint(np.ldexp(values, shared.bits - shared.exponents)).astype(np.int64)
        codes = encode(x, shared.coding)
        codes[:, ~retained] = 0
        return Forest(growth, codes, targets, weights, retained.copy(), self._hashes, shared.coding.categorical)

    def _grown(self) -> Any:
        """Return the trees, every subtree up to date."""
        self._check_fitted()
        if self._forest is None:
            self._forest = self._grow(self._shared, self._retained)
        self._forest.flush()
        return self._forest

    def _changed(self) -> None:
        """Forget what was computed from the trees."""
        self._served: Any = None

    def _threads(self) -> int:
        return int(effective_n_jobs(self.n_jobs))

    @property
    def _scale(self) -> FloatArray:
        """Units of the sums of targets over those of the weights."""
        return self._units(self._shared)

    def _units(self, shared: SharedState) -> FloatArray:
        return np.ldexp(1.0, shared.exponents - (shared.exponent if shared.weighted else shared.bits))

    # --------------------------------------------------------------- delete

    def _plan_deletion(self, rows: IntArray) -> Plan:
        retained = self._retained.copy()
        retained[rows] = False
        self._check_some(retained)
        gone = rows[self._retained[rows]]
        shared = self._based(retained, self._shared, gone) if gone.size else self._shared
        names = None if self._labels is None else self._labels.without(rows)
        erase = self._erasing(rows, names)
        if self._shared is not None and shared.same(self._shared) and not (names and names.moved):

            def commit() -> None:
                self._subtract(rows, gone)
                self._shared = shared
                erase()

            return Plan(commit, True, "exact", np.inf)
        x = self._x
        if names and names.moved:
            x = x.copy()
            x[:, self._categorical] = self._labels.codes_of_rows(names)
        forest, before = self._grow(shared, retained, x), self._x

        def replace_all() -> None:
            self.__dict__.update(_forest=forest, _shared=shared, _x=x)
            erase()
            before[rows] = 0

        return Plan(replace_all, True, "exact", np.inf)

    def _check_some(self, retained: BoolArray) -> None:
        if not retained.any():
            raise InvalidRequest(
                "delete(ids=...) would remove every row (of weight > 0). Discard the model instead. Nothing was "
                "changed."
            )

    def _plan_features(self, rows: IntArray, new: FeatureChange) -> Plan:
        """Plan for changed features, more or fewer too."""
        if self._categorical is not None:
            raise InvalidRequest(
                f"{type(self).__name__} holds categories, and this deletion changes the features that a pipeline "
                "makes. Give the frame to the forest itself, or encode the categories in a step. Nothing was changed."
            )
        x = np.zeros((len(self._x), new.n_features), dtype=np.float32)
        new.write(x, self._x)
        x = check_array(x, ensure_all_finite="allow-nan") + np.float32(0.0)
        retained = self._retained.copy()
        retained[rows] = False
        shared = self._based(retained, None, None, x)
        forest, erase, before = self._grow(shared, retained, x), self._erasing(rows), self._x

        def commit() -> None:
            self.__dict__.update(_x=x, n_features_in_=x.shape[1], _forest=forest, _shared=shared)
            erase()
            before[:] = 0

        return Plan(commit, True, "exact", np.inf)

    def _rehearsed(self, rows: IntArray) -> tuple[float, Plan]:
        trial = deepcopy(self)  # trees change in place
        started = time.perf_counter()
        growth = trial._planned_deletion(rows)
        growth.commit()
        return time.perf_counter() - started, growth

    def _subtract(self, rows: IntArray, gone: IntArray) -> None:
        """Subtract rows from the trees, in place. Where that does not end, they are grown again when needed."""
        forest, self._forest = self._forest, None
        if forest is None:
            return
        try:
            forest.delete(gone[forest.retained[gone]])  # after an interrupt they may have gone already
            if not self._lazy:
                forest.flush()
            forest.erase(rows)
        except Exception:  # out of memory: the rows go all the same
            return
        self._forest = forest

    def _erasing(self, rows: IntArray, names: Remaining | None = None) -> Callable[[], None]:
        """Return what overwrites these rows; it may be called again."""
        labels = None if self._labels is None or names is None else self._labels.erasing(rows, names)

        def erase() -> None:
            self._retained[rows] = False
            self._x[rows], self._y[rows], self._weight[rows], self._hashes[rows] = 0, 0, 0.0, 0
            if labels is not None:
                labels()
            self._changed()

        return erase

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        """Plan to grow the trees again on all rows, the new ones among them."""
        draft = self._draft()
        draft._labels = None  # new rows may have new categories
        x, categories = draft._read(X, reset=False)
        x = np.array(x) + np.float32(0.0)
        held, subjects = self._subjects.added(ids, len(x))
        targets = draft._more_targets(y, len(x))
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        draft._subjects = subjects
        draft._x = np.concatenate([self._x[held], x])
        draft._y = np.concatenate([self._y[held], targets])
        draft._weight = np.concatenate([self._weight[held], weight])
        draft._hashes, draft._retained = subjects.hashes(self._key), draft._weight > 0.0
        if self._labels is not None:
            pairs = zip(self._labels.columns(held), categories, strict=True)
            draft._labels = Categories([np.concatenate(pair) for pair in pairs], draft._retained, type(self).__name__)
            draft._x[:, self._categorical] = draft._labels.codes_of_rows()
        return draft._grown_anew(self)

    def _grown_anew(self, model: Any) -> Plan:
        """Grow the trees of this draft; return the plan that `model` becomes it."""
        self._count_classes()
        self._shared = self._based(self._retained, None, None)
        self._forest = self._grow(self._shared, self._retained)
        self._changed()
        return Plan(lambda: model._become(self), True, "exact", np.inf)

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        """Return targets of rows that are added, as :meth:`_target` does."""
        return self._target(y, n_rows)

    def flush(self) -> Any:
        """Grow anew the subtrees that deletions have left waiting (``lazy=True``); queries do so by themselves."""
        self._grown()
        return self

    @property
    def work_(self) -> Work:
        """What deletions have cost since the trees were last grown as a whole, or were loaded: it is not stored."""
        self._check_fitted()
        return self._forest.work if self._forest is not None else Work(0, 0, 0, 0)

    @property
    def memory_(self) -> int:
        """Bytes that the trees take, without the rows."""
        return self._grown().memory()

    @property
    def key_(self) -> int:
        """The key that decides all that is random. Private: who knows it can choose requests that depend on it."""
        self._check_fitted()
        return self._key

    def rekey(self, key: Any = None) -> Any:
        """Grow the trees again with another key, as a fit on the retained rows with this one would.

        Afterwards what anybody has learned of the old key says nothing of the new trees.

        Parameters
        ----------
        key : int or None, default=None
            The new key; None has the operating system draw one. The parameter ``key`` becomes this.
        """
        self._check_whole("rekey")
        draft = self._draft()
        (draft._key, draft._drawn), draft.key = Key.of(key, f"{type(self).__name__}.rekey"), key
        draft._hashes = self._subjects.hashes(draft._key) * self._subjects.retained
        draft._fitted_with = parameters_of(draft)
        turn_of(self).commit(draft._grown_anew(self).commit)
        return self

    # ---------------------------------------------------------------- serve

    def _codes(self, X: Any) -> Any:
        self._check_fitted()
        return encode(np.ascontiguousarray(self._validated(X, reset=False)), self._shared.coding)

    def _mean(self, codes: Any, seen: Any = None) -> FloatArray:
        """Return the mean of what the trees say, shape (n_rows, n_values); NaN where none says anything."""
        forest = self._grown()
        if seen is None and not forest.n_rows.any():  # no tree sees a row: what a leaf of all rows says
            return np.repeat(leaf_values(forest, forest.whole(), self._scale)[0], codes.shape[1], axis=0)
        out, voters = forest.predict(codes, self._scale, seen)
        with np.errstate(invalid="ignore"):
            return out / np.where(voters, voters, np.nan)[:, None]

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state: exact, for a refit with the same key."""
        self._check_fitted()
        return _certificate(
            type(self).__name__, int(self.n_features_in_), self._adaptivity(), self._versions()
        ).for_rows(self.n_rows_)

    def _adaptivity(self) -> str:
        return Key(self._key, self._drawn).adaptivity

    @property
    def state_digest_(self) -> str:
        """Digest of trees and of the map of codes: equal exactly when two states are equal bit for bit. Private."""
        forest, shared = self._grown(), self._shared
        parts = [*shared.coding[1:], shared.exponents, shared.exponent, shared.bits, self._key, *self._served_names()]
        for t in range(forest.growth.trees):
            nodes, stats = forest.tree(t)
            inner = nodes["feature"] >= 0
            cuts, sides = nodes["cut"] * inner, nodes["missing"] * inner
            parts += [nodes["feature"], cuts, sides, nodes["n"], nodes["left"], stats]
        return digest(*parts)

    def _served_names(self) -> list[Any]:
        """Return what is served besides the trees: names, kinds and categories of features, classes."""
        parts = [getattr(self, name, None) for name in ("feature_names_in_", "classes_", "_categorical")]
        parts.append(None if self._schema is None else self._schema.kinds)
        if self._labels is not None:
            for j in range(int(self._categorical.sum())):
                parts += [self._labels.held(j), self._labels.codes(j)]
        return parts

    def __getstate__(self) -> dict[str, Any]:
        if "_subjects" in self.__dict__:
            self._grown()
        return super().__getstate__()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan, tags.input_tags.sparse = True, True
        return tags


@lru_cache(maxsize=64)
def _certificate(estimator: str, n_features: int, adaptivity: str, versions: Any) -> Certificate:
    """Return the certificate of an exact state without rows."""
    return Certificate.exact(
        estimator=estimator, n_rows=0, n_features=n_features, versions=versions, adaptivity=adaptivity
    )
