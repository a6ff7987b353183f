"""
A sliding window of customers
=============================

A model should know the last six months and nothing else. Each month the new customers come and those of seven
months ago go. The model is never fitted again, and yet it follows the drift as a refit does.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression as PlainLogisticRegression
from style import BLUE, GREY, ORANGE, plt

from certified.linear_model import LogisticRegression


def month(k, n=1500):
    """Return the customers of a month: the effect of the first feature turns around over two years."""
    rng = np.random.default_rng(k)
    X = rng.normal(size=(n, 5))
    p = 1 / (1 + np.exp(-(np.cos(np.pi * k / 24) * 1.5 * X[:, 0] + 0.7 * X[:, 1])))
    return X, (rng.random(n) < p).astype(int), np.array([f"{k:02d}-{i}" for i in range(n)])


# %%
# The first window, then eighteen months of one ``add`` and one ``delete`` each.
start = [np.concatenate(part) for part in zip(*(month(k) for k in range(6)), strict=True)]
model = LogisticRegression(epsilon=1.0).fit(start[0], start[1], ids=start[2])
never = PlainLogisticRegression().fit(start[0], start[1])
followed, refits = [], []
for k in range(6, 24):
    X_new, y_new, ids_new = month(k)
    model.add(X_new, y_new, ids=ids_new)
    model.delete(month(k - 6)[2])
    X_window, y_window, _ = (
        np.concatenate(part) for part in zip(*(month(j) for j in range(k - 5, k + 1)), strict=True)
    )
    followed.append(model.release().coef_[0, 0])
    refits.append(PlainLogisticRegression(tol=1e-10, max_iter=1000).fit(X_window, y_window).coef_[0, 0])

# %%
figure, axes = plt.subplots()
months = np.arange(6, 24)
axes.plot(months, np.full(len(months), never.coef_[0, 0]), color=GREY, linestyle="--", label="never updated")
axes.plot(months, refits, color=ORANGE, linewidth=4, alpha=0.5, label="refit every month")
axes.plot(months, followed, "o-", color=BLUE, markersize=4, label="add and delete, certified releases")
axes.set(xlabel="month", ylabel="coefficient of the first feature", title="Eighteen months without a refit")
axes.legend()
print(f"Largest difference from a refit: {np.abs(np.subtract(followed, refits)).max():.4f}")
print(f"epsilon of the last release: {model.certificate_.epsilon:.2g}, promised: 1")
