"""
A hospital withdraws its consent
================================

Five hospitals share a forest. One of them withdraws. Its patients leave every tree, and what is left is bit for bit
the forest that the other four would have grown.
"""

import numpy as np
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from style import BLUE, ORANGE, plt

from certified.ensemble import RandomForestClassifier

rng = np.random.default_rng(3)
n = 5000
hospital = rng.integers(0, 5, n)
X = rng.normal(size=(n, 6))
X[:, 5] += hospital == 4  # the fifth hospital measures the last value on another scale
ill = (rng.random(n) < 1 / (1 + np.exp(-(X[:, 0] + X[:, 1] * X[:, 2] + 1.5 * (hospital == 4) * X[:, 5])))).astype(int)
train = rng.random(n) < 0.7
patients = np.arange(n)

# %%
# Fit on all, then delete 700 patients at once.
model = RandomForestClassifier(50, max_depth=8, key=1).fit(X[train], ill[train], ids=patients[train])
before = model.release()
leaving = patients[train & (hospital == 4)]
receipt = model.delete(leaving)
print(str(receipt).splitlines()[0])

# %%
# The check: the same bits as a refit with the same key.
stay = train & (hospital != 4)
refit = clone(model).fit(X[stay], ill[stay], ids=patients[stay])
print("same state as a refit:", model.state_digest_ == refit.state_digest_)

# %%
# For the four that stay nothing is lost. The fifth loses what only its own patients could teach.
after = model.release()
figure, axes = plt.subplots()
width = 0.38
for shift, release, name, colour in ((-width / 2, before, "before", ORANGE), (width / 2, after, "after", BLUE)):
    aucs = []
    for h in range(5):
        rows = ~train & (hospital == h)
        aucs.append(roc_auc_score(ill[rows], release.predict_proba(X[rows])[:, 1]))
    axes.bar(np.arange(5) + shift, aucs, width, label=name, color=colour)
axes.set(
    ylim=(0.5, 1),
    xticks=range(5),
    xticklabels=[f"hospital {h + 1}" for h in range(4)] + ["withdrawn"],
    ylabel="AUC on patients not used for the fit",
    title="Before and after one hospital leaves",
)
axes.legend(ncols=2)
axes.grid(axis="x", visible=False)
