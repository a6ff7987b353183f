"""
Can anybody see that a person was deleted?
==========================================

Ten people are deleted from a model in four ways. An attacker who knows these people measures how well the published
model fits them: the loss at their rows. A model that never saw them is the yardstick. Where the loss stays low, the
model still remembers.
"""

import warnings

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression as PlainLogisticRegression
from style import BLUE, GREEN, GREY, ORANGE, plt

from certified.linear_model import LogisticRegression

X, y = make_classification(400, 40, n_informative=8, flip_y=0.2, random_state=1)


def loss(model, rows):
    """Return the mean log loss of a model at some rows."""
    return -np.log(model.predict_proba(X[rows])[np.arange(len(rows)), y[rows]]).mean()


# %%
# The people are those whom a model without them gets wrong: their presence shows most.
hard = PlainLogisticRegression(C=10.0, max_iter=1000).fit(X[200:], y[200:])
people = np.argsort(-np.abs(hard.predict_proba(X[:200])[:, 1] - y[:200]))[:40].reshape(4, 10)

signal = {"nothing deleted": [], "fine-tuned": [], "certified": [], "refit": []}
for gone in people:
    retained = np.setdiff1d(np.arange(len(y)), gone)
    everybody = PlainLogisticRegression(C=10.0, max_iter=1000, warm_start=True).fit(X, y)
    signal["nothing deleted"].append(loss(everybody, gone))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few steps are meant
        everybody.set_params(max_iter=2).fit(X[retained], y[retained])
    signal["fine-tuned"].append(loss(everybody, gone))

    keeper = LogisticRegression(C=10.0).fit(X, y)
    keeper.delete(gone)
    signal["certified"].append(loss(keeper.release(), gone))

    signal["refit"].append(loss(PlainLogisticRegression(C=10.0, max_iter=1000).fit(X[retained], y[retained]), gone))

# %%
# The certified release fits the deleted people as badly as a model that never saw them.
figure, axes = plt.subplots()
for place, (name, colour) in enumerate(zip(signal, (ORANGE, GREY, BLUE, GREEN), strict=True)):
    axes.barh(place, np.mean(signal[name]), color=colour)
    axes.plot(signal[name], np.full(len(people), place), "k.", markersize=5)
axes.axvline(np.mean(signal["refit"]), color=GREEN, linestyle=":")
axes.set(
    yticks=range(4),
    yticklabels=signal,
    xlabel="mean log loss at the deleted people (higher: less is remembered)",
    title="What a model remembers of ten deleted people",
)
axes.invert_yaxis()
axes.grid(axis="y", visible=False)

# %%
# Bars are means over four groups of ten people; points are the groups.
