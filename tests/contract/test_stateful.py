"""Any sequence of requests, chosen to hurt, leaves the state of a fit on the retained rows, in any order.

One machine for every transformer and exact model: it deletes the last row of a category, the rows that set an extreme,
all rows of a bin, one of two equal rows, and rows with missing values; by subjects that may hold many rows.
"""

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sklearn.base import clone

from certified.cluster import KMeans
from certified.compose import make_column_transformer, make_union
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.errors import CertifiedError
from certified.impute import SimpleImputer
from certified.kernel_approximation import Nystroem
from certified.linear_model import Lasso, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from certified.neighbors import KNeighborsClassifier, KNeighborsRegressor
from certified.pipeline import make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
    WOEEncoder,
)

N = 32
KNOWN, GAPS, WORDS = ["level", "count"], ["age"], ["city", "ward"]
FILLED = make_pipeline(SimpleImputer(strategy="median", sample_size=7, key=7), StandardScaler())
FEATURES = make_column_transformer(
    (FILLED, GAPS),
    (make_pipeline(SimpleImputer(add_indicator=True), MinMaxScaler()), GAPS),
    (make_union(MinMaxScaler(), RobustScaler(sample_size=7, key=7), "passthrough"), KNOWN),
    (make_union(KBinsDiscretizer(3, sample_size=7, key=7), SplineTransformer(3, sample_size=7, key=7)), KNOWN),
    (make_union(KBinsDiscretizer(3, strategy="uniform"), SplineTransformer(3, knots="uniform")), ["level"]),
    (OneHotEncoder(min_frequency=2, handle_unknown="infrequent_if_exist"), WORDS),
    (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["ward"]),
    (OrdinalEncoder(encoded_missing_value=-1), WORDS),
    (make_union(TargetEncoder(target_type="binary", cv=2, key=7), WOEEncoder()), WORDS),
    (make_pipeline(StandardScaler(), PCA(1)), KNOWN),
    (make_pipeline(StandardScaler(), Nystroem(n_components=2, sample_size=20, key=7)), KNOWN),
)
NUMBERS = make_column_transformer((FILLED, GAPS), (MinMaxScaler(), KNOWN))
CODES = make_column_transformer((KBinsDiscretizer(3, encode="ordinal"), KNOWN), (OrdinalEncoder(), ["city"]))
MODELS = {
    "every transformer": FEATURES,
    "gaussian": make_pipeline(NUMBERS, GaussianNB()),
    "counts": make_pipeline(make_column_transformer((MinMaxScaler(), KNOWN)), MultinomialNB()),
    "bernoulli": make_pipeline(NUMBERS, BernoulliNB(binarize=0.3)),
    "categories": make_pipeline(CODES, CategoricalNB()),
    "discriminant": make_pipeline(NUMBERS, LinearDiscriminantAnalysis(shrinkage=0.1)),
    "components": make_pipeline(NUMBERS, PCA(2)),
    "clusters": make_pipeline(NUMBERS, KMeans(2, sample_size=20, key=7)),
    "neighbours": make_pipeline(NUMBERS, KNeighborsClassifier(3)),
    "neighbours, regression": make_pipeline(NUMBERS, KNeighborsRegressor(3)),
    "ridge": make_pipeline(NUMBERS, Ridge()),
    "lasso": make_pipeline(NUMBERS, Lasso(0.01)),
    "search": GridSearchCV(make_pipeline(NUMBERS, Ridge()), {"ridge__alpha": [0.1, 10.0]}, cv=2, key=7),
}


