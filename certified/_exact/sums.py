"""Exact sums of products: the same integers in any order, and exactly subtractable.

A value x of a column with ``|x| < 2^e`` is written as ``h * 2^(e-20) + l * 2^(e-40)`` with integers ``|h| <= 2^20`` and
``|l| <= 2^19`` (one limb keeps h only). Products summed over a block of at most 4096 rows stay below 2^53, so float64
arithmetic adds them without any rounding, in whatever order the hardware likes; blocks are added in int64 with a
carry. The exponents e are a function of the retained rows: when the last row that needs an exponent leaves, the sums
must be formed again (:meth:`Products.subtract` returns None).

Proof: ``docs/theory/exact.rst``. Tests: ``tests/exact/test_sums.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array, issparse

from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["GroupSums", "Products", "exponents_of", "peak"]

_BITS = 20
_EMPTY = -900  # exponent of a column of zeros, and the smallest one used
_LARGEST = 2.0**400
_CARRY = 1 << 32
_INNER = 1024  # rows of a block in a compiled program
_SLICE = 1 << 22  # rows per call: block results below 2^52, 2^12 blocks, sums below 2^63


@dataclass(frozen=True, eq=False)
class Products:
    """Exact sums of products of the columns of weighted rows ``r_i = sqrt(s_i) x_i``.

    Attributes
    ----------
    exponents : int array of shape (p,)
        Column j satisfies ``|r_ij| < 2^exponents[j]``, with the smallest such exponents.
    top : int array of shape (p,)
        How many rows need that exponent.
    sums : int64 array of shape (2, n_products, p, q)
        ``sums[0] * 2^32 + sums[1]``: the products h'h and, with two limbs, ``h'l + l'h`` and l'l.
        q = p for a Gram matrix; q = 2 for moments (column with itself, column with the last one).
    limbs : {1, 2}
    gram : bool
        All pairs of columns, or moments only.
    """

    exponents: IntArray
    top: IntArray
    sums: IntArray
    limbs: int
    gram: bool

    @classmethod
    def of(
        cls,
        x: FloatArray,
        weight: FloatArray | None = None,
        *,
        limbs: int = 1,
        gram: bool = True,
        exponents: IntArray | None = None,
    ) -> Products:
        """Sum over the rows of x, shape (n, p), with weights s of shape (n,) (None: all one).

        With `exponents`, those of more rows than these; they must do for them.
        """
        weight = np.ones(len(x)) if weight is None else weight
        exponents = exponents_of(peak(x, weight)) if exponents is None else exponents
        with jax.enable_x64(True):
            scale = np.ldexp(1.0, _BITS - exponents)
            summed: Any = _by_host if gram and jax.default_backend() == "cpu" else partial(_sums, gram=gram)
            found = [[np.asarray(a) for a in summed(*part, scale, limbs)] for part in _parts(x, weight)]
        top = np.sum([tops for tops, _ in found], axis=0).astype(np.int64)
        sums = np.zeros((2, *found[0][1].shape), dtype=np.int64)
        for _, total in found:
            sums[1] += total
            sums = _carried(sums)
        return cls(exponents, top, sums, limbs, gram)

    def merged(self, other: Products) -> Products:
        """Return the sums over the rows of both, which have the same exponents."""
        sums = self.sums + other.sums
        return Products(self.exponents, self.top + other.top, _carried(sums), self.limbs, self.gram)

    def subtract(self, x: FloatArray, weight: FloatArray) -> Products | None:
        """Return the sums without these rows, or None if the exponents change and all rows must be summed again."""
        return self._changed(x, weight, -1)

    def plus(self, x: FloatArray, weight: FloatArray) -> Products | None:
        """Return the sums with these rows, or None if the exponents change and all rows must be summed again."""
        return self._changed(x, weight, 1)

    def _changed(self, x: FloatArray, weight: FloatArray, sign: int) -> Products | None:
        with np.errstate(over="ignore"):
            parts = np.abs(x) * np.sqrt(weight)[:, None]
        top = self.top + sign * np.count_nonzero(parts >= np.ldexp(1.0, self.exponents - 1), axis=0)
        if np.any((top == 0) & (self.exponents > _EMPTY)) or np.any(parts >= np.ldexp(1.0, self.exponents)):
            return None
        sums = self.sums.copy()
        scale = np.ldexp(1.0, _BITS - self.exponents)
        for start in range(0, len(x), BLAS_ROWS):
            piece = slice(start, start + BLAS_ROWS)
            sums[1] += sign * _small(x[piece], weight[piece], scale, self.limbs, self.gram)
        return Products(self.exponents, top, _carried(sums), self.limbs, self.gram)

    def with_features(self, source: IntArray, x: FloatArray, weight: FloatArray) -> Products:
        """Return the Gram matrix of the same rows with other columns, of which only the new ones are summed.

        Parameters
        ----------
        source : int array of shape (p_new,)
            Which column each one was, -1 for new ones.
        x, weight : arrays of shape (n, p_new) and (n,)
            All rows, with all columns.
        """
        stays, fresh = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
        root = np.sqrt(weight)[:, None]
        columns = x[:, fresh] * root
        exponents = np.empty(len(source), dtype=np.int64)
        top = np.empty(len(source), dtype=np.int64)
        exponents[stays], top[stays] = self.exponents[source[stays]], self.top[source[stays]]
        exponents[fresh] = exponents_of(np.abs(columns).max(axis=0, initial=0.0))
        top[fresh] = np.count_nonzero(np.abs(columns) >= np.ldexp(1.0, exponents[fresh] - 1), axis=0)
        scale = np.ldexp(1.0, _BITS - exponents)
        sums = np.zeros((*self.sums.shape[:2], len(source), len(source)), dtype=np.int64)
        sums[:, :, stays[:, None], stays] = self.sums[:, :, source[stays][:, None], source[stays]]
        strip = np.zeros((self.sums.shape[1], len(fresh), len(source)), dtype=np.int64)
        for start in range(0, len(x) if len(fresh) else 0, BLAS_ROWS):
            piece = slice(start, start + BLAS_ROWS)
            every = _limbs(x[piece] * root[piece] * scale, self.limbs, np)
            some = [limb[:, fresh] for limb in every]
            found = [some[0].T @ every[0]]
            if self.limbs == 2:
                found += [some[0].T @ every[1] + some[1].T @ every[0], some[1].T @ every[1]]
            strip += np.stack(found).astype(np.int64)
        sums[1][:, fresh, :] = strip
        sums[1][:, :, fresh] = strip.swapaxes(1, 2)
        return Products(exponents, top, _carried(sums), self.limbs, self.gram)

    def integers(self) -> Any:
        """Return the sums as Python integers, object array (p, q), in units of :attr:`unit`."""
        wide = self.sums[0].astype(object) * _CARRY + self.sums[1].astype(object)
        if self.limbs == 1:
            return wide[0]
        return wide[0] * (1 << 2 * _BITS) + wide[1] * (1 << _BITS) + wide[2]

    @property
    def unit_exponents(self) -> IntArray:
        """Exponent of the unit of each column: entry (j, k) of the sums counts 2^(u_j + u_k)."""
        return self.exponents - _BITS * self.limbs

    def matrix(self) -> FloatArray:
        """Return the Gram matrix in float64, shape (p, p): a fixed function of the integers, rounded once or twice."""
        total = np.ldexp(self.sums[0].astype(np.float64), 32) + self.sums[1].astype(np.float64)
        total = total[0] if self.limbs == 1 else _joined(total)
        unit = self.unit_exponents
        return np.ldexp(total, unit[:, None] + unit[None, :])

    def parts(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return the arrays that make the state, for a digest."""
        return self.exponents, self.top, self.sums

    def same(self, other: Products) -> bool:
        """Whether both hold the same state, bit for bit."""
        return self.limbs == other.limbs and all(
            np.array_equal(a, b) for a, b in zip(self.parts(), other.parts(), strict=True)
        )


