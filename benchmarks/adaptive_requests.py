"""Requests that depend on what the model answered, against plain and private sharding (after Gupta et al. 2021).

``python benchmarks/adaptive_requests.py [--small] [--figure PATH]``. Subjects come in twins: two with the same rare
features. A shard knows a pair if one of the two is in it, so the mean over the shards tells whether twins share a
shard. The attacker asks for every pair and lets those go that more shards know. What stays then bears the mark of the
key: fewer shards know a kept pair than would in a refit of the same rows with a fresh key. A private ensemble answers
with noise, and the mark is gone.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from certified.ensemble import ShardedClassifier


def twins(n_pairs: int, copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, classes and ids: pairs of class 1 at even places, `copies` subjects of class 0 at odd ones."""
    pairs = np.repeat(2.0 * np.arange(1, n_pairs + 1), 2)
    others = np.repeat(2.0 * np.arange(1, n_pairs + 2) - 1.0, copies)
    X = np.concatenate([pairs, others])[:, None]
    return X, (X[:, 0] % 2 == 0).astype(int), np.arange(len(X))


def ensemble(private: bool, n_pairs: int) -> ShardedClassifier:
    """Return the ensemble that is attacked; the key is drawn by the operating system."""
    if private:
        promise = {"aggregation": "private", "epsilon": 4.0, "delta": 1e-6, "n_answers": n_pairs}
        return ShardedClassifier(DecisionTreeClassifier(), n_shards=200, key=None, **promise)
    return ShardedClassifier(DecisionTreeClassifier(), n_shards=5, key=None)


def known(model: Any, places: np.ndarray) -> float:
    """Return how many shards know a pair, mean over the pairs at these places: a look at the state, without noise."""
    models = [stage.model for stage in model._served() if stage.model is not None]
    return float(np.sum([m.predict(places) for m in models]) / len(places))


def attack(model: Any, n_pairs: int) -> tuple[float, float]:
    """Ask for every pair, keep the least known quarter; return the marks of the state and of one with a fresh key."""
    places = 2.0 * np.arange(1, n_pairs + 1)[:, None]
    answers = model.predict_proba(places)[:, 1]
    gone = np.sort(np.argsort(answers, kind="stable")[n_pairs // 4 :])
    model.delete(np.concatenate([2 * gone, 2 * gone + 1]))
    retained = np.delete(places, gone, axis=0)
    return known(model, retained), known(model.rekey(), retained)


def marks(private: bool, n_runs: int, n_pairs: int) -> np.ndarray:
    """Return the marks of many attacks, shape (n_runs, 2): after the requests, and of refits with fresh keys."""
    X, y, ids = twins(n_pairs, copies=1500 if private else 60)
    return np.array([attack(ensemble(private, n_pairs).fit(X, y, ids=ids), n_pairs) for _ in range(n_runs)])


def advantage(pairs: np.ndarray) -> float:
    """Return the largest TPR - FPR of a threshold that tells the two columns apart; about 0 for equal laws."""
    cuts = np.unique(pairs)[:, None]
    return float(np.max(np.mean(pairs[:, 0] <= cuts, axis=1) - np.mean(pairs[:, 1] <= cuts, axis=1)))


def draw(found: dict[str, np.ndarray], path: str) -> None:
    """Write the two histograms."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(8, 3), layout="constrained")
    for axis, (name, pairs) in zip(axes, found.items(), strict=True):
        bins = np.linspace(pairs.min() - 0.05, pairs.max() + 0.05, 16)
        axis.hist(pairs[:, 1], bins, color="#9aa5b1", label="refit, fresh key")
        axis.hist(pairs[:, 0], bins, color="#c2410c", alpha=0.75, label="after the requests")
        axis.set(title=f"{name}: advantage {advantage(pairs):.2f}", xlabel="shards that know a kept pair, mean")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("runs")
    axes[-1].legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Attack both, print the advantages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--figure", help="file for the histograms, .svg or .png")
    options = parser.parse_args()
    runs = 4 if options.small else 100
    found = {"plain": marks(False, runs, 40), "private": marks(True, runs, 8)}
    for name, pairs in found.items():
        print(f"{name:8} after the requests {pairs[:, 0].mean():.2f} shards know a kept pair, refits with fresh keys "
              f"{pairs[:, 1].mean():.2f}; advantage {advantage(pairs):.2f} in {runs} runs")  # fmt: skip
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
