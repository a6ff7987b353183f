"""A booster that was trained on a frame with categories: keeper and release read frames by the same categories."""

import pickle
import pickletools

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost

from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from certified.errors import InvalidInput

N = 500


def table(seed, n=N):
    rng = np.random.default_rng(seed)
    town = rng.choice(["north", "south", "west"], n).astype(object)
    town[rng.random(n) < 0.1] = None
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "town": pd.Categorical(town, categories=["west", "north", "south"]),
            "rooms": pd.Categorical(rng.choice([30, 10, 20], n)),
        }
    )
    y = ((frame.town == "south") ^ (frame.rooms == 10) ^ (rng.random(n) < 0.1)).to_numpy().astype(int)
    return frame, y


PUBLIC, PUBLIC_Y = table(0)
FRAME, Y = table(1)


def booster(kind=xgboost.XGBClassifier, **given):
    model = kind(n_estimators=6, max_depth=3, enable_categorical=True, n_jobs=1, **given)
    return model.fit(PUBLIC, PUBLIC_Y)


def keeper(labels=Y, **given):
    found = booster()
    return GradientBoostingClassifier.from_booster(found, FRAME, labels, ids=np.arange(N), key=1, **given)


def forms(frame):
    """Return frames that say the same: other orders of categories, more of them, another library."""
    more = ["south", "east", "west", "north"]
    values = [None if v is None or v != v else v for v in frame.town.astype(object)]
    return {
        "as trained": frame,
        "another order, and one that no row has": frame.assign(town=frame.town.cat.set_categories(more)),
        "polars": pl.DataFrame(
            {
                "x": frame.x.to_numpy(),
                "town": pl.Series(values, dtype=pl.Enum(["north", "south", "west"])),
                "rooms": frame.rooms.astype(int).to_numpy(),
            }
        ),
    }


@pytest.mark.parametrize("labels", ["numbers", "texts"])
def test_keeper_and_release_read_frames_by_the_categories_of_the_booster(labels):
    y = Y if labels == "numbers" else np.where(Y == 1, "yes", "no")
    model = keeper(y)
    model.delete(range(10))
    release = model.release()
    said = model.predict_proba(FRAME)
    for name, frame in list(forms(FRAME).items())[:2]:
        assert np.allclose(model.predict_proba(frame), said), name
        assert np.allclose(release.predict_proba(frame), said, atol=1e-6), name
    assert list(release.classes_) == sorted(set(y.tolist()))
    assert np.array_equal(release.predict(FRAME), model.predict(FRAME))
    assert model.score(FRAME, y) > 0.85
    loaded = pickle.dumps(release)
    names = [value for _, value, _ in pickletools.genops(loaded) if isinstance(value, str)]
    assert not [name for name in names if name.startswith("certified")]
    assert np.array_equal(pickle.loads(loaded).predict_proba(FRAME), release.predict_proba(FRAME))


def test_frames_of_polars_are_read_by_the_same_categories():
    frame, y = FRAME[["x", "town"]], Y
    found = xgboost.XGBClassifier(n_estimators=4, max_depth=3, enable_categorical=True, n_jobs=1)
    found.fit(PUBLIC[["x", "town"]], PUBLIC_Y)
    model = GradientBoostingClassifier.from_booster(found, frame, y, key=1)
    other = forms(FRAME)["polars"].select("x", "town")
    assert np.allclose(model.predict_proba(other), model.predict_proba(frame))
    assert np.allclose(model.release().predict_proba(other), model.predict_proba(frame), atol=1e-6)


def test_trees_that_are_grown_anew_keep_the_categories():
    model = keeper(structure_ids=range(300), noise=0.0, leaf_penalty=1.0)
    before = model.structure_digest_
    model.delete([3])
    assert model.structure_digest_ != before
    assert np.allclose(model.release().predict_proba(FRAME), model.predict_proba(FRAME), atol=1e-6)
    more, y = table(2, 20)
    model.add(more, y, ids=1000 + np.arange(20))
    model.delete(1000 + np.arange(20))
    assert np.allclose(model.release().predict_proba(FRAME), model.predict_proba(FRAME), atol=1e-6)


