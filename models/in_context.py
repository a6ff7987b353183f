"""Deleting in context on heart disease: leave the patient out of the context, or tell the model to think otherwise.

A learner that reads its context when it is asked (neighbours, kernels, transformers for tables) deletes when the row
leaves the context. Prompt-based unlearning (Pawelczyk et al. 2023) instead keeps the row and turns its label, so that
the model says something else about it. Run ``python models/in_context.py`` with the data under ``CERTIFIED_DATA``
(default ``../shared/data``), or ``python models/in_context.py --small`` on data that scikit-learn bundles.
"""

from __future__ import annotations

import argparse
import pickle
from typing import Any

import numpy as np
import public_data
from sklearn.datasets import load_breast_cancer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from certified.neighbors import ContextClassifier, KNeighborsClassifier
from certified.pipeline import make_pipeline as certified_pipeline
from certified.preprocessing import StandardScaler as CertifiedScaler


def load() -> tuple[np.ndarray, np.ndarray] | None:
    """Return 13 measurements and whether there is disease, or None where the data set is absent."""
    frame = public_data.heart_cleveland()
    if frame is None:
        return None
    table = frame.drop_nulls().to_numpy().astype(np.float64)
    return table[:, :-1], (table[:, -1] > 0).astype(int)


def learners() -> dict[str, Any]:
    """Neighbours behind a scaler that deletes, and a Gaussian process whose scaler is a part of the learner."""
    kernel = make_pipeline(StandardScaler(), GaussianProcessClassifier(1.0 * RBF(4.0), optimizer=None, random_state=0))
    return {
        "9 neighbours": certified_pipeline(CertifiedScaler(), KNeighborsClassifier(9)),
        "Gaussian process": ContextClassifier(kernel),
    }


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Mean change of a probability."""
    return float(np.abs(before[:, 1] - after[:, 1]).mean())


def main() -> None:
    """Delete patients from the context, turn their labels instead, and compare both with a refit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="bundled breast-cancer data instead")
    data = load_breast_cancer(return_X_y=True) if parser.parse_args().small else load()
    if data is None:
        print("The heart-disease data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, X_test, y, y_test = train_test_split(*data, test_size=0.25, random_state=0, stratify=data[1])
    gone = np.random.default_rng(0).choice(len(y), 10, replace=False)
    retained = np.setdiff1d(np.arange(len(y)), gone)
    turned = np.where(np.isin(np.arange(len(y)), gone), 1 - y, y)
    print(f"{len(y)} patients in the context, {len(gone)} of them leave; hold-out {len(y_test)}")
    print("learner           how            accuracy  from a refit: on the patients  on others  their rows are kept")
    for name, learner in learners().items():
        refit = fitted(learner, X[retained], y[retained], retained)
        ways = {how: fitted(learner, X, y) for how in ("as it was", "deleted")}
        ways["label turned"] = fitted(learner, X, turned)
        ways["deleted"].delete(gone)
        for how, model in ways.items():
            dump = pickle.dumps(model)
            there = any(X[i].tobytes() in dump for i in gone)
            patients, others = (moved(model.predict_proba(x), refit.predict_proba(x)) for x in (X[gone], X_test))
            print(
                f"{name:17} {how:14} {model.score(X_test, y_test):8.3f} {patients:30.4f} {others:10.4f} "
                f"{'yes' if there else 'no':>20}"
            )
        same = ways["deleted"].state_digest_ == refit.state_digest_
        print(f"{'':17} after the deletion the state is {'that' if same else 'NOT that'} of a refit, bit for bit")


def fitted(learner: Any, X: np.ndarray, y: np.ndarray, ids: Any = None) -> Any:
    """Return a fitted copy."""
    return pickle.loads(pickle.dumps(learner)).fit(X, y, ids=ids)


if __name__ == "__main__":
    main()