def table_of(seed, repeats):
    """A frame in which each kind of trouble occurs, and targets; equal rows come in pairs."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "person": rng.integers(0, N // repeats, N),
            "age": np.where(rng.random(N) < 0.25, None, rng.integers(20, 90, N)).tolist(),
            "level": rng.choice([0.0, 0.5, 1.0, 2.5, 70.0], N, p=[0.3, 0.3, 0.2, 0.15, 0.05]),
            "count": rng.poisson(1.0, N).astype(float),
            "city": rng.choice(["Rome", "Oslo", "Bern", "Lima"], N, p=[0.5, 0.35, 0.1, 0.05]),
            "ward": rng.choice(np.array(["a", "b", "c", None], dtype=object), N).tolist(),
        },
        strict=False,
    )
    twin = rng.integers(0, N, 4)
    features = pl.concat([frame.drop("person"), frame.drop("person")[twin.tolist()]])
    people = np.append(frame["person"].to_numpy(), rng.integers(0, N // repeats, 4))
    return features.with_columns(person=people), np.append(np.arange(N) % 2, (np.arange(N) % 2)[twin])


class Deleting(RuleBasedStateMachine):
    """Deletes from a model, and fits it anew on the retained rows."""

    model = None

    @initialize(seed=st.integers(0, 2**32 - 1), repeats=st.sampled_from([1, 2]))
    def fit(self, seed, repeats):
        self.frame, self.y = table_of(seed, repeats)
        self.person = self.frame["person"].to_numpy()
        self.rng = np.random.default_rng(seed)
        self.live = clone(self.model).fit(self.frame, self.y, ids="person")

    def held(self):
        return np.isin(self.person, self.live.ids_)

    def delete_where(self, rows):
        """Delete the people of these rows; a request that is refused must change nothing."""
        people = np.unique(self.person[rows & self.held()])
        if len(people) == 0 or len(self.live.ids_) - len(people) < 6:
            return
        before = self.live.state_digest_
        try:
            self.live.delete(people)
        except CertifiedError:
            assert self.live.state_digest_ == before

    @rule(k=st.integers(0, 10**6))
    def anybody(self, k):
        self.delete_where(self.person == self.live.ids_[k % len(self.live.ids_)])

    @rule(name=st.sampled_from(WORDS), k=st.integers(0, 3))
    def everybody_of_a_category(self, name, k):
        values = self.frame[name].to_numpy()
        found, counts = np.unique(values[self.held()].astype(str), return_counts=True)
        self.delete_where(values.astype(str) == found[np.argsort(counts)[k % len(found)]])

    @rule(name=st.sampled_from(KNOWN + GAPS), low=st.booleans())
    def whoever_sets_an_extreme(self, name, low):
        values = self.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        seen = self.held() & ~np.isnan(values)
        if seen.any():
            self.delete_where(values == (values[seen].min() if low else values[seen].max()))

    @rule(value=st.sampled_from([0.0, 0.5, 1.0, 2.5]))
    def all_rows_of_a_bin(self, value):
        self.delete_where(self.frame["level"].to_numpy() == value)

    @rule(k=st.integers(0, 3))
    def one_of_two_equal_rows(self, k):
        self.delete_where(np.arange(len(self.y)) == N + k)

    @rule(name=st.sampled_from(["age", "ward"]))
    def somebody_with_a_gap(self, name):
        rows = np.flatnonzero(self.frame[name].is_null().to_numpy() & self.held())
        if rows.size:
            self.delete_where(np.arange(len(self.y)) == rows[-1])

    @invariant()
    def the_state_is_that_of_a_fit_on_the_rows_left(self):
        rows = np.flatnonzero(self.held())
        # people in any order; rows of one person keep theirs, by which neighbours and searches hold them
        key = self.rng.permutation(self.person.max() + 1)
        rows = rows[np.argsort(key[self.person[rows]], kind="stable")]
        fresh = clone(self.model).fit(self.frame[rows.tolist()], self.y[rows], ids="person")
        assert self.live.state_digest_ == fresh.state_digest_


@pytest.mark.parametrize("name", MODELS)
def test_any_sequence_of_requests_ends_at_a_fresh_fit(name):
    machine = type(name, (Deleting,), {"model": MODELS[name]})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=6))


class StaleExtremes(MinMaxScaler):
    """Keeps the extremes of those who left."""

    def _subtract(self, statistic, removed):
        return statistic


class StaleCategories(OneHotEncoder):
    """Keeps a category without a row."""

    def _subtract(self, statistic, removed):
        n_rows, counts = super()._subtract(statistic, removed)
        retained = zip(statistic[1], counts, strict=True)
        return n_rows, tuple(
            old._replace(counts=np.maximum(old.counts - 1, 0)) if len(new.values) < len(old.values) else new
            for old, new in retained
        )


@pytest.mark.parametrize(
    "mutant", [(StaleExtremes(), KNOWN), (StaleCategories(), WORDS)], ids=["extremes", "categories"]
)
def test_the_machine_catches_a_part_that_remembers(mutant):
    machine = type("Mutant", (Deleting,), {"model": make_column_transformer(mutant)})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine, settings=settings(max_examples=30, stateful_step_count=6, phases=[Phase.generate])
        )
