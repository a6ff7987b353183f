"""Income (adult census): people leave a whole pipeline, and a search for its parameters that deletes them too.

Run ``python models/income.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/income.py --small`` on people who are made up. ``--deletions`` says how many leave one by one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import public_data
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import FunctionTransformer

from certified.compose import make_column_transformer
from certified.linear_model import LogisticRegression
from certified.model_selection import GridSearchCV
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

CURVES, MONEY = ["age", "hours"], ["capital_gain", "capital_loss"]
TEXT = ["workclass", "marital_status", "occupation", "relationship", "race", "sex", "country"]


def load() -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """Return the rows to learn from and those to test on; None where the data are absent."""
    parts = [public_data.adult(part) for part in ("data", "test")]
    if any(part is None for part in parts):
        return None
    train, test = (part.rename({"hours_per_week": "hours", "native_country": "country"}) for part in parts)
    return train, test


def made_up(n_rows: int = 3000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows of people who do not exist, with missing text."""
    rng = np.random.default_rng(0)
    age, hours, years = rng.integers(17, 90, n_rows), rng.integers(1, 99, n_rows), rng.integers(1, 17, n_rows)
    gain = np.where(rng.random(n_rows) < 0.08, rng.integers(1000, 99999, n_rows), 0)
    score = 0.3 * (years - 10) + 0.03 * (hours - 40) - 0.002 * (age - 50) ** 2 + (gain > 0) + rng.logistic(size=n_rows)
    frame = pl.DataFrame(
        {
            "age": age,
            "education_num": years,
            "hours": hours,
            "capital_gain": gain,
            "capital_loss": rng.integers(0, 2, n_rows),
            **{
                name: rng.choice(["a", "b", "c", "rare", None], n_rows, p=[0.5, 0.3, 0.13, 0.01, 0.06]) for name in TEXT
            },
            "income": np.where(score > 0.5, ">50K", "<=50K"),
        },
        strict=False,
    )
    return frame[: n_rows * 2 // 3], frame[n_rows * 2 // 3 :]


def split(frame: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the features, with a column of ids, and whether the income is above 50,000."""
    person = pl.Series("person", np.arange(len(frame)))
    features = frame.select(*CURVES, *MONEY, "education_num", *TEXT).with_columns(person)
    return features, (frame["income"] == ">50K").to_numpy().astype(int)


def build(**parameters: Any) -> Pipeline:
    """The pipeline: splines, logarithms, rare categories grouped, logistic regression."""
    features = make_column_transformer(
        (
            make_pipeline(
                SplineTransformer(n_knots=6, degree=2, knots="quantile", include_bias=False, sample_size=2000),
                StandardScaler(),
            ),
            CURVES,
        ),
        (make_pipeline(FunctionTransformer(np.log1p, feature_names_out="one-to-one"), StandardScaler()), MONEY),
        (StandardScaler(), ["education_num"]),
        (OneHotEncoder(min_frequency=100, handle_unknown="infrequent_if_exist"), TEXT),
    )
    return make_pipeline(features, LogisticRegression(**parameters))


def search_of(pipeline: Pipeline, small: bool) -> GridSearchCV:
    """The search: how strong the penalty is, over five folds (three for made-up people)."""
    return GridSearchCV(
        pipeline, {"logisticregression__C": [0.01, 0.1, 1.0]}, scoring="neg_log_loss", cv=3 + 2 * (not small)
    )


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long it took, and what came out."""
    started = time.perf_counter()
    out = act()
    return time.perf_counter() - started, out


def leave(model: Any, people: Any) -> tuple[np.ndarray, float]:
    """Delete people one by one; return the times and the share of deletions that changed no feature."""
    found = [timed(lambda person=person: model.delete([person])) for person in people]
    return np.array([took for took, _ in found]), float(np.mean([len(receipt.changed) == 1 for _, receipt in found]))


def compared(live: Pipeline, fresh: Pipeline) -> tuple[bool, float, float]:
    """Return whether the columns are the same bit for bit, the true distance in the noise metric, and its bound."""
    same = live.steps_[0][1].state_digest_ == fresh.steps_[0][1].state_digest_
    gap = np.append(live.private_coef_ - fresh.private_coef_, live.private_intercept_ - fresh.private_intercept_)
    return same, float(np.sqrt(gap @ live.noise_metric_ @ gap)), live.certificate_.distance_bound


def main() -> None:
    """Fit, search, delete people one by one, compare with fresh ones, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="people who are made up")
    parser.add_argument("--deletions", type=int, default=1000)
    parser.add_argument("--search-deletions", type=int, default=30)
    options = parser.parse_args()
    data = made_up() if options.small else load()
    if data is None:
        print("The adult data are not here (set CERTIFIED_DATA). Skipped; --small makes its own.")
        return
    (X, y), (X_test, y_test) = map(split, data)
    X_test = X_test.drop("person")
    n_pipeline = 20 if options.small else options.deletions
    n_search = 4 if options.small else options.search_deletions
    people = np.random.default_rng(0).permutation(len(y))

    build().fit(X, y, ids="person").delete(people[:1])  # compile once
    fit, model = timed(lambda: build().fit(X, y, ids="person"))
    times, unchanged = leave(model, people[:n_pipeline])
    retained = ~np.isin(np.arange(len(y)), people[:n_pipeline])
    fresh = build(noise=0, tol=1e-8).fit(X.filter(retained), y[retained], ids="person")
    same, true, bound = compared(model, fresh)
    median, mean = float(np.median(times)), float(np.mean(times))
    print(f"pipeline: {len(y):,} people, {model.private_coef_.size} features, fit {fit:.2f} s")
    print(f"  {len(times):,} deletions one by one: median {1000 * median:.1f} ms, mean {1000 * mean:.1f} ms; a refit")
    print(f"  takes {fit / median:.0f}x and {fit / mean:.0f}x that; features unchanged in {100 * unchanged:.1f} %")
    print(f"  columns those of a fresh fit, bit for bit: {same}; distance certified {bound:.2e}, true {true:.2e}")
    print(f"  AUC: released {auc(model.release(), X_test, y_test):.4f}, refit {auc(fresh, X_test, y_test):.4f}")

    took, search = timed(lambda: search_of(build(), options.small).fit(X, y, ids="person"))
    times, _ = leave(search, people[:n_search])
    retained = ~np.isin(np.arange(len(y)), people[:n_search])
    again, fresh = timed(lambda: clone(search).fit(X.filter(retained), y[retained], ids="person"))
    exact = search_of(build(noise=0, tol=1e-8), options.small).fit(X.filter(retained), y[retained], ids="person")
    median, mean = float(np.median(times)), float(np.mean(times))
    print(f"search: {len(search.cv_results_['params'])} candidates x {search.n_splits_} folds, {took:.1f} s")
    print(
        f"  {len(times)} deletions one by one: median {median:.2f} s, mean {mean:.2f} s ({again / mean:.1f}x a search)"
    )
    pairs = zip(search._every(), exact._every(), strict=True)
    found = [compared(a, b) for a, b in pairs]
    print(f"  columns of all {len(found)} models those of a fresh search, bit for bit: {all(f[0] for f in found)}")
    print(f"  largest distance certified {max(f[2] for f in found):.2e}, true {max(f[1] for f in found):.2e}")
    print(f"  chosen {search.best_params_}, by a fresh search {fresh.best_params_}; mu {search.certificate_.mu:.3f}")
    print(f"  AUC released {auc(search.release(), X_test, y_test):.4f}")


def auc(model: Any, X: pl.DataFrame, y: np.ndarray) -> float:
    """Return the area under the curve."""
    return float(roc_auc_score(y, model.predict_proba(X)[:, 1]))


if __name__ == "__main__":
    main()
