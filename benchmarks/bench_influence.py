"""Influence of every subject: error, coverage of the bound, tightness and time, against refits and the one-step peers.

Run: ``python benchmarks/bench_influence.py`` (``--small`` for a try, ``--large`` for n = 1,000,000, p = 50). Peers that
are not installed are left out and named. pyDVL 0.10 needs numpy 1 and cannot stand beside this package; its
leave-one-out values refit the model for every row, as the refits here do.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression as SklearnLogistic

from certified._convex.derivatives import Blocks
from certified.influence import influence
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge

NO_PENALTY = {"C": np.inf}


def data(n: int, p: int, seed: int = 0, heavy: bool = False) -> tuple[Any, Any, Any]:
    """Features, classes and counts."""
    rng = np.random.default_rng(seed)
    X = np.clip(rng.standard_t(3, size=(n, p)), -10, 10) if heavy else rng.normal(size=(n, p))
    z = X @ (rng.normal(size=p) / np.sqrt(p) / (3 if heavy else 1))
    return (
        X,
        (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int),
        rng.poisson(np.exp(np.clip(0.5 * z, -3, 3))).astype(float),
    )


def timed(call: Any) -> tuple[Any, float]:
    """What a call returns, and seconds."""
    start = time.perf_counter()
    out = call()
    return out, time.perf_counter() - start


def vector(model: Any) -> Any:
    """Coefficients and intercept."""
    coef = model.private_coef_ if hasattr(model, "private_coef_") else model.coef_
    intercept = model.private_intercept_ if hasattr(model, "private_coef_") else model.intercept_
    return np.append(np.ravel(coef), np.ravel(intercept))


def small(n: int, p: int, heavy: bool, refits: int) -> None:
    """Every subject by influence, by statsmodels, and some by refits."""
    X, y, _ = data(n, p, heavy=heavy)
    model = LogisticRegression(noise=0.0, tol=1e-9, **NO_PENALTY).fit(X, y)
    influence(model)  # compiles
    found, ours = timed(lambda: influence(model))
    whole = vector(model)
    warm = SklearnLogistic(solver="newton-cholesky", tol=1e-10, max_iter=200, warm_start=True, **NO_PENALTY).fit(X, y)
    start, exact, colds, warms = (warm.coef_.copy(), warm.intercept_.copy()), [], [], []
    some = np.random.default_rng(1).choice(n, size=min(refits, n), replace=False)
    for i in some:
        retained = np.arange(n) != i
        cold = SklearnLogistic(solver="newton-cholesky", tol=1e-10, max_iter=200, **NO_PENALTY)
        colds.append(timed(lambda c=cold, k=retained: c.fit(X[k], y[k]))[1])
        warm.coef_, warm.intercept_ = start[0].copy(), start[1].copy()
        warms.append(timed(lambda k=retained: warm.fit(X[k], y[k]))[1])
        exact.append(
            vector(LogisticRegression(noise=0.0, tol=1e-10, **NO_PENALTY).fit(X[retained], y[retained])) - whole
        )
    truth = np.array(exact)
    size = np.abs(truth / found.standard_errors).max(axis=1)

    def error(change: Any) -> Any:
        return np.abs((change - truth) / found.standard_errors).max(axis=1)

    off, bound = error(found.coef_change[some]), found.error[some]
    covered = np.all(np.abs(found.coef_change[some] - truth) <= found.coef_error[some] + 2e-9 * found.standard_errors)
    print(f"\nlogistic, n = {n}, p = {p}{', heavy tails' if heavy else ''}: {len(some)} subjects refitted")
    share = bound / found.size[some]
    print(
        f"  certified.influence     {ours:9.4f} s for all; {_spread(off / size)}; bound / change: median "
        f"{np.median(share):.1e}; bound / error: median {np.median(bound / off):.1f}; covered: {covered}"
    )
    print(f"  refits, cold            {np.mean(colds) * n:9.1f} s for all ({np.mean(colds) * n / ours:.0f} times ours)")
    print(f"  refits, warm            {np.mean(warms) * n:9.1f} s for all ({np.mean(warms) * n / ours:.0f} times ours)")
    try:
        import statsmodels.api as sm
    except ImportError:
        print("  statsmodels is not installed: left out")
    else:
        fitted = sm.GLM(y, np.column_stack([X, np.ones(n)]), family=sm.families.Binomial()).fit(tol=1e-12)
        theirs, seconds = timed(lambda: fitted.get_influence().d_params)
        print(f"  statsmodels GLMInfluence{seconds:9.4f} s for all; {_spread(error(-theirs[some]) / size)}; no bound")


def _spread(shares: Any) -> str:
    return f"error / change: median {np.median(shares):.1e}, largest {np.max(shares):.1e}"


def large(n: int, p: int) -> None:
    """Time of all subjects against that of fits."""
    X, y, counts = data(n, p)
    print(f"\nn = {n:,}, p = {p}: all subjects, against a fit of the same model (second runs)")
    for model, target in ((LogisticRegression(), y), (PoissonRegressor(alpha=1e-4), counts), (Ridge(), counts)):
        model.fit(X, target)
        _, fit = timed(lambda m=model, t=target: m.fit(X, t))
        influence(model, X[:10_000], target[:10_000], ids=[0])
        found, seconds = timed(lambda m=model, t=target: influence(m, X[:10_000], t[:10_000]))
        share = found.error / found.size
        print(
            f"  {type(model).__name__:22} fit {fit:6.2f} s, influence {seconds:6.2f} s ({seconds / fit:.2f} fits); "
            f"bound / change: median {np.median(share):.1e}, largest {np.max(share):.1e}"
        )


def removal(n: int, p: int) -> None:
    """One request of k subjects by each way: milliseconds of the step, and the certified distance."""
    X, y, _ = data(n, p)
    model = LogisticRegression().fit(X, y)
    head, state, rows = model._solver, model._state, model._rows
    allowed = model._distance_target(state.solution)
    print(f"\nn = {n:,}, p = {p}: one request of k subjects; distance allowed {allowed:.3g} standard errors")
    print("       k   newton ms  influence ms   ratio   newton distance  influence distance")
    for k in (1, 10, 100, 1_000):
        found = {}
        block = Blocks(*rows.block_of(np.arange(k)))
        for name, step in (("newton", head.delete), ("influence", head.by_influence)):
            solution = step(state.problem, state.anchor, block)[1]
            times = [timed(lambda s=step, b=block: s(state.problem, state.anchor, b))[1] for _ in range(5)]
            found[name] = 1e3 * float(np.median(times)), solution.distance
        (a, da), (b, db) = found["newton"], found["influence"]
        print(f"{k:8,}  {a:10.2f}  {b:12.2f}  {a / b:6.1f}  {da:16.2e}  {db:18.2e}")
    for way in ("newton", "influence"):
        model = LogisticRegression(removal=way).fit(X, y)
        some = 0
        while some < 2_000 and model.delete([some]).method == "predicted":
            some += 1
        print(f"  {way}: {some}{' or more' if some == 2_000 else ''} single deletions before a pass")


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--removal", action="store_true", help="deletions by influence against the Newton way")
    asked = parser.parse_args()
    if asked.large:
        large(1_000_000, 50)
        return
    if asked.removal:
        for n, p in ((20_000, 20),) if asked.small else ((200_000, 50), (100_000, 500)):
            removal(n, p)
        return
    refits = 10 if asked.small else 200
    for n, p, heavy in ((1_000, 10, False), (1_000, 10, True), (10_000, 20, False)):
        small(n, p, heavy, refits)
    large(20_000 if asked.small else 200_000, 50)


if __name__ == "__main__":
    main()
