"""
Insurance: relativities with their uncertainty
==============================================

A claim frequency is priced by relativities: how many times more claims a group has than the base group. A release
carries noise of a tenth of a standard error. The picture shows how small that is beside the uncertainty that the
prices have anyway.
"""

import numpy as np
import polars as pl
from style import BLUE, ORANGE, plt

from certified.compose import make_column_transformer
from certified.linear_model import PoissonRegressor
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder

rng = np.random.default_rng(0)
n = 20_000
groups = ["town", "suburb", "village", "mountain"]
area = rng.choice(groups, n, p=[0.4, 0.35, 0.2, 0.05])
young = rng.choice(["under 25", "25 and older"], n, p=[0.15, 0.85])
years = rng.uniform(0.1, 1.0, n)
true = {"town": 1.0, "suburb": 0.8, "village": 0.6, "mountain": 0.9}
claims = rng.poisson(0.1 * years * np.vectorize(true.get)(area) * np.where(young == "under 25", 1.7, 1.0))
policies = pl.DataFrame({"policy": range(n), "years": years, "area": area, "age": young})

# %%
# Fit with an exposure, delete the policies of 500 holders, release.
columns = make_column_transformer((OneHotEncoder(drop=["town", "25 and older"], sparse_output=False), ["area", "age"]))
model = make_pipeline(columns, PoissonRegressor(alpha=1e-6)).fit(policies, claims, ids="policy", exposure="years")
model.delete(range(500))
release = model.release()

# %%
# The metric of the noise is one over the squared standard errors, so it gives the intervals.
head = release[-1]
error = np.sqrt(np.diag(np.linalg.inv(model[-1].noise_metric_)))[: head.coef_.size]
names = [name.split("__")[1] for name in release[:-1].get_feature_names_out()]
relativity, low, high = (np.exp(head.coef_ + k * error) for k in (0, -1.96, 1.96))
for name, r, a, b in zip(names, relativity, low, high, strict=True):
    print(f"{name:14} {r:.2f}  (95 %: {a:.2f} to {b:.2f})")

# %%
figure, axes = plt.subplots()
axes.hlines(names, low, high, color=BLUE, linewidth=3, label="95 % interval")
axes.plot(relativity, names, "o", color=BLUE, label="release")
truth = [true.get(name.split("_")[1], 1.7) for name in names]
axes.plot(truth, names, "x", color=ORANGE, markersize=9, label="truth of this generated portfolio")
axes.axvline(1, color="black", linewidth=0.8)
axes.set(xscale="log", xlabel="relativity (town, 25 and older: 1)", title="Claim frequency after 500 deletions")
axes.set_xticks([0.5, 0.7, 1, 1.5, 2], ["0.5", "0.7", "1", "1.5", "2"])
axes.minorticks_off()
axes.legend(loc="lower right")
