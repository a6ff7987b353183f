"""
A credit scorecard with points
==============================

Banks score with bins and points. Each feature is cut into bins, with a bin of its own for missing values; each bin
gets its weight of evidence; a logistic regression weighs the features. All three parts learn from customers, and
all three forget.
"""

import itertools

import numpy as np
import polars as pl
from style import BLUE, plt

from certified.compose import make_column_transformer
from certified.linear_model import LogisticRegression
from certified.pipeline import make_pipeline
from certified.preprocessing import WOEEncoder

rng = np.random.default_rng(0)
n = 6000
age, income = rng.integers(20, 75, n), rng.lognormal(3.3, 0.5, n)
risk = 1 / (1 + np.exp(0.4 + 0.03 * age + 0.03 * income - 0.8 * (income < 15)))
bad = (rng.random(n) < risk).astype(int)


def bands(values, edges, unit):
    """Return a text for each value: the band that it lies in."""
    between = [f"{a} to {b}" for a, b in itertools.pairwise(edges)]
    names = [f"below {edges[0]}", *between, f"{edges[-1]} and more"]
    return np.array([f"{name} {unit}" for name in names])[np.digitize(values, edges)]


# %%
# The edges are those that the credit department has always used. Nobody's row decides them.
customers = pl.DataFrame(
    {
        "customer": [f"c{i:04d}" for i in range(n)],
        "age": bands(age, [25, 30, 40, 50, 60], "years"),
        "income": pl.Series(bands(income, [15, 25, 35, 50], "thousand")).set(pl.Series(rng.random(n) < 0.1), None),
    }
)

# %%
# Fit, and delete fifty customers.
model = make_pipeline(make_column_transformer((WOEEncoder(), ["age", "income"])), LogisticRegression(epsilon=1.0))
model.fit(customers, bad, ids="customer")
receipt = model.delete([f"c{i:04d}" for i in range(50)])
print(str(receipt).splitlines()[0])

# %%
# Points: 20 more for every doubling of the odds of paying. They come from the release.
release = model.release()
encoder, head = release[0].transformers_[0][1], release[-1]
per_unit = 20 / np.log(2)
rows = []
for j, name in enumerate(["age", "income"]):
    for band in customers[name].unique().sort(nulls_last=True):  # one customer with each band, the rest as it is
        probe = customers.head(1).drop("customer").with_columns(pl.lit(band, dtype=pl.String).alias(name))
        evidence = encoder.transform(probe)[0, j]
        rows.append((name, band or "missing", round(-per_unit * head.coef_[0, j] * evidence)))
points = pl.DataFrame(rows, schema=["feature", "band", "points"], orient="row")
print(points)

# %%
figure, axes = plt.subplots(figsize=(7, 4.5))
axes.barh([f"{f}: {b}" for f, b in zip(points["feature"], points["band"], strict=True)], points["points"], color=BLUE)
axes.axvline(0, color="black", linewidth=0.8)
axes.set(xlabel="points (more: safer)", title="Scorecard after fifty deletions")
axes.grid(axis="y", visible=False)
axes.invert_yaxis()