BLAS_ROWS = 4096


def _joined(total: FloatArray) -> FloatArray:
    return np.ldexp(total[0], 2 * _BITS) + (np.ldexp(total[1], _BITS) + total[2])


def _parts(x: FloatArray, weight: FloatArray) -> Any:
    for start in range(0, len(x), _SLICE):
        yield _blocks(x[start : start + _SLICE], weight[start : start + _SLICE])


def _blocks(x: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """View rows as (n_chunks, up to 16, 1024 or fewer, p); pads only what does not fit."""
    n, p = x.shape
    inner = min(_INNER, 1 << max(4, (n - 1).bit_length()))
    outer = math.gcd(-(-n // inner), 16)
    rest = -n % inner
    if rest:
        x = np.concatenate([x, np.zeros((rest, p))])
        weight = np.concatenate([weight, np.zeros(rest)])
    return x.reshape(-1, outer, inner, p), weight.reshape(-1, outer, inner)


def peak(x: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the largest absolute value of each column of the weighted rows, shape (p,)."""
    with jax.enable_x64(True):
        return np.max([np.asarray(_peak(*part)) for part in _parts(x, weight)], axis=0)


def exponents_of(peak: FloatArray) -> IntArray:
    """Smallest e with peak < 2^e, not below that of an empty column; raise InvalidInput where it is too large."""
    if not np.all(peak < _LARGEST):
        raise InvalidInput(
            "The exact sums of a column got a value times the square root of its weight of up to "
            f"{float(np.max(peak)):.3g}. Below 2^400 (2.6e120) is allowed, so that squares stay in the range of "
            "float64. Scale values or weights, or leave out codes for missing ones. Nothing was changed."
        )
    return np.maximum(np.where(peak > 0, np.frexp(peak)[1], _EMPTY), _EMPTY).astype(np.int64)


def _carried(sums: IntArray) -> IntArray:
    high = sums[1] >> 32
    return np.stack([sums[0] + high, sums[1] - (high << 32)])


@jax.jit
def _peak(x: Any, weight: Any) -> Any:
    return jnp.max(jnp.abs(x) * jnp.sqrt(weight)[..., None], axis=(0, 1, 2))


@partial(jax.jit, static_argnames=("limbs", "gram"))
def _sums(x: Any, weight: Any, scale: Any, limbs: int, gram: bool) -> Any:
    """Return how many rows need the exponent of each column (exact: a count), and the sums."""

    def chunk(carry: Any, part: Any) -> Any:
        (top, total), (values, weights) = carry, part
        scaled = values * jnp.sqrt(weights)[..., None] * scale
        top = top + jnp.sum((jnp.abs(scaled) >= 2.0 ** (_BITS - 1)).astype(jnp.float64), axis=(0, 1))
        block = jnp.stack([_product(a, b, gram, jnp) for a, b in _pairs(_limbs(scaled, limbs, jnp))], axis=1)
        return (top, total + jnp.sum(block.astype(jnp.int64), axis=0)), None

    p = x.shape[-1]
    shape = (1 if limbs == 1 else 3, p, p if gram else 2)
    return jax.lax.scan(chunk, (jnp.zeros(p), jnp.zeros(shape, dtype=jnp.int64)), (x, weight))[0]


def _by_host(x: FloatArray, weight: FloatArray, scale: FloatArray, limbs: int) -> tuple[IntArray, IntArray]:
    """The same for a Gram matrix, of which the host's library forms one half."""
    x, weight = x.reshape(-1, x.shape[-1]), weight.ravel()
    p = x.shape[1]
    top, total = np.zeros(p, dtype=np.int64), np.zeros((1 if limbs == 1 else 3, p, p), dtype=np.int64)
    for start in range(0, len(x), _INNER):
        part = slice(start, start + _INNER)
        scaled = x[part] * np.sqrt(weight[part])[:, None] * scale
        total += _of_scaled(scaled, limbs, gram=True)
        top += np.count_nonzero(np.abs(scaled) >= 2.0 ** (_BITS - 1), axis=0)
    return top, total


def _small(x: FloatArray, weight: FloatArray, scale: FloatArray, limbs: int, gram: bool) -> IntArray:
    """The same sums for a few rows, in numpy: no compilation for a new number of rows."""
    return _of_scaled(x * np.sqrt(weight)[:, None] * scale, limbs, gram)


def _of_scaled(scaled: FloatArray, limbs: int, gram: bool) -> IntArray:
    limbs_of = _limbs(scaled[None], limbs, np)
    return np.stack([_product(a, b, gram, np)[0] for a, b in _pairs(limbs_of)]).astype(np.int64)


def _limbs(values: Any, limbs: int, xp: Any) -> list[Any]:
    high = xp.rint(values)
    return [high] if limbs == 1 else [high, xp.rint((values - high) * 2.0**_BITS)]


def _pairs(limbs_of: list[Any]) -> list[tuple[Any, Any]]:
    if len(limbs_of) == 1:
        return [(limbs_of[0], limbs_of[0])]
    high, low = limbs_of
    return [(high, high), (high, low), (low, low)]


def _product(a: Any, b: Any, gram: bool, xp: Any) -> Any:
    """Sum over the rows of a block; a and b have shape (n_blocks, n_rows, p). The mixed product is symmetrised."""
    same = a is b
    if gram:
        out = xp.einsum("bij,bik->bjk", a, b) if xp is jnp else xp.matmul(a.transpose(0, 2, 1), b)
        return out if same else out + xp.swapaxes(out, 1, 2)
    square = xp.sum(a * b, axis=1)
    last = xp.sum(a * b[..., -1:], axis=1)
    if same:
        return xp.stack([square, last], axis=-1)
    return xp.stack([2 * square, last + xp.sum(b * a[..., -1:], axis=1)], axis=-1)


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Exact sums over the rows of each group: of the weights, of each column, and of its squares.

    As :class:`Products` with two limbs, of the columns [X, 1]; the groups share the exponents.

    Attributes
    ----------
    exponents, top : int arrays of shape (p + 1,)
        As in :class:`Products`.
    sums : int64 array of shape (2, 3, n_groups, p + 1, 2)
        The last axis: column with itself, column with the ones.
    """

    exponents: IntArray
    top: IntArray
    sums: IntArray

    @classmethod
    def of(
        cls,
        x: FloatArray,
        groups: IntArray,
        n_groups: int,
        weight: FloatArray,
        exponents: IntArray | None = None,
    ) -> GroupSums:
        """Sum over the rows of x, shape (n, p), that belong to groups 0, ..., n_groups - 1.

        With `exponents`, those of more rows than these; they must do for them.
        """
        exponents = exponents_of(cls.peak(x, weight)) if exponents is None else exponents
        empty = np.zeros((2, 3, n_groups, len(exponents), 2), dtype=np.int64)
        return cls(exponents, np.zeros(len(exponents), dtype=np.int64), empty)._plus(x, groups, weight, 1)

    @staticmethod
    def peak(x: FloatArray, weight: FloatArray) -> FloatArray:
        """Return the largest absolute value of each column [X, 1] of the weighted rows, shape (p + 1,)."""
        peaks = [np.zeros(x.shape[1] + 1)]
        return np.max([*peaks, *(np.abs(_with_ones(*part)).max(axis=0) for part in _pieces(x, weight))], axis=0)

    def merged(self, other: GroupSums) -> GroupSums:
        """Return the sums over the rows of both, which have the same exponents."""
        return GroupSums(self.exponents, self.top + other.top, _carried(self.sums + other.sums))

    def subtract(self, x: FloatArray, groups: IntArray, weight: FloatArray) -> GroupSums | None:
        """Return the sums without these rows, or None if the exponents change and all rows must be summed again."""
        left = self._plus(x, groups, weight, -1)
        return None if np.any((left.top == 0) & (self.exponents > _EMPTY)) else left

    def _plus(self, x: FloatArray, groups: IntArray, weight: FloatArray, sign: int) -> GroupSums:
        top, sums = self.top.copy(), self.sums.copy()
        scale, n_groups = np.ldexp(1.0, _BITS - self.exponents), sums.shape[2]
        for values, weights, codes in _pieces(x, weight, groups):
            scaled = _with_ones(values, weights) * scale
            top += sign * np.count_nonzero(np.abs(scaled) >= 2.0 ** (_BITS - 1), axis=0)
            member = csr_array((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape=(len(codes), n_groups))
            pairs = _pairs(_limbs(scaled, 2, np))
            found = [member.T @ np.concatenate(_moments(a, b), axis=1) for a, b in pairs]  # integers below 2^53
            shape = (3, n_groups, 2, len(scale))
            sums[1] += sign * np.stack(found).reshape(shape).swapaxes(2, 3).astype(np.int64)
            sums = _carried(sums)
        return GroupSums(self.exponents, top, sums)

    @property
    def unit_exponents(self) -> IntArray:
        """Exponent of the unit of each column, as in :class:`Products`."""
        return self.exponents - 2 * _BITS

    def integers(self) -> Any:
        """Return the sums as Python integers, object array (n_groups, p + 1, 2)."""
        high, mixed, low = self.sums[0].astype(object) * _CARRY + self.sums[1].astype(object)
        return high * (1 << 2 * _BITS) + mixed * (1 << _BITS) + low

    def weights(self) -> FloatArray:
        """Return the sum of the weights of each group, rounded once, shape (n_groups,)."""
        total = self.integers()[:, -1, 1].astype(np.float64)
        return np.ldexp(total, 2 * int(self.unit_exponents[-1]))

    def totals(self) -> FloatArray:
        """Return the weighted sum of each column in each group, rounded once, shape (n_groups, p)."""
        unit = self.unit_exponents
        return np.ldexp(self.integers()[:, :-1, 1].astype(np.float64), unit[:-1] + unit[-1])

    def means(self) -> FloatArray:
        """Return the weighted mean of each column in each group of positive weight, shape (n_groups, p)."""
        total, unit = self.integers(), self.unit_exponents
        return _ratio(total[:, :-1, 1], total[:, -1:, 1], unit[:-1] - unit[-1])

    def variances(self) -> FloatArray:
        """Return the weighted variance (divided by the weight) in each group of positive weight, (n_groups, p)."""
        return self._variance(self.integers())

    def variance(self) -> FloatArray:
        """Return the weighted variance of each column in all groups together, shape (p,)."""
        return self._variance(self.integers().sum(axis=0, keepdims=True))[0]

    def _variance(self, total: Any) -> FloatArray:
        weight, first, unit = total[:, -1:, 1], total[:, :-1, 1], self.unit_exponents
        return _ratio(total[:, :-1, 0] * weight - first * first, weight * weight, 2 * (unit[:-1] - unit[-1]))

    def parts(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return the arrays that make the state, for a digest."""
        return self.exponents, self.top, self.sums


def _ratio(above: Any, below: Any, exponent: IntArray) -> FloatArray:
    """Return ``above / below * 2^exponent`` of integers, rounded once."""
    return np.ldexp((above / below).astype(np.float64), exponent)


def _with_ones(x: FloatArray, weight: FloatArray) -> FloatArray:
    root = np.sqrt(weight)[:, None]
    with np.errstate(over="ignore"):  # refused afterwards
        return np.concatenate([x * root, root], axis=1)


def _pieces(x: Any, *parts: Any) -> Any:
    """Rows in blocks of one height; those of a CSR array are dense a block at a time."""
    for start in range(0, x.shape[0], BLAS_ROWS):
        block = x[start : start + BLAS_ROWS]
        block = block.toarray() if issparse(block) else block
        yield (block, *(part[start : start + BLAS_ROWS] for part in parts))


def _moments(a: Any, b: Any) -> list[Any]:
    """Products of each column with itself and with the last one; mixed ones are symmetrised."""
    if a is b:
        return [a * a, a * a[:, -1:]]
    return [2 * a * b, a * b[:, -1:] + b * a[:, -1:]]
