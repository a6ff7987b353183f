"""
How much accuracy does the noise cost?
======================================

A release of a noisy model carries noise in units of standard errors. Here is what it costs, against the promise
that each release keeps.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from style import BLUE, GREEN, plt

from certified.linear_model import LogisticRegression
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

X, y = load_breast_cancer(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=0, stratify=y)

# %%
# Every model deletes the same twenty patients. A release is drawn thirty times.
noises = [0.01, 0.03, 0.1, 0.3, 1.0]
losses = []
for noise in noises:
    model = make_pipeline(StandardScaler(), LogisticRegression(epsilon=1.0, noise=noise)).fit(X, y)
    model.delete(range(20))
    losses.append([log_loss(y_test, model.release().predict_proba(X_test)) for _ in range(30)])
without = log_loss(y_test, make_pipeline(StandardScaler(), LogisticRegression(noise=0)).fit(X, y).predict_proba(X_test))

# %%
# Up to the default of 0.1, the noise cannot be seen. All five keep epsilon = 1.
figure, axes = plt.subplots()
axes.fill_between(noises, np.percentile(losses, 5, axis=1), np.percentile(losses, 95, axis=1), color=BLUE, alpha=0.25)
axes.plot(noises, np.median(losses, axis=1), "o-", color=BLUE, label="releases: median, and 90 % of them")
axes.axhline(without, color=GREEN, linestyle=":", label="without noise")
axes.set(
    xscale="log",
    xlabel="noise, in standard errors of each coefficient",
    ylabel="log loss on held-out patients",
    title="The price of noise",
)
axes.legend()
