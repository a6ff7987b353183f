"""
A glass-box model, before and after
===================================

An additive model shows what it learned: one curve a feature. Here 60 people over seventy leave. The curves show
what changes, and where the model now knows less.
"""

import numpy as np
import polars as pl
from style import BLUE, ORANGE, plt

from certified.additive import AdditiveClassifier

rng = np.random.default_rng(0)
n = 3000
people = pl.DataFrame({"age": rng.integers(20, 85, n), "pressure": rng.normal(125, 15, n).round()})
age, pressure = people["age"].to_numpy(), people["pressure"].to_numpy()
risk = 1 / (1 + np.exp(3.5 - 0.03 * age - 0.00004 * np.maximum(pressure - 120, 0) ** 3))
ill = (rng.random(n) < risk).astype(int)

model = AdditiveClassifier(interactions=0).fit(people, ill)
grid = pl.DataFrame({"age": np.arange(20, 85), "pressure": np.full(65, 125.0)})


def log_odds(release):
    """Return the log-odds along the grid."""
    p = release.predict_proba(grid)[:, 1]
    return np.log(p / (1 - p))


before = log_odds(model.release())

# %%
old_and_ill = np.flatnonzero((age > 70) & (ill == 1))[:60]
print(str(model.delete(old_and_ill)).splitlines()[0])
after = log_odds(model.release())

# %%
figure, axes = plt.subplots()
axes.plot(grid["age"], before, color=ORANGE, label="before")
axes.plot(grid["age"], after, color=BLUE, label="after")
axes.set(xlabel="age", ylabel="log-odds at a pressure of 125", title="What 60 deletions change")
axes.legend()
