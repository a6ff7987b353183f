"""Fraud among generated card payments: a forest with merchants as categories, and an isolation forest, that delete.

Run ``python models/fraud_forest.py``, or with ``--small`` for fewer payments. Customers are deleted one by one and a
hundred at once; afterwards both models have the bits of a refit on the payments of those who stay.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score

from certified.ensemble import IsolationForest, RandomForestClassifier

NUMBERS = ["amount", "hour", "distance", "payments_today"]


def payments(n: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Return payments of n / 20 customers at 300 merchants in 40 countries, 1.5 % of them fraud, and which are."""
    rng = np.random.default_rng(0)
    merchants, countries = rng.normal(0.0, 1.2, 300), rng.normal(0.0, 0.8, 40)
    merchant, country = rng.zipf(1.3, n) % 300, np.minimum(rng.geometric(0.25, n), 40) - 1
    amount, distance = rng.lognormal(3.5, 1.0, n), rng.exponential(1.0, n) * (1 + 4 * (country > 5))
    hour, today = rng.integers(0, 24, n), rng.poisson(1.5, n)
    score = merchants[merchant] + countries[country] + 0.5 * np.log(amount) + 0.25 * distance + 0.4 * today
    score += 0.8 * (hour < 5) + rng.logistic(size=n)
    fraud = (score > np.quantile(score, 0.985)).astype(int)
    frame = pl.DataFrame(
        {
            "customer": rng.integers(0, n // 20, n),
            "merchant": [f"merchant {k}" for k in merchant],
            "country": [
                None if gone else f"country {k}" for k, gone in zip(country, rng.random(n) < 0.02, strict=True)
            ],
            "amount": amount,
            "hour": hour,
            "distance": distance,
            "payments_today": today,
        }
    )
    return frame, fraud


def seconds(call: object) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    """Fit both models, delete customers, compare with a refit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="4,000 payments instead of 100,000")
    n = 4_000 if parser.parse_args().small else 100_000
    frame, fraud = payments(n)
    cut = n * 3 // 4
    (train, y), (test, y_test) = (frame[:cut], fraud[:cut]), (frame[cut:].drop("customer"), fraud[cut:])
    forest = RandomForestClassifier(100 if n > 4_000 else 20, max_depth=14, class_weight="balanced")
    lonely = IsolationForest()
    print(f"{cut:,} payments of {train['customer'].n_unique():,} customers, {y.mean():.1%} fraud; hold-out {n - cut:,}")
    rng = np.random.default_rng(1)
    for model, columns, targets in ((forest, train.columns, y), (lonely, ["customer", *NUMBERS], None)):
        seen = train[columns]
        fit = seconds(lambda m=model, seen=seen, t=targets: m.fit(seen, t, ids="customer"))
        asked = rng.permutation(model.ids_)[: min(200, len(model.ids_) // 2)]
        one = [seconds(lambda i=i, m=model: m.delete([i])) for i in asked[: len(asked) // 2].tolist()]
        many = seconds(lambda m=model, asked=asked: m.delete(asked[len(asked) // 2 :]))
        retained = rng.permutation(np.flatnonzero(~np.isin(train["customer"].to_numpy(), asked)))  # in any order
        again = clone(model).set_params(key=model.key_)
        refit = seconds(
            lambda m=again, s=seen, t=targets, k=retained: m.fit(s[k], t if t is None else t[k], ids="customer")
        )
        score = model.predict_proba(test)[:, 1] if targets is not None else -model.score_samples(test[NUMBERS])
        print(
            f"{type(model).__name__}: AUC {roc_auc_score(y_test, score):.4f}, average precision "
            f"{average_precision_score(y_test, score):.3f}; fit {fit:.2f} s, one customer "
            f"{1e3 * np.median(one):.1f} ms (mean {1e3 * np.mean(one):.1f}), "
            f"{len(asked) - len(one)} at once {many:.2f} s, refit {refit:.2f} s; "
            f"{'the bits of the refit' if again.state_digest_ == model.state_digest_ else 'NOT THE BITS OF THE REFIT'}"
        )
    print(f"\n{forest.certificate_}")


if __name__ == "__main__":
    main()
