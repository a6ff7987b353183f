"""A metric below the Hessian of a wide head, in which lengths are cheap: what bounds its distances.

Without an intercept it is the penalty alone. An intercept has none; what holds it is the curvature of the rows. For one
predictor A adds ``s (b + m'u)^2``, s being the sum of the rows' curvatures and m their mean row weighted by it. For K
classes it adds one such term for each edge of a tree that joins the classes: of the difference of two predictors,
weighted by the product of their probabilities. The mean of the intercepts moves no probability: A lives where it is 0.

Proofs: ``docs/theory/wide.rst``. Tests: ``tests/convex/test_newton_cg*.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from certified._convex.bounds import UNIT, gamma, largest_eigenvalue, up
from certified._convex.newton_cg_rows import WideRows
from certified.errors import CannotCertify
from certified.typing import FloatArray

__all__ = ["PAIRWISE", "Edges", "LowerMetric", "dot", "norm"]

PAIRWISE = 300
"""Chain of additions in a sum by numpy."""

_LEAST = 1e-280  # curvatures below this count as 0, before they lose digits


@dataclass(frozen=True)
class Edges:
    """A tree of classes: what its edges compare, and the flows along them. One predictor is an edge of its own.

    Attributes
    ----------
    signs : array of shape (E, K)
        ``T``: each edge's difference of predictors.
    flow : array of shape (E, K)
        R of 0 and 1 with ``T'R g = g`` for every g whose sum is 0.
    """

    signs: FloatArray
    flow: FloatArray

    @classmethod
    def of(cls, weights: FloatArray) -> Edges:
        """Grow the tree of the largest weights, shape (K, K), from the first class; K = 1 is a single predictor."""
        K = len(weights)
        if K == 1:
            return cls(np.ones((1, 1)), np.ones((1, 1)))
        best, parent = weights[0].copy(), np.zeros(K, dtype=np.int64)
        inside = np.zeros(K, dtype=bool)
        inside[0] = True
        signs, flow, order = np.zeros((K - 1, K)), np.zeros((K - 1, K)), []
        for edge in range(K - 1):
            child = int(np.argmax(np.where(inside, -np.inf, best)))
            signs[edge, child], signs[edge, parent[child]] = 1.0, -1.0
            inside[child] = True
            order.append(child)
            closer = ~inside & (weights[child] > best)
            best[closer], parent[closer] = weights[child][closer], child
        for edge in reversed(range(K - 1)):  # what hangs on a class was joined after it
            flow[edge, order[edge]] = 1.0
            below = [later for later in range(edge + 1, K - 1) if parent[order[later]] == order[edge]]
            flow[edge] += flow[below].sum(axis=0)
        return cls(signs, flow)

    @property
    def lengths(self) -> FloatArray:
        """Euclidean norms of the rows of T, rounded up."""
        return np.sqrt(np.sum(self.signs**2, axis=1)) * (1.0 + 4.0 * UNIT)

    @cached_property
    def moves(self) -> FloatArray:
        """What the theorems follow of a row: its predictor, or the differences of all pairs; shape (F, K)."""
        K = self.signs.shape[1]
        if K == 1:
            return np.ones((1, 1))
        first, second = np.triu_indices(K, 1)
        return np.eye(K)[first] - np.eye(K)[second]


@dataclass(frozen=True)
class LowerMetric:
    """The metric A of a point and what the theorems need of it.

    Attributes
    ----------
    strength : float
    edges : Edges or None
        None without an intercept.
    mean : array of shape (E, p)
        Mean row of each edge.
    per_s : array of shape (E,)
        Upper bounds of the reciprocals of the sums of curvatures.
    low, M, k_G : float
        q, M and k_G of the theorems: ``Hess F >= low A`` and ``||v||_G <= k_G ||v||_A``.
    """

    strength: float
    edges: Edges | None
    mean: FloatArray
    per_s: FloatArray
    low: float
    M: float
    k_G: float

    @classmethod
    def bare(cls, strength: float, kappa: float, outputs: int, furthest: float, root: FloatArray) -> LowerMetric:
        """The penalty alone."""
        M = up(kappa * np.sqrt(min(outputs, 2)) * furthest / np.sqrt(strength))
        k_G = up(np.sqrt(up(float(np.max(root)) ** 2 / strength)))
        return cls(strength, None, np.zeros((0, 0)), np.zeros(0), 1.0, M, k_G)

    @classmethod
    def of(
        cls,
        strength: float,
        kappa: float,
        bends: FloatArray,
        weight: FloatArray,
        rows: WideRows,
        lengths: FloatArray,
        root: FloatArray,
        error: float,
    ) -> LowerMetric:
        """Form A from curvatures (n, 1) or probabilities (n, K); the curvatures of edges are off by at most `error`.

        ``lengths`` bounds the norms of the rows of positive weight; root is that of the noise metric, shape (K, p+1).
        """
        edges, h = _curvatures(bends, weight)
        s = np.sum(h, axis=1)
        if not (np.all(s > 0.0) and np.all(np.isfinite(s))):
            raise CannotCertify(
                "The rows have no curvature in float64 where the search went. Scale the features or add a penalty. "
                "Nothing was changed."
            )
        mean = rows.pull(np.ascontiguousarray(h.T)) / s[:, None]
        # Lemma 3: d = sum of what m and s were rounded by.
        relative = 2.0 * (gamma(rows.chain + 16) + gamma(PAIRWISE) + error)
        spread = float(np.sum(np.square(edges.lengths)[:, None] * h * np.square(lengths)))
        theta = relative * np.sqrt(up(spread) / strength)
        low = (1.0 - up(theta)) * (1.0 - up(gamma(PAIRWISE) + error)) * (1.0 - 2.0**-40)
        per_s = 1.0 / s * (1.0 + 4.0 * UNIT)
        size = np.array([norm(m) for m in mean]) * edges.lengths
        # The intercepts as a linear map of whitened coordinates, for k_G.
        back = edges.flow.T
        back = back - back.mean(axis=0) if len(back) > 1 else back
        gram = (mean @ mean.T) * (edges.signs @ edges.signs.T)
        middle = back @ (np.diag(per_s) + gram / strength) @ back.T
        rounding = np.abs(back) @ (np.sqrt(per_s) + size / np.sqrt(strength))
        chain = mean.shape[1] + 8 * len(back) + 16
        top = up(largest_eigenvalue(0.5 * (middle + middle.T)) + gamma(chain) * up(float(rounding @ rounding)))
        squared = float(np.max(root[:, :-1], initial=0.0)) ** 2 / strength + float(np.max(root[:, -1])) ** 2 * top
        found = cls(strength, edges, mean, per_s, float(low), np.inf, up(np.sqrt(up(squared))))
        most = np.sqrt(np.sum(edges.moves**2, axis=1)) * float(lengths.max()) + found._leans()[1]
        return replace(found, M=found._longest(kappa, _up_each(most) ** 2))

    def _paths(self) -> FloatArray:
        """The edges on the way of each move, with their signs: shape (F, E)."""
        assert self.edges is not None
        return self.edges.moves @ self.edges.flow.T

    def _leans(self) -> tuple[FloatArray, FloatArray]:
        """Bounds of the squared norm of each move's part in m, and of the sum of the norms of its terms."""
        assert self.edges is not None
        paths = self._paths()
        gram = (self.mean @ self.mean.T) * (self.edges.signs @ self.edges.signs.T)
        most = np.abs(paths) @ (np.array([norm(m) for m in self.mean]) * self.edges.lengths) * (1.0 + 2.0**-40)
        squared = np.einsum("fe,eg,fg->f", paths, gram, paths) + gamma(gram.size + self.mean.shape[1] + 16) * most**2
        return np.maximum(squared, 0.0), most

    def _longest(self, kappa: float, far: FloatArray | float) -> float:
        """M from bounds of the squared norms of the rows' parts in u, one for each move."""
        other = np.square(self._paths()) @ self.per_s
        return up(kappa * float(np.sqrt(np.max(_up_each(far) / self.strength + _up_each(other)))))

    def closer(self, kappa: float, rows: WideRows, lengths: FloatArray, weight: FloatArray) -> LowerMetric:
        """Measure M: how far rows are from m, for features that are far from 0."""
        if self.edges is None:
            return self
        squared, most = self._leans()
        seen = rows.push(self.mean)
        furthest, paths = float(lengths.max()), self._paths()
        far = np.zeros(len(paths))
        for f, (move, path) in enumerate(zip(self.edges.moves, paths, strict=True)):
            size, live = float(move @ move), np.flatnonzero(path)
            across = seen[:, live] @ (path * (self.edges.signs @ move))[live]
            found = size * np.square(lengths) - 2.0 * across + squared[f]
            far[f] = max(float(np.max(np.where(weight > 0, found, 0.0))), 0.0)
            chain = rows.longest + self.mean.shape[1] + 4 * len(path) + 16
            far[f] += 4.0 * gamma(chain) * (np.sqrt(size) * furthest + most[f]) ** 2
        return replace(self, M=min(self.M, self._longest(kappa, far)))

    def nu(self, g: FloatArray, at_b: FloatArray) -> float:
        """Length of a gradient, (K, p) and (K,), in the norm of ``A^-1``, rounded up."""
        if self.edges is None:
            return up(np.sqrt(up(norm(g) ** 2) / self.strength))
        flow = self.edges.flow @ at_b
        most = self.edges.flow @ np.abs(at_b)
        inner = g.copy()
        for edge, signs in enumerate(self.edges.signs):
            for k in np.flatnonzero(signs):
                inner[k] -= signs[k] * flow[edge] * self.mean[edge]
        size = np.array([norm(m) for m in self.mean]) * self.edges.lengths
        terms = len(flow) + len(at_b) + 2
        length = norm(inner) + gamma(terms) * (norm(g) + 2.0 * float(most @ size))
        measured = np.sqrt(up(up(length) ** 2) / self.strength + up(float(flow**2 @ self.per_s)))
        return up(float(measured) + gamma(terms) * float(np.sqrt(most**2 @ self.per_s)))

    def error(self, at_u: float, at_b: FloatArray) -> float:
        """Bound the length of a gradient whose part in u is at most `at_u` long, with parts in b of at most `at_b`."""
        if self.edges is None:
            return up(at_u / np.sqrt(self.strength))
        flow = self.edges.flow @ at_b * (1.0 + 2.0**-40)
        size = np.array([norm(m) for m in self.mean]) * self.edges.lengths
        return up(up(at_u + float(flow @ size)) / np.sqrt(self.strength) + np.sqrt(up(float(flow**2 @ self.per_s))))


def _curvatures(bends: FloatArray, weight: FloatArray) -> tuple[Edges, FloatArray]:
    """The tree, and the curvature of every row along its edges, shape (E, n)."""
    if bends.shape[1] == 1:
        return Edges.of(np.ones((1, 1))), weight[None] * bends.T
    joint = (bends * weight[:, None]).T @ bends
    edges = Edges.of(joint)
    ends = [np.flatnonzero(signs) for signs in edges.signs]
    h = np.array([weight * bends[:, j] * bends[:, k] for j, k in ends])
    return edges, np.where(h > _LEAST, h, 0.0)


def _up_each(values: Any) -> Any:
    """`up` for each of several values >= 0."""
    return np.asarray(values) * (1.0 + 2.0**-40) + 1e-300


def norm(v: FloatArray) -> float:
    """Upper bound of the Euclidean norm."""
    return float(np.sqrt(dot(v, v))) * (1.0 + gamma(v.size + 4))


def dot(a: FloatArray, b: FloatArray) -> float:
    """Inner product, on one core: a few hundred thousand products are not worth waking others."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))
