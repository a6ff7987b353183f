"""Encoding categories by the target: means and weights of evidence, from exact sums, rounded."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.preprocessing import TargetEncoder as _Plain
from sklearn.utils.multiclass import type_of_target

from certified._data.frames import columns_of
from certified._data.hashing import rehashed
from certified._data.table import Table
from certified._data.targets import target_column
from certified._exact.counts import Counts, codes_of, count, subtracted
from certified._exact.sums import GroupSums
from certified._keeper.keyed import Keyed
from certified._steps.estimators import MixedTransformer
from certified._steps.plain_reader import read_plainly
from certified.errors import InvalidInput, InvalidRequest
from certified.typing import FloatArray, IntArray

__all__ = ["TargetEncoder", "WOEEncoder"]


class _Column(NamedTuple):
    """Categories of a column with their rows, sums of the target in each category and fold, rows of broken targets."""

    found: Counts
    sums: GroupSums
    broken: int


class _Encoding(NamedTuple):
    """What is served of a column: its categories, and the value of each, for each fold without it and last for all."""

    values: Any
    encoded: FloatArray  # (n_folds + 1, n_categories)
    unknown: FloatArray  # (n_folds + 1,)


class _ByTarget(OneToOneFeatureMixin, Keyed, MixedTransformer):
    """Base class. The fold of a subject is its hash modulo the number of folds."""

    _supervised = True
    cv: int | None

    def fit(self, X: Any, y: Any, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn the encoding; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _fold_of(self, hashes: Any) -> IntArray:
        k = np.uint64(self._folds())
        return (rehashed(hashes, "fold") % k).astype(np.int64) if k > 1 else np.zeros(len(hashes), dtype=np.int64)

    def _folds(self) -> int:
        """Return the number of folds, 1 for none."""
        cv = self.cv
        if cv is None:
            return 1
        if isinstance(cv, bool) or not isinstance(cv, int | np.integer) or cv < 2:
            raise InvalidInput(f"{type(self).__name__}(cv={cv!r}) is not allowed: a number of folds >= 2.")
        return int(cv)

    def _check_parameters(self) -> None:
        raise NotImplementedError

    def _encoded(self, each: GroupSums, total: GroupSums) -> tuple[FloatArray, float]:
        """Return the value of each category, given its sums and those of all, and the value of an unknown one."""
        raise NotImplementedError

    # --------------------------------------------------------- pure steps

    def _count(self, table: Table) -> tuple[_Column, ...]:
        self._check_parameters()
        table = table.some(type(self).__name__)
        out = []
        for column in columns_of(table.x):
            found = count(column)
            groups = self._groups(found, column, table)
            n_groups = len(found.values) * self._folds()
            sums = GroupSums.of(_one(table.y), groups, n_groups, np.ones(len(table.y)))
            out.append(_Column(found, sums, _broken(table.y)))
        return tuple(out)

    def _groups(self, found: Counts, column: Any, table: Table) -> IntArray:
        k = self._folds()
        return codes_of(found.values, column) * k + self._fold_of(table.hashes)

    def _subtract(self, statistic: tuple[_Column, ...], removed: Table) -> tuple[_Column, ...] | None:
        out, k = [], self._folds()
        for (found, sums, broken), column in zip(statistic, columns_of(removed.x), strict=True):
            after = sums.subtract(_one(removed.y), self._groups(found, column, removed), np.ones(len(removed.y)))
            if after is None:
                return None
            left = subtracted(found, column)
            if len(left.values) < len(found.values):  # a category has lost its last row
                stay = np.repeat(codes_of(left.values, found.values) >= 0, k)
                after = GroupSums(after.exponents, after.top, after.sums[:, :, stay])
            out.append(_Column(left, after, broken - _broken(removed.y)))
        return tuple(out)

    def _learned_from(self, statistic: tuple[_Column, ...]) -> tuple[_Encoding, ...]:
        k, out = self._folds(), []
        for found, sums, _ in statistic:
            encoded, unknown = [], []
            table = sums.sums.reshape(2, 3, len(found.values), k, 2, 2)
            every = table.sum(axis=3)
            for f in range(k) if k > 1 else ():
                value, other = self._encoded(*_both(sums, every - table[:, :, :, f]))
                encoded.append(value)
                unknown.append(other)
            value, other = self._encoded(*_both(sums, every))
            out.append(_Encoding(found.values, np.array([*encoded, value]), np.array([*unknown, other])))
        return tuple(out)

    def _apply(self, learned: tuple[_Encoding, ...], X: Any) -> FloatArray:
        return self._values(learned, X, np.full(len(X), -1))

    def _apply_rows(self, learned: tuple[_Encoding, ...], table: Table) -> FloatArray:
        k = self._folds()
        if k == 1:
            return self._apply(learned, table.x)
        return self._values(learned, table.x, self._fold_of(table.hashes))

    def _values(self, learned: tuple[_Encoding, ...], X: Any, fold: IntArray) -> FloatArray:
        out = np.empty((len(X), len(learned)))
        for j, (encoding, column) in enumerate(zip(learned, columns_of(X), strict=True)):
            codes = codes_of(encoding.values, column)
            out[:, j] = np.where(codes < 0, encoding.unknown[fold], encoding.encoded[fold, codes])
        return out

    def _example(self, learned: tuple[_Encoding, ...], n_features: int) -> list[Any]:
        return [encoding.values[0] for encoding in learned]

    def _store(self, statistic: tuple[_Column, ...], learned: tuple[_Encoding, ...]) -> None:
        super()._store(statistic, learned)
        self.categories_ = [encoding.values.copy() for encoding in learned]
        self.encodings_ = [encoding.encoded[-1].copy() for encoding in learned]

    def _release(self) -> Any:
        """Return a plain scikit-learn TargetEncoder with the same encodings, fitted on rows made up of categories.

        Where something was missing, a pipeline of a reader and the encoder: see :mod:`certified._steps.plain_reader`.
        """
        self._check_fitted()
        missing = self._schema.missing if self._schema else np.nan
        n_rows = max(2, *(len(encoding.values) for encoding in self._learned))
        rows = np.empty((n_rows, len(self._learned)), dtype=object)
        shown = []
        for j, encoding in enumerate(self._learned):
            values = encoding.values.copy()
            if values.dtype == object:
                values[:] = [missing if v is None else v for v in values]
            rows[:, j] = [values[i % len(values)] for i in range(n_rows)]
            shown.append(values)
        if all(values.dtype != object for values in shown):
            rows = rows.astype(np.float64)
        out = _Plain(target_type="continuous", smooth=1.0).fit(rows, np.arange(n_rows) + 0.5)
        out.categories_ = shown  # numbers beside text would stay objects
        out.encodings_ = [encoding.encoded[-1].copy() for encoding in self._learned]
        out.target_mean_ = float(self._learned[0].unknown[-1])
        return read_plainly(out, self, [encoding.values for encoding in self._learned])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class TargetEncoder(_ByTarget):
    """Encode a category by the mean of the target in it, shrunk towards the mean of all; exactly deletable.

    As in scikit-learn, ``fit_transform`` and pipelines encode each row of the fit by the rows outside its fold, new
    rows by all. Means are rounded to a power of two between one and two of their standard errors, so that few deletions
    change what the steps behind see.

    Parameters
    ----------
    target_type : {"auto", "continuous", "binary"}, default="auto"
        "auto" takes two distinct values for two classes. More than two classes are not supported.
    smooth : "auto" or float, default="auto"
        Rows of the overall mean that are added to each category; "auto" is the empirical Bayes estimate.
    cv : int or None, default=5
        Number of folds. A subject's fold follows from its hash. None: rows of the fit are encoded as new ones.
    key : int or None, default=None
        Key of the hash that deals subjects to folds, 128 bits; None draws one. In a pipeline it is the whole's.

    Attributes
    ----------
    categories_ : list of n_features arrays
    encodings_ : list of n_features arrays
        Value of each category for new rows.
    target_mean_ : float
        Value of an unknown category.

    Notes
    -----
    A release holds the rounded mean of every category. Where a category has a single row that is nearly a target: join
    rare categories first, for example by ``OrdinalEncoder(min_frequency=...)``.

    Examples
    --------
    >>> from certified.preprocessing import TargetEncoder
    >>> X, y = [["a"], ["a"], ["b"], ["b"], ["b"]] * 20, [1, 0, 1, 1, 0] * 20
    >>> TargetEncoder().fit(X, y).transform([["a"], ["b"], ["c"]]).ravel()
    array([0.5  , 0.625, 0.625])
    """

    def __init__(
        self, *, target_type: str = "auto", smooth: Any = "auto", cv: int | None = 5, key: int | None = None
    ) -> None:
        self.target_type = target_type
        self.smooth = smooth
        self.cv = cv
        self.key = key

    def _check_parameters(self) -> None:
        self._folds()
        if isinstance(self.smooth, str) and self.smooth == "auto":
            return
        if isinstance(self.smooth, str) or not (np.isfinite(self.smooth) and self.smooth >= 0):
            raise InvalidInput(f"TargetEncoder(smooth={self.smooth!r}) is not allowed: 'auto' or a number >= 0.")

    def _target(self, y: Any, n_rows: int) -> Any:
        y = target_column(y, n_rows, "TargetEncoder")
        kind = self.target_type
        if kind == "auto":
            kind = type_of_target(y, input_name="y")
        self.__dict__.pop("classes_", None)
        self.target_type_ = kind
        if kind == "binary":
            self.classes_, codes = np.unique(y, return_inverse=True)
            if len(self.classes_) != 2:
                raise InvalidInput(
                    f"TargetEncoder got a target with {len(self.classes_)} distinct values. Two classes are needed, or "
                    "target_type='continuous' for quantities."
                )
            return codes.astype(np.int64)
        if kind != "continuous":
            raise InvalidInput(
                f"TargetEncoder got a target of type {kind!r}. 'continuous' and 'binary' are supported; whole numbers "
                "that are quantities need target_type='continuous'."
            )
        return np.array(y, dtype=np.float64)

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        if hasattr(self, "classes_"):
            return super()._more_targets(y, n_rows)
        return np.array(target_column(y, n_rows, "TargetEncoder"), dtype=np.float64)

    def _learned_from(self, statistic: tuple[_Column, ...]) -> tuple[_Encoding, ...]:
        if hasattr(self, "classes_"):
            _keep_classes(self, statistic)
        elif self.target_type == "auto" and not statistic[0].broken:
            raise InvalidRequest(
                "TargetEncoder(target_type='auto') would be left with targets that are whole numbers, which a fit "
                "takes for classes. Fit with target_type='continuous' where that may happen. Nothing was changed."
            )
        return super()._learned_from(statistic)

    def _encoded(self, each: GroupSums, total: GroupSums) -> tuple[FloatArray, float]:
        n = float(total.weights()[0])
        if n == 0:
            return np.zeros(each.sums.shape[2]), 0.0
        variance = _leading_bits(float(total.variances()[0, 0]))
        mean = float(_rounded(total.means()[0, 0], np.sqrt(variance / n))[0])
        weights = each.weights()
        live = weights > 0
        some = GroupSums(each.exponents, each.top, each.sums[:, :, live])
        counts, means = weights[live], some.means()[:, 0]
        if isinstance(self.smooth, str):
            inner = some.variances()[:, 0]
            share = variance * counts / (variance * counts + inner) if variance > 0 else np.zeros(len(counts))
        else:
            share = counts / (counts + self.smooth)
        out = np.full(len(weights), mean)
        out[live] = _rounded(share * means + (1.0 - share) * mean, np.sqrt(variance / (counts + 1.0)))
        return out, mean

    def _store(self, statistic: tuple[_Column, ...], learned: tuple[_Encoding, ...]) -> None:
        super()._store(statistic, learned)
        self.target_mean_ = float(learned[0].unknown[-1])


class WOEEncoder(_ByTarget):
    """Encode a category by its weight of evidence, for scorecards; exactly deletable.

    The weight of evidence of category c is ``log((n1_c + s) / (n0_c + s)) - log((n1 + s) / (n0 + s))``, with the counts
    of the second and the first class (sorted), rounded to a power of two between a half and one of its standard errors;
    so is the weight of all rows. An unknown category has the weight 0. Bin numbers first, for example by
    ``KBinsDiscretizer(encode="ordinal")``.

    Parameters
    ----------
    smooth : float, default=0.5
        s, added to every count; > 0.
    cv : int or None, default=None
        Folds, by which rows of the fit are encoded by the rows of other folds; None encodes them as new rows, as
        scorecards do.
    key : int or None, default=None
        Key of the hash that deals subjects to folds, 128 bits; None draws one. In a pipeline it is the whole's.

    Attributes
    ----------
    classes_ : array of shape (2,)
    categories_, encodings_ : lists of n_features arrays
    information_value_ : array of shape (n_features,)
        ``sum_c (share of class 1 in c - share of class 0 in c) * woe_c``, the usual measure of a feature's strength.

    Examples
    --------
    >>> from certified.preprocessing import WOEEncoder
    >>> X, y = [["a"], ["a"], ["b"], ["b"], ["b"]] * 20, [1, 0, 1, 1, 0] * 20
    >>> WOEEncoder().fit(X, y).transform([["a"], ["b"]]).ravel()
    array([-0.5 ,  0.25])
    """

    def __init__(self, *, smooth: float = 0.5, cv: int | None = None, key: int | None = None) -> None:
        self.smooth = smooth
        self.cv = cv
        self.key = key

    def _check_parameters(self) -> None:
        self._folds()
        if not (np.ndim(self.smooth) == 0 and np.isfinite(self.smooth) and self.smooth > 0):
            raise InvalidInput(f"WOEEncoder(smooth={self.smooth!r}) is not allowed: a number > 0 is needed.")

    def _target(self, y: Any, n_rows: int) -> IntArray:
        self.classes_, codes = np.unique(target_column(y, n_rows, "WOEEncoder"), return_inverse=True)
        if len(self.classes_) != 2:
            raise InvalidInput(
                f"WOEEncoder got a target with {len(self.classes_)} distinct values, one class or more than two. Two "
                "classes are needed."
            )
        return codes.astype(np.int64)

    def _encoded(self, each: GroupSums, total: GroupSums) -> tuple[FloatArray, float]:
        s = float(self.smooth)
        (n0, n1), (c0, c1) = (_classes(sums) for sums in (total, each))
        base = float(_rounded(np.log((n1 + s) / (n0 + s)), np.sqrt(1.0 / (n1 + s) + 1.0 / (n0 + s)) / 2)[0])
        value = np.log((c1 + s) / (c0 + s)) - base
        out = _rounded(value, np.sqrt(1.0 / (c1 + s) + 1.0 / (c0 + s)) / 2)
        return np.where(c0 + c1 > 0, out, 0.0), 0.0

    def _learned_from(self, statistic: tuple[_Column, ...]) -> tuple[_Encoding, ...]:
        _keep_classes(self, statistic)
        return super()._learned_from(statistic)

    @property
    def information_value_(self) -> FloatArray:
        """Information value of each feature, shape (n_features,)."""
        self._check_fitted()
        out = []
        for (found, sums, _), encoding in zip(self._statistic, self._learned, strict=True):
            zero, one = (c.reshape(len(found.values), -1).sum(axis=1) for c in _classes(sums))
            out.append(float(np.sum((one / one.sum() - zero / zero.sum()) * encoding.encoded[-1])))
        return np.array(out)


def _broken(y: Any) -> int:
    """Return how many targets are no whole numbers: scikit-learn takes a target without any for classes."""
    return int(np.count_nonzero(y % 1))


def _keep_classes(encoder: Any, statistic: tuple[_Column, ...]) -> None:
    """Raise InvalidRequest where one of two classes has no row."""
    counts = [part.sum() for part in _classes(statistic[0].sums)]
    if not all(counts):
        gone = encoder.classes_.tolist()[0 if counts[0] == 0 else 1]
        raise InvalidRequest(
            f"{type(encoder).__name__} would be left without a row of class {gone!r}. Fit a model without that class "
            "instead. Nothing was changed."
        )


def _both(like: GroupSums, sums: Any) -> tuple[GroupSums, GroupSums]:
    """Return sums of the categories, and of all of them together."""
    each = GroupSums(like.exponents, like.top, sums)
    return each, GroupSums(like.exponents, like.top, sums.sum(axis=2, keepdims=True))


def _classes(sums: GroupSums) -> tuple[FloatArray, FloatArray]:
    """Counts of the two classes in each group."""
    one = sums.totals()[:, 0]
    return sums.weights() - one, one


def _one(y: Any) -> FloatArray:
    return np.asarray(y, dtype=np.float64)[:, None]


def _rounded(value: Any, error: Any) -> FloatArray:
    """Round to a power of two in (error, 2 error]; where the error is 0, not at all."""
    value, error = np.atleast_1d(value), np.atleast_1d(error)
    exponent = np.frexp(np.where(error > 0, error, 1.0))[1]
    return np.where(error > 0, np.ldexp(np.rint(np.ldexp(value, -exponent)), exponent), value)


def _leading_bits(value: float) -> float:
    """Round to five binary digits."""
    mantissa, exponent = np.frexp(value)
    return float(np.ldexp(np.rint(mantissa * 32), exponent - 5))