def test_a_deletion_is_within_its_certificate_of_a_refit():
    model = keeper(noise=0.0)
    model.delete(range(50))
    again = GradientBoostingClassifier.from_booster(booster(), FRAME[50:], Y[50:], ids=np.arange(50, N), noise=0.0)
    assert np.allclose(model.private_coef_, again.private_coef_, atol=1e-3)


def test_regressors_and_the_parameter_structure_take_them_too():
    found = booster(xgboost.XGBRegressor)
    one = GradientBoostingRegressor.from_booster(found, FRAME, Y, noise=0.0)
    two = GradientBoostingRegressor(structure=found, categorical_features=[1, 2], noise=0.0).fit(FRAME, Y)
    assert np.allclose(one.predict(FRAME), two.predict(FRAME), atol=1e-3)
    assert np.allclose(one.release().predict(FRAME), one.predict(FRAME), atol=1e-6)
    with pytest.raises(InvalidInput, match=r"\[1, 2\] is needed"):
        GradientBoostingRegressor(structure=found).fit(FRAME, Y)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.assign(town=frame.town.cat.codes.astype(float)), "A categorical type is needed"),
        (lambda frame: frame.assign(town=frame.town.astype(object)), "A categorical type is needed"),
        (lambda frame: frame.assign(town=pd.Categorical(["east"] * len(frame))), "'east'.*not trained on"),
        (lambda frame: frame.assign(x=0.0).to_numpy(), "A data frame"),
    ],
)
def test_what_the_booster_cannot_read_is_refused(change, said):
    model = keeper()
    with pytest.raises(InvalidInput, match=said):
        model.predict_proba(change(FRAME))
    with pytest.raises(InvalidInput, match=said):
        GradientBoostingClassifier.from_booster(booster(), change(FRAME), Y)


def test_early_stopping_leaves_the_trees_that_predict():
    found = xgboost.XGBClassifier(
        n_estimators=60, max_depth=3, enable_categorical=True, n_jobs=1, early_stopping_rounds=2, learning_rate=1.0
    )
    found.fit(PUBLIC[:250], PUBLIC_Y[:250], eval_set=[(PUBLIC[250:], PUBLIC_Y[250:])], verbose=False)
    assert found.best_iteration < 50
    model = GradientBoostingClassifier.from_booster(found, FRAME, Y)
    trees = model.release(bare=True).get_booster().num_boosted_rounds()
    assert trees == found.best_iteration + 1


def test_letters_beyond_ascii_are_refused_because_xgboost_cuts_them():
    frame, y = table(3)
    odd = frame.assign(town=frame.town.cat.rename_categories({"south": "süd"}))
    found = xgboost.XGBClassifier(n_estimators=2, enable_categorical=True, n_jobs=1).fit(odd, y)
    with pytest.raises(InvalidInput, match=r"beyond ASCII.*Rename"):
        GradientBoostingClassifier.from_booster(found, odd, y)


def test_positions_names_and_a_mask_of_categories_are_one_thing():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"town": rng.integers(0, 9, 300).astype(float), "x": rng.normal(size=300)})
    y = np.isin(frame.town, [1, 4, 6]).astype(int)
    digests = []
    for given in ([0], ["town"], [True, False], [], None):
        model = GradientBoostingClassifier(
            n_estimators=3, max_depth=2, sample_size=150, noise=0.0, key=0, categorical_features=given
        ).fit(frame, y)
        digests.append((model.structure_digest_, model.private_coef_.tobytes()))
    assert len(set(digests[:3])) == 1
    assert len(set(digests[3:])) == 1
    assert digests[0] != digests[3]
