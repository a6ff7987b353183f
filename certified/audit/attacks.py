"""Membership inference on any scikit-learn-compatible model: LiRA and U-LiRA, RMIA, loss threshold; canaries.

An attack sees a model and guesses, record by record, who was in its training data. To audit unlearning, a record that
is "in" was trained on *and deleted again*; one that is "out" was never there. If a fair coin per record decides, a
model that unlearned exactly knows nothing about the coins, and no attack can do better than chance. The same functions
attack records that stay, whose exposure a deletion can raise.

``learn(included)`` stands for the whole procedure: given which candidate records are in, it returns a fitted model.
:func:`trained` and :func:`unlearned` make one from an estimator.

References
----------
Carlini et al. (2022), "Membership inference attacks from first principles".
Hayes et al. (2024), "Inexact unlearning needs more careful evaluations".
Zarifzadeh, Liu, Shokri (2024), "Low-cost high-power membership inference attacks".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_expit
from scipy.stats import norm
from sklearn.base import clone, is_classifier

from certified.audit._membership import Membership, membership
from certified.errors import InvalidInput
from certified.progress import track
from certified.typing import BoolArray, FloatArray

__all__ = [
    "METHODS",
    "Shadows",
    "attack",
    "canary",
    "coins",
    "lira",
    "loss_threshold",
    "record_scores",
    "retained",
    "ridge_predictions",
    "rmia",
    "shadows",
    "trained",
    "unlearned",
]

_FLOOR = 1e-45
METHODS = ("lira", "rmia", "loss")
Learn = Callable[[BoolArray], Any]


@dataclass(frozen=True)
class Shadows:
    """Scores of candidate records under models that had them and models that had not.

    Attributes
    ----------
    member : bool array of shape (n_models, n_records)
    score : array of shape (n_models, n_records)
        Log-odds of the true class, or signed residuals.
    density : array of shape (n_models, n_records)
        Probability of the true class, or a Gaussian density of the residual.
    classifier : bool
        Whether the models are classifiers.
    """

    member: BoolArray
    score: FloatArray
    density: FloatArray
    classifier: bool

    def __getitem__(self, models: Any) -> Shadows:
        return Shadows(self.member[models], self.score[models], self.density[models], self.classifier)


def coins(n_models: int, n_records: int, seed: int = 0) -> BoolArray:
    """Return fair coins, shape (n_models, n_records)."""
    return np.random.default_rng(seed).random((n_models, n_records)) < 0.5


def trained(estimator: Any, X: Any, y: Any, candidates: Any, base: Any = None) -> Learn:
    """Return ``learn`` for plain training: on the rows `base` and those candidates that are in.

    Parameters
    ----------
    estimator : estimator
    X, y : arrays
    candidates : int array of shape (n_records,)
        Rows that the coins decide about.
    base : int array or None
        Rows that are always in. None: all others.
    """
    X, y, candidates = np.asarray(X), np.asarray(y), np.asarray(candidates)
    always = _others(len(y), candidates, base)

    def learn(included: BoolArray) -> Any:
        rows = np.append(always, candidates[included])
        return clone(estimator).fit(X[rows], y[rows])

    return learn


def unlearned(estimator: Any, X: Any, y: Any, candidates: Any, base: Any = None, release: bool = True) -> Learn:
    """Return ``learn`` for training with the candidates that are in, and deleting them again.

    The estimator has ``fit(X, y, ids=...)`` and ``delete(ids)``; the other parameters are those of :func:`trained`.
    What is attacked is its ``release()``, if it has one.
    """
    X, y, candidates = np.asarray(X), np.asarray(y), np.asarray(candidates)
    always = _others(len(y), candidates, base)

    def learn(included: BoolArray) -> Any:
        gone = candidates[included]
        rows = np.append(always, gone)
        model = clone(estimator).fit(X[rows], y[rows], ids=rows)
        if len(gone):
            model.delete(gone)
        return model.release() if release and hasattr(model, "release") else model

    return learn


def retained(
    estimator: Any, X: Any, y: Any, candidates: Any, deleted: Any, base: Any = None, release: bool = True
) -> Learn:
    """Return ``learn`` for records that stay: the candidates that are in are kept, the rows `deleted` go.

    So the attacks measure how exposed retained records are after a deletion; compare with the same for :func:`trained`.
    The other parameters are those of :func:`unlearned`; `base` should not hold the rows of `deleted`.
    """
    X, y, candidates, deleted = np.asarray(X), np.asarray(y), np.asarray(candidates), np.asarray(deleted)
    always = np.setdiff1d(_others(len(y), candidates, base), deleted)

    def learn(included: BoolArray) -> Any:
        rows = np.concatenate([always, candidates[included], deleted])
        model = clone(estimator).fit(X[rows], y[rows], ids=rows)
        model.delete(deleted)
        return model.release() if release and hasattr(model, "release") else model

    return learn


def _others(n: int, candidates: Any, base: Any) -> Any:
    return np.setdiff1d(np.arange(n), candidates) if base is None else np.asarray(base)


def record_scores(model: Any, X: Any, y: Any) -> FloatArray:
    """Return what LiRA looks at, one number per record.

    Classifiers: log-odds of the true class, ``log p_y - log sum of the others``. Regressors: the residual with its
    sign.
    """
    if not is_classifier(model):
        return np.asarray(y, dtype=np.float64) - np.asarray(model.predict(X), dtype=np.float64)
    classes = np.asarray(model.classes_)
    known = np.isin(y, classes)
    column = np.searchsorted(classes, np.where(known, y, classes[0]))
    p = np.asarray(model.predict_proba(X), dtype=np.float64)
    mine = np.where(known, p[np.arange(len(p)), column], 0.0)
    p[np.arange(len(p))[known], column[known]] = 0.0
    return np.log(mine + _FLOOR) - np.log(p.sum(axis=1) + _FLOOR)


def shadows(learn: Learn, X: Any, y: Any, member: BoolArray) -> Shadows:
    """Run the procedure once for each row of `member` and score the candidates.

    Parameters
    ----------
    learn : callable
        See :func:`trained` and :func:`unlearned`.
    X, y : arrays
        The candidate records, in the order of the columns of `member`.
    member : bool array of shape (n_models, n_records)
        See :func:`coins`.
    """
    models = [learn(included) for included in track(member, "models")]
    score = np.array([record_scores(model, X, y) for model in models])
    classifier = is_classifier(models[0])
    return Shadows(member, score, densities(score, classifier), classifier)


def densities(score: FloatArray, classifier: bool) -> FloatArray:
    """Return probabilities of the truth: of the true class, or Gaussian densities of residuals of one common scale."""
    if classifier:
        return np.exp(log_expit(score))
    scale = float(np.median(np.abs(score))) / 0.6745 or 1.0
    return norm.pdf(score / scale)


def lira(
    target: FloatArray, references: Shadows, *, offline: bool = False, own_variance: bool | None = None
) -> FloatArray:
    """Return the likelihood ratio attack's scores, shape like `target`; high for "was in".

    Parameters
    ----------
    target : array of shape (n_targets, n_records) or (n_records,)
        :func:`record_scores` of the models that are attacked.
    references : Shadows
        Models other than the targets.
    offline : bool
        Use only models that never had the record: two-sided distance from what they say.
    own_variance : bool or None
        One variance per record rather than a common one. None: from 64 models on.
    """
    own = len(references.member) >= 64 if own_variance is None else own_variance
    inside, outside = (_gaussian(references.score, side, own) for side in (references.member, ~references.member))
    ratio = norm.logpdf(target, *outside)
    return -ratio if offline else norm.logpdf(target, *inside) - ratio


def _gaussian(score: FloatArray, side: BoolArray, own: bool) -> tuple[FloatArray, FloatArray]:
    """Median and deviation of each record over the models of one side."""
    if (side.sum(axis=0) < 2).any():
        raise InvalidInput("lira got a record that fewer than two reference models had, or had not. Use more models.")
    held = np.where(side, score, np.nan)
    centre, spread = np.nanmedian(held, axis=0), np.nanstd(held, axis=0)
    if not own:
        spread = np.full_like(spread, float(np.sqrt(np.nanmean(spread**2))))
    return centre, np.maximum(spread, 1e-12)


def rmia(
    target: FloatArray, references: Shadows, *, gamma: float = 1.0, offline: bool = False, a: float = 0.3
) -> FloatArray:
    """Return the robust attack's scores: in how many of pairwise comparisons a record is `gamma` times likelier.

    Parameters
    ----------
    target : array of shape (n_targets, n_records) or (n_records,)
        Densities (:func:`densities`) under the models that are attacked.
    references : Shadows
        A few are enough.
    gamma : float
    offline : bool
        Estimate the mean density from models without the record: ``((1 + a) mean + 1 - a) / 2``.
    a : float
    """
    if offline:
        if references.member.all(axis=0).any():
            raise InvalidInput("rmia got a record that every reference model had. Use more models, or offline=False.")
        mean = np.nanmean(np.where(references.member, np.nan, references.density), axis=0)
        mean = 0.5 * ((1 + a) * mean + (1 - a))
    else:
        mean = references.density.mean(axis=0)
    ratio = np.atleast_2d(target) / np.maximum(mean, _FLOOR)
    ordered = np.sort(ratio, axis=1)
    share = [np.searchsorted(row, one / gamma, side="left") for row, one in zip(ordered, ratio, strict=True)]
    return (np.array(share) / ratio.shape[1]).reshape(np.shape(target))


def loss_threshold(score: FloatArray, classifier: bool) -> FloatArray:
    """Return the plain attack's scores, minus the loss of each record: weak, and a baseline only."""
    return np.asarray(score) if classifier else -np.abs(score)


