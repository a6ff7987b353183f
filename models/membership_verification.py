"""Verify an unlearning by membership inference: could an auditor with shadow models tell who had been deleted?

A bank deletes customers from a default-risk model. The auditor trains shadow models and attacks the model in which
nothing was deleted (the control: the attack has to succeed there), then one that forgot with a certificate, one that
was refitted, and one only fine-tuned, each with U-LiRA: "in" is trained on and then deleted. The exact distance and
the directional test stand beside the attack, because an attack at chance proves nothing.

Run ``python models/membership_verification.py`` with the credit-default data under ``CERTIFIED_DATA`` (default
``../shared/data``), or with ``--small`` on data that scikit-learn bundles. ``--plot FILE`` draws the ROC curves.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import public_data
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as PlainLogisticRegression
from sklearn.pipeline import make_pipeline as plain_pipeline
from sklearn.preprocessing import StandardScaler as PlainScaler

from certified import audit
from certified.audit import attacks, plots
from certified.linear_model import LogisticRegression
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler


def load(small: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Return features and target, or None where the data set is absent."""
    if small:
        return load_breast_cancer(return_X_y=True)
    frame = public_data.credit_default()
    return None if frame is None else (frame.drop("default").to_numpy().astype(np.float64), frame["default"].to_numpy())


def recipe() -> Any:
    """The certified pipeline; a weak penalty, so that single customers show."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=100.0, tol=1e-4))


def plain(max_iter: int = 1000, warm_start: bool = False) -> Any:
    """The same without certificates."""
    return plain_pipeline(PlainScaler(), PlainLogisticRegression(C=100.0, max_iter=max_iter, warm_start=warm_start))


def fine_tuned(X: np.ndarray, y: np.ndarray, candidates: np.ndarray, base: np.ndarray) -> attacks.Learn:
    """Train with the candidates that are in, then make three solver steps on the retained rows: what many do."""

    def learn(included: np.ndarray) -> Any:
        model = plain(warm_start=True)
        rows = np.append(base, candidates[included])
        model.fit(X[rows], y[rows])
        model[-1].set_params(max_iter=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # three steps are meant
            model[-1].fit(model[:-1].transform(X[base]), y[base])  # the scaler still remembers
        return model

    return learn


def attack_all(X: np.ndarray, y: np.ndarray, sizes: tuple[int, int, int, int]) -> dict[str, Any]:
    """Attack four procedures with the same coins; return the result of LiRA for each."""
    n_base, n_candidates, n_shadows, n_targets = sizes
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(y))
    base = rows[:n_base]
    # Candidates are customers whom a model without them gets wrong: their presence shows most.
    model = plain().fit(X[base], y[base])
    others = rows[n_base:]
    wrong = np.abs(model.predict_proba(X[others])[:, 1] - y[others])
    candidates = others[np.argsort(-wrong)[:n_candidates]]
    where = {"candidates": candidates, "base": base}
    some = {"n_shadows": n_shadows, "n_targets": n_targets, "methods": ("lira",), "alpha": 0.01}
    target = X[candidates], y[candidates]
    control = attacks.attack(attacks.trained(plain(), X, y, **where), *target, **some)
    learners = {
        "certified": attacks.unlearned(recipe(), X, y, **where),
        "refitted": lambda included: plain().fit(X[base], y[base]),
        "fine-tuned": fine_tuned(X, y, **where),
    }
    found = {name: attacks.attack(learn, *target, control=control, **some) for name, learn in learners.items()}
    return {"nothing deleted": control["lira"], **{name: result["lira"] for name, result in found.items()}}


def white_box(X: np.ndarray, y: np.ndarray, n: int, n_deleted: int) -> None:
    """Print what needs no attack: the exact distance, and the test of one release."""
    X, y = X[:n], y[:n]
    model = recipe().fit(X, y)
    before = model.release()
    model.delete(range(n_deleted))
    retained = model.ids_
    gone = {"X_deleted": X[:n_deleted], "y_deleted": y[:n_deleted]}
    print(audit.exact_gap(model, X[retained], y[retained], ids=retained))
    for name, release in (
        ("after the deletion", model.release()),
        ("before it, as if nothing had been removed", before),
    ):
        test = audit.release_test(release, recipe(), X[retained], y[retained], ids=retained, alpha=0.01, **gone)
        print(f"release {name}: {test.verdict}. {test.reason}")


def main() -> None:
    """Attack, print a table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="bundled breast-cancer data instead")
    parser.add_argument("--plot", metavar="FILE", help="draw the ROC curves into this file")
    arguments = parser.parse_args()
    data = load(arguments.small)
    if data is None:
        print("The credit-default data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, y = data
    white_box(X, y, len(y) if arguments.small else 10_000, 20 if arguments.small else 200)
    results = attack_all(X, y, (150, 20, 16, 16) if arguments.small else (400, 40, 64, 64))
    print(f"\n{'model':16} {'LiRA AUC':>9} {'p':>9} {'TPR at 1 %':>11}  verdict")
    for name, result in results.items():
        print(f"{name:16} {result.auc:9.3f} {result.p_value:9.2g} {result.tpr_at_1_percent:11.3f}  {result.verdict}")
    if arguments.plot:
        axes = plots.roc_curves(*results.values(), names=list(results), low=1e-2)
        axes.figure.savefig(arguments.plot)
        print(f"ROC curves: {arguments.plot}")


if __name__ == "__main__":
    main()
