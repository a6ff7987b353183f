"""Audits of this library's estimators, and of what people use to unlearn today, on real data.

``python benchmarks/bench_audit.py [ours|others] [--small]``; the data under ``CERTIFIED_DATA``. ``ours`` runs over
every estimator of the package, those added later included. ``others`` runs one suite over methods without a
certificate.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import expit
from sklearn.base import clone, is_regressor
from sklearn.datasets import load_breast_cancer
from sklearn.naive_bayes import GaussianNB as PlainNB
from sklearn.neighbors import KNeighborsClassifier as PlainNeighbors
from sklearn.neighbors import KNeighborsRegressor as PlainNeighborsRegressor
from sklearn.preprocessing import StandardScaler as PlainScaler
from sklearn.tree import DecisionTreeClassifier as PlainTree
from sklearn.tree import DecisionTreeRegressor as PlainTreeRegressor
from sklearn.utils import get_tags
from threadpoolctl import threadpool_limits

from certified import audit
from certified.accounting import mu_of
from certified.audit import attacks
from certified.audit._models import features, final, refit, release_factor, same_key
from certified.audit.bounds import runs_needed
from certified.linear_model import Ridge
from certified.testing import all_estimators

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import public_data
from unlearning_today import (
    METHODS,
    Linear,
    negative_weights,
    newton,
    ours,
    ours_bare,
    ours_before,
    penalty_of,
    refitted,
)

LEAST = mu_of(0.1, 1e-5)  # the effect that has to be seen: epsilon = 0.1
PROMISED = mu_of(1.0, 1e-6)  # what a release of this package promises by default, with noise of 0.1 standard errors
# One alarm in a hundred for the whole table: fifteen noisy estimators at most, two sampling audits each.
ALPHA = 0.01 / 30
RUNS = runs_needed(LEAST, alpha=ALPHA)


def load(small: bool) -> tuple[np.ndarray, np.ndarray, pl.DataFrame] | None:
    """Return numbers, a 0/1 target and a frame with text; None where the data are absent."""
    if small:
        X, y = load_breast_cancer(return_X_y=True)
        text = pl.DataFrame({f"c{k}": np.digitize(X[:, k], np.quantile(X[:, k], [0.3, 0.6])) for k in range(4)})
        return X[:, :10], y, text.select(pl.all().cast(pl.String))
    frame = public_data.credit_default()
    if frame is None:
        return None
    text = frame.select(pl.col("SEX", "EDUCATION", "MARRIAGE", "PAY_0", "PAY_2").cast(pl.Int64).cast(pl.String))
    return frame.drop("default").to_numpy().astype(float), frame["default"].to_numpy(), text


# ------------------------------------------------------------------- our own

# Parameters of estimators that need some, or that need data of a kind.
FILLED: dict[str, Callable[[type], Any]] = {
    "Pipeline": lambda c: c([("scale", _named("StandardScaler")()), ("head", _named("LogisticRegression")(**PROMISE))]),
    "ColumnTransformer": lambda c: c(
        [("scale", _named("StandardScaler")(), [0, 1])], remainder=_named("MinMaxScaler")()
    ),
    "FeatureUnion": lambda c: c([("a", _named("StandardScaler")()), ("b", _named("KBinsDiscretizer")(4))]),
    "GridSearchCV": lambda c: c(_named("Ridge")(), {"alpha": [0.1, 10.0, 1000.0]}, cv=3),
    "RandomizedSearchCV": lambda c: c(_named("Ridge")(), {"alpha": [0.1, 10.0, 1000.0]}, n_iter=2, cv=3),
    "ContextClassifier": lambda c: c(PlainNeighbors(5)),
    "ContextRegressor": lambda c: c(PlainNeighborsRegressor(5)),
    "KMeans": lambda c: c(4),
    "Nystroem": lambda c: c(n_components=6),
    "AdditiveClassifier": lambda c: c(sample_size=100, interactions=2, **PROMISE),
    "AdditiveRegressor": lambda c: c(sample_size=100, interactions=2),
    "GradientBoostingClassifier": lambda c: c(n_estimators=10, max_depth=3, sample_size=100, **PROMISE),
    "GradientBoostingRegressor": lambda c: c(n_estimators=10, max_depth=3, sample_size=100, **PROMISE),
    "ShardedClassifier": lambda c: c(PlainTree(max_depth=4), 5),
    "ShardedRegressor": lambda c: c(PlainTreeRegressor(max_depth=4), 5),
}
PROMISE = {"epsilon": 0.1, "delta": 1e-5}
# The same classes with a claim, a head or an input of another kind.
VARIANTS: dict[str, Callable[[], Any]] = {
    "LogisticRegression, elastic net": lambda: _named("LogisticRegression")(l1_ratio=0.5, C=0.1, **PROMISE),
    "LogisticRegression, newton-cg": lambda: _named("LogisticRegression")(solver="newton-cg", **PROMISE),
    "ShardedClassifier, private": lambda: _named("ShardedClassifier")(
        PlainTree(max_depth=4), 20, aggregation="private", epsilon=4.0, key=None
    ),
}


def _named(name: str) -> type:
    return dict(all_estimators())[name]


def made(name: str, kind: type) -> Any:
    """Return an unfitted instance, certified ones with a promise of epsilon = 0.1."""
    if name in FILLED:
        return FILLED[name](kind)
    plain = kind()
    return kind(**PROMISE) if "epsilon" in plain.get_params() else plain


def given(estimator: Any, X: np.ndarray, y: np.ndarray, text: pl.DataFrame) -> tuple[Any, Any]:
    """Return data that the estimator can use."""
    tags = get_tags(estimator)
    if type(estimator).__name__ in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder", "WOEEncoder"):
        return text, y
    if type(estimator).__name__ == "CategoricalNB":
        return np.column_stack([text[c].rank("dense").to_numpy() for c in text.columns]).astype(float), y
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    if tags.input_tags.positive_only:
        return X - X.min(axis=0), y
    if is_regressor(estimator):
        late = scaled[:, 0] + 0.3 * y
        return scaled[:, 1:], np.exp(0.5 * late) if tags.target_tags.positive_only else late
    return scaled, y


def audit_ours(small: bool) -> None:
    """Delete from every estimator, and audit with all that applies."""
    data = load(small)
    if data is None:
        print("The credit-default data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, y, text = data
    n = min(len(y), 4000 if not small else len(y))
    X, y, text = X[:n], y[:n], text[:n]
    runs = 400 if small else RUNS
    print(f"{n} rows, {max(5, n // 200)} deleted in five requests; {runs} releases a side where there is noise")
    print(f"{'estimator':31} {'claim':17} {'verdict':12} {'true mu':>9} {'certified':>10} {'slack':>6}  how")
    makers = {name: partial(made, name, kind) for name, kind in all_estimators()} | VARIANTS
    for name, make in sorted(makers.items()):
        started = time.perf_counter()
        estimator = make()
        lines = one_of_ours(estimator, *given(estimator, X, y, text), runs)
        print(f"{name:31} {lines}  [{time.perf_counter() - started:.1f} s]", flush=True)


def deleted(estimator: Any, Z: Any, t: Any) -> tuple[Any, np.ndarray]:
    """Return a model after five requests, and the rows that went.

    What learns its features or trees from a sample keeps them in these requests: then the model of all rows has the
    same parameters, and the audit can say what a model would look like that removed nothing.
    """
    ids = np.arange(len(t))
    whole = clone(estimator).fit(Z, t, ids=ids)
    for seed in range(100):
        gone = np.random.default_rng(seed).choice(len(t), max(5, len(t) // 200), replace=False)
        model = deepcopy(whole)
        changed = {step for request in np.array_split(gone, 5) for step in model.delete(request).changed}
        features_stay = not hasattr(model, "steps_") or changed <= {model.steps_[-1][0]}
        if features_stay and getattr(model, "structure_digest_", 0) == getattr(whole, "structure_digest_", 0):
            break
    return model, gone


def one_of_ours(estimator: Any, Z: Any, t: Any, runs: int) -> str:
    """Return one line of the table."""
    model, gone = deleted(estimator, Z, t)
    estimator = same_key(model)  # as the certificate compares: refits draw the samples that this model drew
    retained = np.setdiff1d(np.arange(len(t)), gone)
    gap = audit.exact_gap(model, Z[retained], t[retained], ids=retained)
    verdicts, how = [gap.verdict], ["state" if gap.claim == "exact" else "gap"]
    if gap.claim == "indistinguishable":
        verdicts_, how_ = sampled(model, estimator, Z, t, gone, retained, runs)
        verdicts, how = verdicts + verdicts_, how + how_
    worst = audit.REFUTED if audit.REFUTED in verdicts else gap.verdict
    certified_mu = f"{gap.mu_certified:10.2g}" if gap.claim != "exact" else f"{0:10}"
    slack = f"{gap.slack:6.1f}" if np.isfinite(gap.slack) else f"{'':6}"
    return f"{gap.claim:17} {worst:12} {gap.mu:9.2g} {certified_mu} {slack}  {'; '.join(how)}"


def sampled(
    model: Any, estimator: Any, Z: Any, t: Any, gone: Any, retained: Any, runs: int
) -> tuple[list[str], list[str]]:
    """One published release, and many fresh ones against those of a refit."""
    verdicts, how = [], []
    if _linear(model):
        test = audit.release_test(
            model.release(),
            estimator,
            Z[retained],
            t[retained],
            ids=retained,
            X_deleted=Z[gone],
            y_deleted=t[gone],
            alpha=ALPHA,
        )
        verdicts.append(test.verdict)
        how.append(f"one release z={test.z:.1f} ({test.verdict.lower()}, no-op at {test.effect:.1f})")
    fresh = refit(estimator, Z[retained], t[retained], retained)
    named = hasattr(fresh, "steps_")
    whole = refit(final(fresh), features(fresh, Z), t) if named else refit(estimator, Z, t, np.arange(len(t)))
    whitening = release_factor(fresh) / model.certificate_.sigma
    direction = (audit.private_parameter(whole) - audit.private_parameter(fresh)) @ whitening
    seeds = iter(np.random.SeedSequence().generate_state(3).tolist())
    found = audit.empirical(
        lambda k: audit.draws(model, k),  # as a release, from the operating system
        lambda k: audit.draws(fresh, k, random_state=next(seeds)),
        lambda k: audit.draws(whole, k, random_state=next(seeds)),
        n_runs=runs,
        claim=model.certificate_.mu,
        alpha=ALPHA,
        detect=LEAST if runs >= RUNS else 1.0,
        whitening=whitening,
        direction=direction,
    )
    how.append(
        f"{runs} releases mu_lo={found.mu_lower:.3g} ({found.verdict.lower()}, sees {found.resolution:.3g}; "
        f"no-op {found.mu_nothing:.2g})"
    )
    return [*verdicts, found.verdict], how


def _linear(model: Any) -> bool:
    """Whether a release has the parameters that have noise: not so for trees and for functions of bins."""
    published = final(model.release())
    return hasattr(published, "coef_") and np.size(published.coef_) == np.size(model.private_coef_)


# ------------------------------------------------------- what is used today


def audit_others(small: bool) -> None:
    """Run one suite over every method: distance, black-box samples, membership, differencing."""
    data = load(small)
    if data is None:
        print("The credit-default data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, y, _ = data
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    n, k, runs = (300, 20, 40) if small else (2000, 50, 400)
    full = newton(X, y)
    loss = np.abs(expit(X @ full[:-1] + full[-1]) - y)
    leavers = np.argsort(-loss)[: 4 * k : 4]  # surprising rows: those whose deletion matters
    pool = np.setdiff1d(np.arange(len(y)), leavers)
    print(f"logistic regression, {n} rows drawn anew for each run, {k} surprising rows deleted, {runs} runs a side")
    print("distance: to a refit, in standard errors, without noise; refuted above 0.0237, which noise of 0.1 hides at")
    print("epsilon = 1. rank: of a deleted row, for a holder of both models; 1 is found, also after a perfect refit")
    print(
        f"{'method':17} {'distance':>9} {'eps_lo':>7} {'control':>7} {'LiRA AUC':>9} {'p':>8} {'rank':>6}  refuted by"
    )
    F = X[leavers], y[leavers]

    def run(method: Callable[..., Any], seed: int, some: Any = slice(None)) -> Any:
        rows = np.random.default_rng(seed).choice(pool, n, replace=False)
        G, R = (F[0][some], F[1][some]), (X[rows], y[rows])
        w = newton(np.vstack([G[0], R[0]]), np.append(G[1], R[1]), steps=8)
        return method(w, G, R)

    def logits(method: Callable[..., Any], base: int) -> Callable[[int], Any]:
        start = [base]

        def sample(m: int) -> Any:
            out = np.array([F[0] @ w[:-1] + w[-1] for w in (run(method, start[0] + i) for i in range(m))])
            start[0] += m
            return out[:, :8]  # what the model says about eight of the deleted rows

        return sample

    for method in METHODS:
        bare = ours_bare if method is ours else method
        distance = np.median([away(run(bare, s), run(refitted, s), X, pool, n, s) for s in range(3)])
        pair = logits(method, 10**6), logits(refitted, 2 * 10**6)
        found = audit.empirical(*pair, n_runs=runs, gaussian=False, delta=1e-5, alpha=0.01, detect=1.0)
        control = found.epsilon_control
        member = attacked(method, run, F, small)
        rank = differenced(method, X, y, pool[:n], leavers[k // 2])
        hits = {"distance": distance > 0.1 * PROMISED, "samples": found.refuted, "membership": member.refuted}
        note = ", ".join(name for name, hit in hits.items() if hit) or "-"
        print(
            f"{method.__name__:17} {distance:9.2g} {found.epsilon_lower:7.2f} {control:7.2f} {member.auc:9.3f} "
            f"{member.p_value:8.1g} {rank:6d}  {note}",
            flush=True,
        )
    unlearn_by_statistics(X[:n], y[:n])


def away(w: Any, refit: Any, X: Any, pool: Any, n: int, seed: int) -> float:
    """Distance to the refit on the same rows, in standard errors."""
    rows = np.random.default_rng(seed).choice(pool, n, replace=False)
    table = np.column_stack([X[rows], np.ones(n)])
    factor = np.linalg.cholesky(0.25 * table.T @ table + np.diag(penalty_of(w)))
    return float(np.linalg.norm(factor.T @ (w - refit)))


def attacked(method: Callable[..., Any], run: Any, F: Any, small: bool) -> Any:
    """U-LiRA: of the candidates those that the coins say are trained on, then unlearned; the rest never seen."""
    seeds = iter(range(5 * 10**6, 6 * 10**6))

    def learn(included: Any) -> Any:
        some = np.flatnonzero(included)
        if len(some) < 2:
            return Linear(run(refitted, next(seeds), some)).fit()
        return Linear(run(method, next(seeds), some)).fit()

    shadows, targets = (8, 4) if small else (128, 64)
    return attacks.attack(learn, *F, n_shadows=shadows, n_targets=targets, methods=("lira",), alpha=0.01)["lira"]


def differenced(method: Callable[..., Any], X: Any, y: Any, rows: Any, row: int) -> int:
    """Rank of one deleted row among all candidates for somebody who holds both models."""
    F, R = (X[[row]], y[[row]]), (X[rows], y[rows])
    w = newton(np.vstack([F[0], R[0]]), np.append(F[1], R[1]))
    if method is negative_weights:
        F = (np.vstack([F[0], F[0]]), np.append(F[1], F[1]))  # its partial_fit wants two rows
    before = Linear(ours_before(F, R) if method is ours else w).fit()
    after = Linear(method(w, F, R)).fit()
    before.C = after.C = 1.0
    if np.array_equal(before.w, after.w):
        return len(rows) + 1
    return audit.differencing(before, after, R[0], R[1], X[[row]]).rank_outsider


def unlearn_by_statistics(X: np.ndarray, y: np.ndarray) -> None:
    """Compare partial_fit with negative weights, and a downdated Gram matrix, with refits, bit for bit."""
    print("\nstatistics undone in floating point, against a refit (largest difference of what was learned)")
    gone, retained = np.arange(50), np.arange(50, len(y))
    scaler = PlainScaler().fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scaler.partial_fit(X[gone], sample_weight=-np.ones(50))
            said = f"{np.max(np.abs(scaler.var_ - PlainScaler().fit(X[retained]).var_)):.2g}"
        except ValueError as error:
            said = f"refused: {str(error)[:60]}"
        print(f"  StandardScaler.partial_fit(weight=-1)  {said}")
        bayes = PlainNB().fit(X, y)
        try:
            bayes.partial_fit(X[gone], y[gone], sample_weight=-np.ones(50))
            said = f"{np.max(np.abs(bayes.var_ - PlainNB().fit(X[retained], y[retained]).var_)):.2g}"
        except ValueError as error:
            said = f"refused: {str(error)[:60]}"
        print(f"  GaussianNB.partial_fit(weight=-1)      {said}")
    if find_spec("river"):
        from river import stats

        undone, plain = stats.Var(), stats.Var()
        for value in X[:, 0].tolist():
            undone.update(value)
        for value in X[gone, 0].tolist():
            undone.revert(value)
        for value in X[retained, 0].tolist():
            plain.update(value)
        print(f"  river.stats.Var.revert                 {abs(undone.get() - plain.get()):.2g}")
    gram, exact = X.T @ X - X[gone].T @ X[gone], X[retained].T @ X[retained]
    gap = np.max(np.abs(gram - exact))
    print(f"  Gram matrix, downdated                 {gap:.2g}, bits equal: {np.array_equal(gram, exact)}")
    model = Ridge().fit(X, y)
    model.delete(gone)
    equal = audit.state_equal(model, Ridge().fit(X[retained], y[retained])).equal
    print(f"  certified.linear_model.Ridge           0, bits equal: {equal}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="?", choices=("ours", "others", "all"), default="all")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    with threadpool_limits(1):  # thousands of small systems
        if arguments.which in ("ours", "all"):
            audit_ours(arguments.small)
        if arguments.which in ("others", "all"):
            audit_others(arguments.small)


if __name__ == "__main__":
    main()
