"""Image-to-image completion on digits: a writer's images leave a model that draws the lower half from the upper half.

``python models/image_completion.py [--small] [--figure PATH]``. The images are scikit-learn's own; it does not say who
wrote which, so blocks of consecutive images stand for the writers. Ridge regression with 32 outputs deletes a writer
exactly.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge as PlainRidge

from certified.linear_model import Ridge

WRITERS, HALF, ALPHA = 13, 32, 10.0


def error(model: Any, X: np.ndarray, Y: np.ndarray) -> float:
    """Root of the mean squared error, in grey levels of 0 to 16."""
    return float(np.sqrt(np.mean((model.predict(X) - Y) ** 2)))


def draw(path: str, shown: np.ndarray, rows: dict[str, np.ndarray]) -> None:
    """Write the upper halves with the lower halves of each row below them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (0.8 * len(shown), 0.95 * len(rows))
    figure, axes = plt.subplots(len(rows), len(shown), figsize=size, layout="constrained")
    for line, (name, lower) in zip(axes, rows.items(), strict=True):
        for axis, top, below in zip(line, shown, lower, strict=True):
            axis.imshow(np.append(top, below).reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            axis.axhline(3.5, color="#c2410c", linewidth=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Fit, delete a writer, compare with a refit bit for bit, and see what two releases give away."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a third of the images")
    parser.add_argument("--figure", help="file for a picture, .png or .svg")
    options = parser.parse_args()
    images = load_digits().data[: 600 if options.small else None]
    X, Y = images[:, :HALF], images[:, HALF:]
    writer = np.arange(len(X)) * WRITERS // len(X)
    test = writer == WRITERS - 1
    gone = ~test & (writer == 4)
    retained = ~test & ~gone
    model = Ridge(alpha=ALPHA).fit(X[~test], Y[~test], ids=writer[~test])
    before = model.release()
    started = time.perf_counter()
    receipt = model.delete([4])
    took = time.perf_counter() - started
    refit = Ridge(alpha=ALPHA).fit(X[retained], Y[retained], ids=writer[retained])
    started = time.perf_counter()
    plain = PlainRidge(alpha=ALPHA).fit(X[retained], Y[retained])
    ratio = (time.perf_counter() - started) / took
    same = model.state_digest_ == refit.state_digest_ and np.array_equal(model.coef_, refit.coef_)
    print(
        f"{receipt.n_rows} images of writer 4 deleted in {1e3 * took:.1f} ms; scikit-learn's refit: {ratio:.1f}x that"
    )
    print(f"state and completions are {'' if same else 'NOT '}those of a refit, bit for bit")
    print(f"largest difference from scikit-learn's coefficients: {np.abs(plain.coef_ - model.coef_).max():.1e}")
    print("error in grey levels   before  after")
    for name, rows in {"the writer's images": gone, "images that stay": retained, "a new writer's": test}.items():
        print(f"{name:21} {error(before, X[rows], Y[rows]):8.3f} {error(model, X[rows], Y[rows]):6.3f}")
    change = np.linalg.svd(model.coef_ - before.coef_, compute_uv=False)
    print(f"who holds both releases sees them differ in {np.count_nonzero(change > 1e-9 * change[0])} directions")
    if options.figure:
        some = np.flatnonzero(gone)[:10]
        lower = {"truth": Y[some]}
        lower |= {k: m.predict(X[some]) for k, m in {"before": before, "after": model, "refit": refit}.items()}
        draw(options.figure, X[some], lower)


if __name__ == "__main__":
    main()
