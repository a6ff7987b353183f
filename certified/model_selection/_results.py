"""Scores of candidates and folds, and the table that scikit-learn makes of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified.typing import FloatArray

__all__ = ["Measured", "read", "table", "without_times"]


class Measured(NamedTuple):
    """Scores of one model by their names (empty where there is no model), what went wrong, and the seconds it took."""

    test: dict[str, float]
    train: dict[str, float]
    problem: Exception | None
    seconds: float


def read(raw: Any, missing: float) -> tuple[dict[str, float], Exception | None]:
    """Return what a scorer gave as numbers by name; `missing` where it gave the text of an error."""
    given = raw if isinstance(raw, dict) else {"score": raw}
    broken = [value for value in given.values() if isinstance(value, str)]
    problem = ValueError(broken[0].strip().splitlines()[-1]) if broken else None
    return {n: missing if isinstance(value, str) else float(value) for n, value in given.items()}, problem


def table(
    parameters: list[dict[str, Any]], measured: list[Measured], names: list[str], seconds: FloatArray, missing: float
) -> dict[str, Any]:
    """Return ``cv_results_``.

    Parameters
    ----------
    parameters : list of dicts, one for each candidate
    measured : list
        For each candidate and fold, folds inside candidates.
    names : list of str
        Names of the scores.
    seconds : array of shape (n_candidates, n_folds)
        Time of the fits.
    missing : float
        Score of what has none.
    """
    results: dict[str, Any] = {}
    shape = seconds.shape
    for name, values in (("fit_time", seconds), ("score_time", np.reshape([m.seconds for m in measured], shape))):
        results[f"mean_{name}"], results[f"std_{name}"] = values.mean(axis=1), values.std(axis=1)
    for name in dict.fromkeys(name for chosen in parameters for name in chosen):
        results[f"param_{name}"] = _column([chosen.get(name) for chosen in parameters], [name in c for c in parameters])
    results["params"] = parameters
    trains = any(m.train for m in measured)
    for name in names:
        _add(results, f"test_{name}", np.reshape([m.test.get(name, missing) for m in measured], shape))
        means = results[f"mean_test_{name}"]
        filled = np.where(np.isnan(means), -np.inf, means)
        results[f"rank_test_{name}"] = np.array([1 + np.count_nonzero(filled > v) for v in filled], dtype=np.int32)
        if trains:
            _add(results, f"train_{name}", np.reshape([m.train.get(name, missing) for m in measured], shape))
    return results


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results without what a fresh search would not repeat."""
    return {name: value for name, value in results.items() if not name.endswith("_time")}


def _add(results: dict[str, Any], name: str, scores: FloatArray) -> None:
    for f in range(scores.shape[1]):
        results[f"split{f}_{name}"] = scores[:, f].copy()
    results[f"mean_{name}"], results[f"std_{name}"] = scores.mean(axis=1), scores.std(axis=1)


def _column(values: list[Any], given: list[bool]) -> Any:
    """Return the values of a parameter, masked where a candidate does not have it; numbers as numbers."""
    try:
        found = np.array([value for value, here in zip(values, given, strict=True) if here])
    except ValueError:  # lists of several lengths
        found = np.empty(0, dtype=object)
    masked: Any = np.ma.masked_all
    column = masked(len(values), dtype=found.dtype if found.ndim == 1 and found.dtype.kind != "U" else object)
    for k in np.flatnonzero(given):
        column[k] = values[k]
    return column
