"""An independent referee: the partial likelihood as it is written in a book, term by term, in extended precision."""

from typing import Any

import numpy as np
import numpy.typing as npt

Long = np.longdouble


def terms(y: Any, weight: Any, stratum: Any, ties: str) -> list[tuple[Any, Any]]:
    """Return (factor, weights of the rows) of each ``log sum_j``: all rows at risk, of ties only a part."""
    y, weight, stratum = np.asarray(y, dtype=float), np.asarray(weight, dtype=Long), np.asarray(stratum)
    out = []
    for label in np.unique(stratum):
        inside = (stratum == label) & (weight > 0)
        for time in np.unique(y[inside & (y[:, 0] == 1), 1]):
            at_risk = inside & (y[:, 1] >= time)
            tied = inside & (y[:, 1] == time) & (y[:, 0] == 1)
            d = int(tied.sum())
            for rank in range(d):
                part = Long(rank) / d if ties == "efron" else Long(0)
                out.append((weight[tied].sum() / d, weight * (at_risk - part * tied)))
    return out


def derivatives(X: Any, y: Any, weight: Any, stratum: Any, ties: str, alpha: float, w: Any) -> tuple[Any, Any, Any]:
    """Return value, gradient and Hessian of the objective at w."""
    X, w = np.asarray(X, dtype=Long), np.asarray(w, dtype=Long)
    y, weight = np.asarray(y, dtype=float), np.asarray(weight, dtype=Long)
    z = X @ w
    seen = weight * (y[:, 0] == 1)
    value, gradient = Long(alpha) / 2 * w @ w - seen @ z, Long(alpha) * w - X.T @ seen
    hessian = Long(alpha) * np.eye(len(w), dtype=Long)
    for factor, part in terms(y, weight, stratum, ties):
        e = part * np.exp(z - z.max())
        value = value + factor * (np.log(e.sum()) + z.max())
        share = e / e.sum()
        mean = share @ X
        gradient = gradient + factor * mean
        hessian = hessian + factor * ((X - mean).T * share) @ (X - mean)
    return value, gradient, hessian


def minimiser(X: Any, y: Any, weight: Any, stratum: Any, ties: str, alpha: float, start: Any) -> npt.NDArray[Any]:
    """Return the minimiser, by Newton's method from a point nearby."""
    X = np.asarray(X, dtype=Long)
    X = X - X[0]  # the minimiser is that of any shift; a constant column is then 0, and tells nothing by rounding
    w = np.asarray(start, dtype=Long)
    for _ in range(60):
        _, gradient, hessian = derivatives(X, y, weight, stratum, ties, alpha, w)
        step = np.linalg.solve(hessian.astype(float), gradient.astype(float))
        size = float(np.sqrt(step @ hessian.astype(float) @ step))
        w = w - step / (1 + size if size > 0.1 else 1)
        if size < 1e-17:
            break
    return w


def example(seed: int) -> dict[str, Any]:
    """Random rows with ties, weights, strata, censored times, and features of several sizes."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(8, 40)), int(rng.integers(1, 5))
    X = rng.normal(size=(n, p)) * 10.0 ** rng.uniform(-2, 2, p) + rng.normal(size=p) * 10.0 ** rng.uniform(-1, 2)
    if seed % 5 == 0:
        X = np.round(X)
        X[0] += 1.0  # no column is constant
    time = rng.exponential(1.0, n) + 0.01
    if seed % 2:
        time = np.ceil(time * 3)
    event = rng.random(n) < rng.uniform(0.2, 1.0)
    event[:3] = True
    weight = np.ones(n) if seed % 3 else rng.uniform(0.1, 5.0, n)
    if seed % 7 == 0:
        weight[3:6] = 0.0
    return {
        "X": X,
        "y": np.column_stack([event, time]),
        "ids": np.arange(n) // (1 + seed % 2),
        "weight": weight,
        "stratum": rng.integers(0, 1 + seed % 3, n),
        "ties": ("efron", "breslow")[seed // 2 % 2],
        "alpha": float(10.0 ** rng.uniform(-2, 2)),
        "rng": rng,
    }


def worst_ratio(seed: int) -> float:
    """Fit, delete, refine; return the largest distance to the referee's minimiser as a share of the certificate's."""
    from certified.errors import CannotCertify
    from certified.survival import CoxPH

    case = example(seed)
    rng, ids = case["rng"], case["ids"]
    known = {name: case[name] for name in ("ties", "alpha")}
    noise = float(rng.choice([0.1, 0.3, 1.0]))
    worst = 0.0
    try:
        model = CoxPH(noise=noise, **known)
        model.fit(case["X"], case["y"], ids=ids, sample_weight=case["weight"], strata=case["stratum"])
        for act in ("fit", "delete", "delete", "refine"):
            if act == "delete":
                size = int(rng.integers(1, max(2, len(model.ids_) // 4)))
                model.delete(rng.choice(model.ids_, size, replace=False))
            elif act == "refine":
                model.refine()
            left = np.isin(ids, model.ids_)
            rows = (case["X"][left], case["y"][left], case["weight"][left], case["stratum"][left])
            exact = minimiser(*rows, case["ties"], case["alpha"], model.private_coef_)
            gap = (model.private_coef_ - exact).astype(float)
            distance = float(np.sqrt(gap @ model.noise_metric_ @ gap))
            worst = max(worst, distance / model.certificate_.distance_bound)
    except CannotCertify:  # refused: nothing is claimed
        return worst
    return worst
