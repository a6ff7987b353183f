"""A released booster with what XGBoost's estimators cannot hold: labels other than 0, 1, ..., and names to check.

It is scikit-learn's bagging of one estimator, because that needs nothing of this package to be loaded: it answers with
its ``classes_``, compares the names of columns of any frame with those of the fit, and gives XGBoost an array. One that
reads frames by categories is a vote of one estimator instead, which gives XGBoost the frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, VotingClassifier
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Bunch

__all__ = ["labelled"]


def labelled(bare: Any, model: Any) -> Any:
    """Return the released booster `bare` of the keeper `model`, alone or with its labels and the names of its columns.

    Alone where it holds all there is: there are no names, and classes are 0, 1, ....
    """
    names, classes = getattr(model, "feature_names_in_", None), getattr(model, "classes_", None)
    plain = classes is None or (classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes))))
    if plain and (names is None or model._known):
        return bare
    if model._known and classes is not None:
        # bagging would make an array of the frame, and XGBoost compares the names itself
        voting = VotingClassifier([("booster", clone(bare))], voting="soft")
        voting.estimators_, voting.le_, voting.classes_ = [bare], LabelEncoder().fit(classes), classes.copy()
        voting.named_estimators_ = Bunch(booster=bare)
        voting.feature_importances_ = bare.feature_importances_
        voting.get_booster, voting.save_model = bare.get_booster, bare.save_model
        return voting
    out = (BaggingRegressor if classes is None else BaggingClassifier)(clone(bare), n_estimators=1)
    out.estimators_, out.estimators_features_ = [bare], [np.arange(model.n_features_in_)]
    out.n_features_in_, out.feature_importances_ = model.n_features_in_, bare.feature_importances_
    out.get_booster, out.save_model = bare.get_booster, bare.save_model
    if names is not None:
        out.feature_names_in_ = names.copy()
    if classes is not None:
        out.classes_, out.n_classes_ = classes.copy(), len(classes)
    return out
