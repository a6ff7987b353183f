"""
A biased slice of the data leaves
=================================

For two years one branch refused half of its good customers of group B by mistake. Those decisions are in the
training data. Deleting them repairs the model, without a refit and with a certificate.
"""

import numpy as np
from style import BLUE, ORANGE, plt

from certified.linear_model import LogisticRegression

rng = np.random.default_rng(0)
n = 8000
group_b = rng.random(n) < 0.4
score = rng.normal(size=n)
good = rng.random(n) < 1 / (1 + np.exp(-1.5 * score))
branch = rng.random(n) < 0.4
decision = good & ~(branch & group_b & (rng.random(n) < 0.5))
X = np.column_stack([score, group_b])

# %%
# The decisions of that branch on group B are the biased slice.
model = LogisticRegression(epsilon=1.0).fit(X, decision.astype(int))
before = model.release()
receipt = model.delete(np.flatnonzero(branch & group_b))
after = model.release()
print(str(receipt).splitlines()[0])

# %%
# Accepted shares among customers who are equally good.
levels = np.linspace(-2, 2, 60)
figure, panels = plt.subplots(1, 2, sharey=True, figsize=(8, 4))
for axes, release, title in zip(panels, (before, after), ("before", "after"), strict=True):
    for flag, name, colour in ((0, "group A", BLUE), (1, "group B", ORANGE)):
        p = release.predict_proba(np.column_stack([levels, np.full(60, flag)]))[:, 1]
        axes.plot(levels, p, color=colour, label=name)
    axes.set(title=title, xlabel="score of the customer")
panels[0].set_ylabel("probability of a positive decision")
panels[0].legend()
for release, title in ((before, "before"), (after, "after")):
    gap = release.coef_[0, 1]
    print(f"{title}: log-odds of group B against group A at the same score {gap:+.2f}")
