"""A sharded ensemble as a plain object: scikit-learn's voting estimators, with the models of the shards in them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Bunch

from certified._keeper.plain import named_like
from certified.base import Deletable
from certified.ensemble._sharding.fingerprint import holds_rows
from certified.ensemble._sharding.shard import Shard, Stage, unfitted
from certified.errors import CannotCertify

__all__ = ["released"]


def released(model: Any, shards: list[Shard]) -> Any:
    """Return the plain counterpart of a fitted ensemble; refuse where it would hold training rows."""
    name = type(model).__name__
    for shard in shards:
        where = holds_rows(shard.stages[-1].model, _views(shard))
        if where is not None:
            raise CannotCertify(
                f"{name}.release() found training rows in {type(model.estimator).__name__} ({where}): its models "
                "cannot be published. Serve predictions instead, or use an estimator that keeps no rows. Nothing "
                "was released."
            )
    if shards[0].table.y.ndim > 1:
        raise CannotCertify(
            f"{name}.release() of {shards[0].table.y.shape[1]} outputs is not possible: scikit-learn's VotingRegressor "
            "has one. Serve predictions instead, or fit a model for each output. Nothing was released."
        )
    if not hasattr(model, "classes_"):
        out = VotingRegressor(_named([_unfitted(model.estimator, shard) for shard in shards]))
        out.estimators_ = [deepcopy(shard.stages[-1].model) for shard in shards]
        return _finished(out)
    n_classes = len(model.classes_)
    voting = "hard" if model.aggregation == "vote" else "soft"
    out = VotingClassifier(_named([_unfitted(model.estimator, shard) for shard in shards]), voting=voting)
    out.estimators_ = [_plain(shard.stages[-1], n_classes, model) for shard in shards]
    out.le_ = LabelEncoder().fit(model.classes_)
    out.classes_ = model.classes_.copy()
    return _finished(out)


def _plain(stage: Stage, n_classes: int, model: Any) -> Any:
    if stage.model is None:
        constant = DummyClassifier(strategy="constant", constant=stage.classes[0])
        return named_like(constant.fit(np.zeros((n_classes, 1)), np.arange(n_classes)), model)
    if len(stage.classes) < n_classes:
        lacking = np.setdiff1d(np.arange(n_classes), stage.classes)
        raise CannotCertify(
            f"{type(model).__name__}.release() found a shard without a row of class "
            f"{model.classes_.tolist()[lacking[0]]!r}: scikit-learn's VotingClassifier needs all classes in every "
            "model. Use fewer shards, or serve predictions instead. Nothing was released."
        )
    return deepcopy(stage.model)


def _unfitted(estimator: Any, shard: Shard) -> Any:
    """Return what a shard's model was made from; of an estimator of this package, what its release is."""
    found = shard.stages[-1].model
    return unfitted(found if isinstance(estimator, Deletable) and found is not None else estimator)


def _named(models: list[Any]) -> list[tuple[str, Any]]:
    return [(f"shard{s}", model) for s, model in enumerate(models)]


def _finished(out: Any) -> Any:
    names = [name for name, _ in out.estimators]
    out.named_estimators_ = Bunch(**dict(zip(names, out.estimators_, strict=True)))
    return out


def _views(shard: Shard) -> list[Any]:
    """Return the rows as arrays of floats, as given and as the steps of a pipeline see them, where there are such."""
    x, model = shard.table.x, shard.stages[-1].model
    views = [x]
    for _, step in getattr(model, "steps", [])[:-1]:
        if hasattr(step, "transform"):
            views.append(step.transform(views[-1]))
    return [view for view in map(_numbers, views) if view is not None]


def _numbers(view: Any) -> Any:
    if sparse.issparse(view):
        view = view.toarray()
    try:
        return np.ascontiguousarray(np.asarray(view), dtype=np.float64)
    except (TypeError, ValueError):
        return None
