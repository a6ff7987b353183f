"""What the checks and property tests draw: data, requests, and adversaries who look at the release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.stats import rankdata

from certified.typing import FloatArray, IntArray

__all__ = ["Adversary", "adversaries", "data_sets", "deletion_requests", "made_data"]

_ROWS, _FEATURES = 120, 4


@dataclass(frozen=True)
class Adversary:
    """Chooses deletions after looking at the released model, round after round.

    Parameters
    ----------
    rule : {"extreme", "ordinary", "worst fitted", "swinging"}
        Which rows: with the largest output, the most usual one, the worst prediction, or now the largest and now the
        smallest output.
    size : int
        Subjects in each request.
    rounds : int
    """

    rule: str = "extreme"
    size: int = 2
    rounds: int = 3

    def request(self, model: Any, X: Any, y: Any, ids: Any, turn: int = 0) -> list[Any]:
        """Return the next request: what a fitted model serves decides."""
        held = np.flatnonzero(np.isin(ids, model.ids_))
        out = _outlook(model, X[held])
        place, target = (rankdata(values) / len(held) for values in (out, np.asarray(y)[held]))
        interest = {
            "extreme": place,
            "ordinary": -np.abs(place - 0.5),
            "worst fitted": np.abs(place - target),
            "swinging": place if turn % 2 == 0 else -place,
        }[self.rule]
        chosen = dict.fromkeys(np.asarray(ids)[held[np.argsort(-interest, kind="stable")]].tolist())
        return list(chosen)[: self.size]

    def play(self, model: Any, X: Any, y: Any, ids: Any) -> list[list[Any]]:
        """Delete in rounds from a fitted model; return the requests."""
        requests = []
        for turn in range(self.rounds):
            requests.append(self.request(model, X, y, ids, turn))
            model.delete(requests[-1])
        return requests


def _outlook(model: Any, X: FloatArray) -> FloatArray:
    """One number for each row from what the model serves."""
    for name in ("decision_function", "predict_proba", "predict", "transform"):
        if hasattr(model, name):
            values = getattr(model, name)(X)
            values = values.toarray() if issparse(values) else np.asarray(values)
            if values.dtype.kind not in "biuf":
                values = np.unique(values, return_inverse=True)[1].reshape(values.shape)
            table = values.reshape(len(X), -1).astype(np.float64)
            return np.nan_to_num(table @ np.arange(1.0, table.shape[1] + 1.0))
    return np.arange(len(X), dtype=np.float64)


def adversaries(max_rounds: int = 4) -> Any:
    """Hypothesis strategy of :class:`Adversary`: requests that depend on earlier releases, over which a guarantee for
    requests fixed in advance says nothing."""
    from hypothesis import strategies as st

    rules = st.sampled_from(["extreme", "ordinary", "worst fitted", "swinging"])
    return st.builds(Adversary, rule=rules, size=st.integers(1, 3), rounds=st.integers(1, max_rounds))


def data_sets(n_rows: int = 60, n_features: int = 3) -> Any:
    """Hypothesis strategy of ``(X, y, ids)``: scales from 1e-3 to 1e3, correlated columns, subjects with many rows.

    y holds both classes, and each class has rows of at least ten subjects. Shapes are fixed.
    """
    from hypothesis import strategies as st

    return st.builds(
        made_data,
        seed=st.integers(0, 2**32 - 1),
        n_rows=st.just(n_rows),
        n_features=st.just(n_features),
        spread=st.sampled_from([0, 1, 3]),
        repeats=st.integers(1, 3),
    )


def deletion_requests(ids: Any, max_share: float = 0.3) -> Any:
    """Hypothesis strategy of sequences of requests: disjoint non-empty lists of ids, at most a share of all."""
    from hypothesis import strategies as st

    unique = np.unique(ids).tolist()
    most = max(1, int(max_share * len(unique)))
    chosen = st.lists(st.sampled_from(unique), min_size=1, max_size=most, unique=True)
    return st.builds(_grouped, chosen, st.integers(1, 5))


def _grouped(chosen: list[Any], size: int) -> list[list[Any]]:
    return [chosen[k : k + size] for k in range(0, len(chosen), size)]


def made_data(
    seed: int = 0, n_rows: int = _ROWS, n_features: int = _FEATURES, spread: int = 1, repeats: int = 1
) -> tuple[FloatArray, FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    mix = np.eye(n_features) + 0.5 * rng.standard_normal((n_features, n_features))
    X = rng.standard_normal((n_rows, n_features)) @ mix * 10.0 ** rng.integers(-spread, spread + 1, n_features)
    z = (X / X.std(axis=0)) @ rng.standard_normal(n_features)
    y = (z + rng.logistic(size=n_rows) > np.median(z)).astype(float)
    ids = 1000 + np.arange(n_rows) // repeats
    firsts = np.flatnonzero(np.arange(n_rows) % repeats == 0)[:20]
    y[firsts] = np.arange(firsts.size) % 2
    return X, y, ids