def attack(
    learn: Learn,
    X: Any,
    y: Any,
    *,
    n_shadows: int = 64,
    n_targets: int = 16,
    methods: tuple[str, ...] = METHODS,
    groups: Any = None,
    control: dict[str, Membership] | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> dict[str, Membership]:
    """Attack a procedure with every method; the shadow models are shared between them.

    Shadows and targets are made by the same `learn`, with coins of their own: the attacker knows the algorithm
    (U-LiRA). So each record has an attacker of its own, and the p-values are right.

    Parameters
    ----------
    learn, X, y
        As in :func:`shadows`.
    n_shadows, n_targets : int
    methods : tuple of {"lira", "rmia", "loss"}
    groups : array of shape (n_records,) or None
    control : dict of Membership or None
        The result of the same call for :func:`trained`, in which the attacks should succeed.
    alpha : float
        For each method.
    seed : int

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> rows = np.arange(40)
    >>> learn = trained(KNeighborsRegressor(2), X, y, candidates=rows)
    >>> found = attack(learn, X[rows], y[rows], n_shadows=16, n_targets=4)
    >>> found["lira"].verdict
    'REFUTED'
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise InvalidInput(f"attack got the methods {unknown}. {METHODS} are there.")
    half = coins((n_shadows + 1) // 2, len(y), seed)
    balanced = np.vstack([half, ~half])[:n_shadows]  # of the shadows, half have each record
    member = np.vstack([balanced, coins(n_targets, len(y), seed + 1)])
    found = shadows(learn, X, y, member)
    references, targets = found[:n_shadows], found[n_shadows:]
    scores = {
        "lira": lambda: lira(targets.score, references),
        "rmia": lambda: rmia(targets.density, references),
        "loss": lambda: loss_threshold(targets.score, targets.classifier),
    }
    return {
        name: membership(
            scores[name](),
            targets.member,
            method=name,
            groups=groups,
            alpha=alpha,
            control=None if control is None else control[name],
        )
        for name in methods
    }


def ridge_predictions(X: Any, y: Any, member: BoolArray, base: Any, candidates: Any, alpha: float = 1.0) -> FloatArray:
    """Return what ridge regressions say about the candidates, one model per row of `member`, from one Gram matrix.

    Parameters
    ----------
    X, y : arrays
    member : bool array of shape (n_models, n_candidates)
    base, candidates : int arrays
        Rows that are always in, and rows that the coins decide about.
    alpha : float
        Penalty of the coefficients; the intercept has none.

    Returns
    -------
    array of shape (n_models, n_candidates)
    """
    table = np.column_stack([np.asarray(X, dtype=np.float64), np.ones(len(y))])
    always, some = table[base], table[candidates]
    penalty = np.diag(np.append(np.full(table.shape[1] - 1, alpha), 0.0))
    weight = member.astype(np.float64)
    gram = always.T @ always + penalty + np.einsum("tk,ki,kj->tij", weight, some, some, optimize=True)
    right = always.T @ y[base] + (weight * y[candidates]) @ some
    return np.linalg.solve(gram, right[..., None])[..., 0] @ some.T


def canary(X: Any, y: Any, *, classifier: bool, norm_bound: float | None = None) -> tuple[FloatArray, Any]:
    """Return a row and a target that pull a linear model hard: where the data hardly hold it, and against them.

    Parameters
    ----------
    X : array of shape (n_rows, n_features)
    y : array of shape (n_rows,)
    classifier : bool
        Flip the class that the nearest direction suggests, rather than go to the far end of the targets.
    norm_bound : float or None
        Length of the row around the mean; None: that of the longest.

    Examples
    --------
    >>> x, target = canary([[0.0, 0.0], [2.0, 0.1], [4.0, 0.0]], [0.0, 1.0, 2.0], classifier=False)
    >>> bool(abs(x[1] - 0.03) > 1)
    True
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
    centred = X - X.mean(axis=0)
    length = float(np.linalg.norm(centred, axis=1).max()) if norm_bound is None else norm_bound
    direction = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    codes = np.unique(y, return_inverse=True)[1] if classifier else y
    slope = np.linalg.lstsq(centred, codes - codes.mean(), rcond=None)[0]
    along = float(direction @ slope)
    row = X.mean(axis=0) + length * (direction if along >= 0 else -direction)
    if classifier:
        return row, np.unique(y)[0]  # the fit says a high code here
    return row, y.min()
