"""A glass box for income (adult): every prediction read off plots, and people leave it with a certificate.

Run ``python models/glass_box.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/glass_box.py --small`` on data that scikit-learn bundles. ``--plots FOLDER`` draws the shape functions
(needs matplotlib).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import public_data
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from certified.additive import AdditiveClassifier

LEFT_OUT = ["income", "fnlwgt", "education_num", "race", "sex", "native_country"]


def load() -> tuple[pl.DataFrame, np.ndarray] | None:
    """Return the people of the training set and whether they earn more than 50,000; None where the data are absent."""
    frame = public_data.adult()
    return None if frame is None else (frame.drop(LEFT_OUT), (frame["income"] == ">50K").to_numpy().astype(int))


def bundled() -> tuple[pl.DataFrame, np.ndarray]:
    """Return four measurements of scikit-learn's breast cancer data, a fifth of one of them missing."""
    data = load_breast_cancer(as_frame=True)
    frame = pl.from_pandas(data.data.iloc[:, :4])
    gap = pl.Series(np.random.default_rng(0).random(len(frame)) < 0.2)
    return frame.with_columns(pl.when(~gap).then(pl.col("mean texture")).alias("mean texture")), data.target.to_numpy()


def main() -> None:
    """Fit, explain, delete, compare with a refit, release."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="data that scikit-learn bundles")
    parser.add_argument("--deletions", type=int, default=100)
    parser.add_argument("--plots", type=Path, help="folder for the shape functions")
    options = parser.parse_args()
    data = bundled() if options.small else load()
    if data is None:
        print("The adult data are not here (set CERTIFIED_DATA). Skipped; --small takes bundled data.")
        return
    frame, y = data
    train, test = train_test_split(np.arange(len(y)), test_size=0.25, random_state=0, stratify=y)
    parameters: dict[str, Any] = {"interactions": 2 if options.small else 10}
    started = time.perf_counter()
    model = AdditiveClassifier(**parameters).fit(frame[train], y[train], ids=train)
    fit = time.perf_counter() - started
    print(f"{len(train):,} people, {len(model.term_names_)} terms, fit {fit:.2f} s")
    shapes = sorted(model.shape_functions_, key=lambda shape: -shape.importance)
    print("log-odds by term:", ", ".join(f"{shape.name} {shape.importance:.2f}" for shape in shapes[:6]))
    print(model.explain().filter(pl.col("term") == shapes[0].name).drop("second_bin").head(8))
    person = frame[test[:1]]
    adds = dict(zip(model.term_names_, model.eval_terms(person)[0].round(2).tolist(), strict=True))
    print(f"one person: {model.baseline_:.2f} + {adds}")

    times, stayed = [], 0
    for person_id in np.random.default_rng(0).permutation(train)[: 10 if options.small else options.deletions]:
        started = time.perf_counter()
        stayed += model.delete([person_id]).changed == ("head",)
        times.append(time.perf_counter() - started)
    median = float(np.median(times))
    print(
        f"{len(times)} deletions: median {1000 * median:.1f} ms, a refit {fit / median:.0f}x; bins stayed in {stayed}"
    )
    retained = np.flatnonzero(np.isin(np.arange(len(y)), model.ids_))
    refit = AdditiveClassifier(**parameters, noise=0).fit(frame[retained], y[retained], ids=retained)
    same = model.steps_[0][1].state_digest_ == refit.steps_[0][1].state_digest_
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    true = float(np.sqrt(gap @ model.noise_metric_ @ gap))
    found = model.certificate_
    print(f"bins, smoothness and pairs are those of a fresh fit, bit for bit: {same}")
    print(f"distance to it: certified {found.distance_bound:.2e}, true {true:.2e}; mu {found.mu:.3f}")
    published = model.release()
    auc = [roc_auc_score(y[test], m.predict_proba(frame[test])[:, 1]) for m in (published, refit)]
    print(f"AUC: released {auc[0]:.4f}, refit without noise {auc[1]:.4f}")
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        for k, shape in enumerate(shapes):
            model.plot(shape.name).figure.savefig(options.plots / f"{k:02}.png", dpi=100)


if __name__ == "__main__":
    main()
