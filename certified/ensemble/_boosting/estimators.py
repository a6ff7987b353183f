"""Gradient-boosted trees with certified deletion: XGBoost's structure, certified leaf values."""

from __future__ import annotations

import json
from typing import Any, Self

import numpy as np
import xgboost
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight

from certified._convex.losses import Gamma, Logistic, Poisson, Softmax, Squared, Tweedie
from certified._data.frames import split_ids
from certified._data.targets import target_column
from certified._keeper.probabilities import LogProbabilities
from certified.base import all_or_nothing
from certified.ensemble._boosting.categories import declared_types, known_categories, types_of
from certified.ensemble._boosting.classes import BoostedClasses
from certified.ensemble._boosting.labels import labelled
from certified.ensemble._boosting.leaf_metric import LeafRows
from certified.ensemble._boosting.model import BoostedTrees
from certified.ensemble._boosting.objective import Objective
from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["GradientBoostingClassifier", "GradientBoostingRegressor"]

_PASSED_ON = (
    "max_depth",
    "learning_rate",
    "min_child_weight",
    "gamma",
    "reg_alpha",
    "reg_lambda",
    "subsample",
    "colsample_bytree",
    "max_bin",
    "grow_policy",
    "max_leaves",
    "interaction_constraints",
    "monotone_constraints",
)


class _Boosted(BoostedTrees):
    """Parameters that the classifier and the regressor share."""

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        objective: str | None = None,
        tweedie_variance_power: float = 1.5,
        max_depth: int = 4,
        learning_rate: float = 0.1,
        min_child_weight: float = 1.0,
        gamma: float = 0.0,
        reg_alpha: float = 0.0,
        reg_lambda: float = 1.0,
        subsample: float = 1.0,
        colsample_bytree: float = 1.0,
        max_bin: int = 256,
        grow_policy: str = "depthwise",
        max_leaves: int = 0,
        categorical_features: Any = None,
        feature_ranges: Any = None,
        interaction_constraints: Any = None,
        monotone_constraints: Any = None,
        structure: Any = "sample",
        sample_size: float = 0.1,
        structure_groups: int = 1,
        leaf_penalty: float = 100.0,
        structure_weight: float = 0.5,
        class_weight: Any = None,
        shrink_to: str = "zero",
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        tol: float = 1e-4,
        max_iter: int = 100,
        key: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.objective = objective
        self.tweedie_variance_power = tweedie_variance_power
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.min_child_weight = min_child_weight
        self.gamma = gamma
        self.reg_alpha = reg_alpha
        self.reg_lambda = reg_lambda
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.max_bin = max_bin
        self.grow_policy = grow_policy
        self.max_leaves = max_leaves
        self.categorical_features = categorical_features
        self.feature_ranges = feature_ranges
        self.interaction_constraints = interaction_constraints
        self.monotone_constraints = monotone_constraints
        self.structure = structure
        self.sample_size = sample_size
        self.structure_groups = structure_groups
        self.leaf_penalty = leaf_penalty
        self.structure_weight = structure_weight
        self.class_weight = class_weight
        self.shrink_to = shrink_to
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.tol = tol
        self.max_iter = max_iter
        self.key = key
        self.random_state = random_state

    def _xgboost_parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _PASSED_ON if getattr(self, name) is not None}

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None) -> Self:
        """Fit on all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
            Numbers; NaN where missing.
        y : array-like of shape (n_rows,)
            Classes, or numbers that the objective allows.
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row. None numbers the rows 0..n-1. A column named here is not a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0.

        Returns
        -------
        self
        """
        booster = None if isinstance(self.structure, str) and self.structure == "sample" else self.structure
        return self._fit(X, y, ids, sample_weight, booster, ())

    @classmethod
    def from_booster(
        cls,
        booster: Any,
        X: Any,
        y: Any,
        *,
        ids: Any = None,
        structure_ids: Any = (),
        sample_weight: Any = None,
        **params: Any,
    ) -> Any:
        """Return a fitted model with the structure of a trained one (XGBoost or LightGBM), with leaves that can delete.

        Parameters
        ----------
        booster : Booster or estimator of XGBoost or LightGBM
            Of trees, one for each round and class, with this class's objective. Of LightGBM without splits on sets of
            categories; features are rounded to float32, and what is released is an XGBoost model of the same trees.
            One of XGBoost that was trained on a frame with categorical columns reads frames by its categories, and so
            does the release; ``categorical_features`` follows from it.
        X, y, ids, sample_weight
            As in :meth:`fit`: the rows from which the leaf values are learned anew.
        structure_ids : array-like
            The subjects of `ids` from whose rows the structure was learned; it is yours to declare them all, and the
            certificate rests on it. Empty if the structure comes from other, public data, or from none: the same as
            the parameter ``structure``. When one of them is deleted, the trees are grown anew on those that are left,
            with this class's parameters.
        **params
            Parameters of this class.

        Returns
        -------
        estimator
        """
        raw = _booster_of(booster)
        kinds = (raw is not None and raw.feature_types) or []
        if "c" in kinds:
            params.setdefault("categorical_features", [j for j, kind in enumerate(kinds) if kind == "c"])
        model = cls(**params)
        return model._fit(X, y, ids, sample_weight, booster, structure_ids)

    def _fit(self, X: Any, y: Any, ids: Any, sample_weight: Any, booster: Any, structure_ids: Any) -> Any:
        X, ids = split_ids(X, ids)
        self._take_categories(booster)
        X, y = self._read(X, y, reset=True)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True)
        y = self._targets(y, weight)
        self._fit_rows(X, y, weight, ids, booster, structure_ids)
        return self

    def _take_categories(self, booster: Any) -> None:
        """Read rows by the categories that a booster of XGBoost was trained on."""
        self._known, self._categories = [], None
        raw = _booster_of(booster)
        if raw is None:
            return
        model = json.loads(raw.save_raw("json"))
        self._known = known_categories(model)
        if self._known:
            self._categories = model["learner"]["gradient_booster"]["model"]["cats"]
            types = types_of(model)
            names, caller = list(raw.feature_names or ()), type(self).__name__
            if declared_types(self.categorical_features, names, raw.num_features(), caller) != types:
                needed = [j for j, kind in enumerate(types or ()) if kind == "c"]
                raise InvalidInput(
                    f"{caller}(categorical_features={self.categorical_features!r}) got a structure that was trained on "
                    f"columns of categories: {needed!r} is needed, as trees are grown anew by it. Nothing was changed."
                )

    def _targets(self, y: Any, weight: FloatArray) -> FloatArray:
        """Check the targets and return them as the loss takes them."""
        raise NotImplementedError

    def _released_as(self, kind: Any) -> Any:
        """A plain estimator of XGBoost with the released model."""
        self._check_fitted()
        found = self._types(self.n_features_in_)
        types = {} if found is None else {"feature_types": found}
        given = {**self._xgboost_parameters(), **types, **self._objective().options}
        given.pop("num_class", None)
        more = {"enable_categorical": bool(types), "importance_type": "total_gain"}
        model = kind(n_estimators=self.n_estimators, **more, **given)
        self._parameter  # noqa: B018 - draws where there is nothing to serve
        self._booster()
        model.load_model(bytearray(self._model))
        return model


def _booster_of(model: Any) -> xgboost.Booster | None:
    """Return the booster of a fitted estimator of XGBoost, or a booster itself; None of anything else."""
    if isinstance(model, xgboost.XGBModel):
        return model.get_booster() if model.__sklearn_is_fitted__() else None
    return model if isinstance(model, xgboost.Booster) else None


class GradientBoostingClassifier(LogProbabilities, ClassifierMixin, BoostedClasses, _Boosted):
    """Boosted trees for classes whose subjects can be deleted, with a certificate.

    The splits are those of XGBoost, trained on the subjects with the smallest hashes (``sample_size``). The leaf
    values are learned on *all* rows: they minimise the logistic (of more classes: multinomial) loss plus
    ``leaf_penalty * ||v||^2 / 2``, all trees together. A deletion outside the sample changes leaf values only; inside
    it, the trees are grown anew. The certificate compares with a refit of structure and leaf values. The fitted object
    is the private *keeper*; ``predict`` and ``release()`` serve leaf values with noise.

    Parameters
    ----------
    n_estimators : int, default=100
        Number of trees, for each class where there are more than two.
    objective : str or None, default=None
        "binary:logistic" or "multi:softprob", which follow from the classes.
    tweedie_variance_power : float
        Of the regressor.
    max_depth, learning_rate, min_child_weight, gamma, reg_alpha, reg_lambda
        As in XGBoost, for the structure.
    subsample, colsample_bytree, max_bin
        As in XGBoost, for the structure.
    grow_policy : {"depthwise", "lossguide"}, default="depthwise"
    max_leaves : int, default=0
        As in XGBoost: "lossguide" splits the leaf that gains most, until there are `max_leaves` of them. With as many
        leaves such trees often score better than trees of one depth: ``max_depth=10, grow_policy="lossguide",
        max_leaves=16`` in the place of ``max_depth=4``.
    categorical_features : None, mask, positions or names, default=None
        Features whose values are codes of categories (0, 1, ...): a bool for each feature, or positions, or names of
        columns of a frame, as in scikit-learn's HistGradientBoostingClassifier. None: there are none, or a booster that
        was trained on some brings them (``from_booster``).
    feature_ranges : pair of float, array-like of shape (n_features, 2) or None, default=None
        For ``structure="random"``: public lower and upper ends of the features, between which cuts are drawn.
    interaction_constraints : list of lists or None, default=None
        As in XGBoost. They hold for the model, because a leaf value belongs to the features of its tree.
    monotone_constraints : sequence of n_features numbers, dict or None, default=None
        1 (rising), -1 (falling) or 0 for each feature, as in XGBoost; two classes only. Every release keeps them: leaf
        values against the order of a split are clipped where its sides meet, after the noise.
    structure : {"sample", "random"} or model of XGBoost or LightGBM, default="sample"
        "sample": splits learned on the subjects with the smallest hashes. A trained model: its splits, which must come
        from other, public or consented data, or from none. "random": features and cuts drawn by `key` within
        `feature_ranges`, in complete trees of depth `max_depth`. With the last two no deletion grows trees anew.
    sample_size : float or int, default=0.1
        Share of the subjects on which the structure is learned (at least 500), all groups together; or their number,
        for each group. A deletion of such a subject grows the trees of its group anew.
    structure_groups : int, default=1
        The trees are grown in so many groups, each boosted by itself on a sample of its own.
    leaf_penalty : float, default=100.0
        Strength of the L2 penalty on leaf values.
    structure_weight : float, default=0.5
        Factor of the weights of sampled rows where leaf values are learned. The splits fit these rows too well, so that
        they deserve less; 0 is "honest": they do not count.
    class_weight : dict, "balanced" or None, default=None
        Factor of the weights of rows by their class, in structure and leaf values, as in scikit-learn. "balanced" takes
        the shares of the classes from the structure sample, so that a deletion outside it changes no weight; in a
        structure from elsewhere there is no sample, and weights are to be given.
    shrink_to : {"zero", "structure"}, default="zero"
        Where the penalty pulls to: 0, or XGBoost's own leaf values.
    epsilon, delta : float, default=1.0 and 1e-6
        Every release is (epsilon, delta)-indistinguishable from one of a refit without the deleted subjects.
    noise : float, default=0.1
        Standard deviation of the noise in standard errors of the leaf values. 0 releases the bare values and certifies
        nothing but the distance.
    tol : float, default=1e-4
        ``fit`` stops when the distance to the minimiser is at most this, in standard errors.
    max_iter : int, default=100
        Largest number of passes over the rows for a fit or a deletion.
    key : int or None, default=None
        Key of the hash of the subjects, 128 bits; None draws one. Whoever may choose ids or requests by it should not
        know it.
    random_state : int, RandomState or None, default=None
        None draws the noise from the operating system. A seed makes simulations repeatable and voids the certificate.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    coef_ : array of shape (n_leaves,)
        Released leaf values.
    n_leaves_ : int
    certificate_ : Certificate
    structure_digest_ : str
        Equal to that of a refit on the retained rows.
    ids_, n_rows_, n_features_in_, feature_names_in_
        As in every estimator of this package.

    Notes
    -----
    Missing values are NaN, as in XGBoost. Text columns have to be encoded before: by
    :class:`certified.preprocessing.OrdinalEncoder`, with ``categorical_features``. A matrix with an entry for each pair
    of leaves is inverted: with more than two classes take fewer or smaller trees.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.ensemble import GradientBoostingClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = GradientBoostingClassifier(n_estimators=10, sample_size=200).fit(X, y)
    >>> model.delete([3, 5]).n_rows
    2
    >>> type(model.release()).__name__
    'XGBClassifier'
    """

    def _objective(self) -> Objective:
        K = len(self.classes_)
        found = Objective("binary:logistic", Logistic(), 1)
        if K > 2:
            found = Objective("multi:softprob", Softmax(K), 3, options={"num_class": K})
        if self.objective not in (None, found.name):
            raise InvalidInput(
                f"{type(self).__name__}(objective={self.objective!r}) is not allowed with {K} classes: None or "
                f"{found.name!r} is."
            )
        return found

    def decision_function(self, X: Any) -> FloatArray:
        """Return the released predictor (log-odds), shape (n_rows,); for more than two classes (n_rows, n_classes)."""
        self._check_fitted()
        return self._margins(X).astype(np.float64)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        self._check_fitted()
        found = self._means(X).astype(np.float64)
        return found if found.ndim == 2 else np.column_stack([1.0 - found, found])

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, shape (n_rows,)."""
        z = self.decision_function(X)
        return self.classes_[np.argmax(z, axis=1) if z.ndim == 2 else (z > 0).astype(int)]

    def _release(self, *, bare: bool = False) -> Any:
        """Return a plain model with the released leaf values.

        It holds no training row and no statistic of the rows, and needs no part of this package to be loaded. It is an
        ``xgboost.XGBClassifier`` where the fit had no names of columns and its classes are 0, 1, .... Otherwise it is
        scikit-learn's bagging of this one model, which knows ``classes_`` and the names, and ``get_booster()`` and
        ``save_model()`` of the model. ``feature_importances_`` is that of the keeper. XGBoost's own contributions
        (``pred_contribs``) are NaN, because they need statistics of the rows; SHAP values with a public background do
        not.

        Parameters
        ----------
        bare : bool, default=False
            Return the ``xgboost.XGBClassifier`` in any case; its classes 0, 1, ... stand for ``classes_``.
        """
        return self._bare() if bare else labelled(self._bare(), self)

    def _bare(self) -> xgboost.XGBClassifier:
        return self._released_as(xgboost.XGBClassifier)


class GradientBoostingRegressor(RegressorMixin, _Boosted):
    """Boosted trees for numbers and counts whose subjects can be deleted, with a certificate.

    As :class:`GradientBoostingClassifier`, with another loss.

    Parameters
    ----------
    objective : str or None, default=None
        "reg:squarederror" (None), or with a log link "count:poisson", "reg:gamma" or "reg:tweedie". Frequencies: give
        counts divided by exposure as y, and the exposure as ``sample_weight``.
    tweedie_variance_power : float, default=1.5
        Between 1 and 2.
    n_estimators, max_depth, learning_rate, min_child_weight, gamma, reg_alpha, reg_lambda
        As in :class:`GradientBoostingClassifier`.
    subsample, colsample_bytree, max_bin, grow_policy, max_leaves
        As in :class:`GradientBoostingClassifier`.
    categorical_features, feature_ranges
        As in :class:`GradientBoostingClassifier`.
    interaction_constraints, monotone_constraints
        As in :class:`GradientBoostingClassifier`.
    structure : {"sample", "random"} or model of XGBoost or LightGBM, default="sample"
        As in :class:`GradientBoostingClassifier`. Unless it is "sample", scale the targets to about unit variance.
    class_weight : None
        Of the classifier.
    sample_size, structure_groups, leaf_penalty, structure_weight, shrink_to
        As in :class:`GradientBoostingClassifier`.
    epsilon, delta, noise, tol, max_iter, key, random_state
        As in :class:`GradientBoostingClassifier`.

    Attributes
    ----------
    coef_, n_leaves_, certificate_, structure_digest_, ids_, n_rows_
        As in :class:`GradientBoostingClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.ensemble import GradientBoostingRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = GradientBoostingRegressor(n_estimators=10, sample_size=200, leaf_penalty=10.0).fit(X, y)
    >>> model.delete([3, 5]).n_rows
    2
    """

    def _objective(self) -> Objective:
        power = float(self.tweedie_variance_power)
        known = {
            "reg:squarederror": lambda: Objective("reg:squarederror", Squared(), 0),
            "count:poisson": lambda: Objective("count:poisson", Poisson(), 2, 1.0),
            "reg:gamma": lambda: Objective("reg:gamma", Gamma(), 2, 2.0),
            "reg:tweedie": lambda: Objective(
                "reg:tweedie", Tweedie(power), 2, power, {"tweedie_variance_power": power}
            ),
        }
        objective = self.objective or "reg:squarederror"
        if objective not in known or not 1.0 < power < 2.0:
            raise InvalidInput(
                f"{type(self).__name__}(objective={self.objective!r}, tweedie_variance_power={power!r}) is not "
                f"allowed: one of {list(known)}, and a power between 1 and 2."
            )
        return known[objective]()

    def _targets(self, y: Any, weight: FloatArray) -> FloatArray:
        y = np.array(y, dtype=np.float64)
        what, allowed = self._objective().loss.targets
        if not np.all(allowed(y[weight > 0])):
            raise InvalidInput(
                f"{type(self).__name__}(objective={self.objective!r}) got targets outside what the objective "
                f"allows: {what}. Correct y or leave those rows out. Nothing was changed."
            )
        return y

    def _class_weights(self, rows: LeafRows, sample: IntArray) -> Any:
        if self.class_weight is not None:
            raise InvalidInput(
                f"{type(self).__name__}(class_weight={self.class_weight!r}) is not allowed: numbers have no classes. "
                "Give sample_weight to fit instead. Nothing was changed."
            )
        return 1.0

    def _more_targets(self, y: Any, weight: FloatArray) -> FloatArray:
        return self._targets(target_column(y, len(weight), f"{type(self).__name__}.add"), weight)

    def predict(self, X: Any) -> FloatArray:
        """Return the released mean of each row, shape (n_rows,)."""
        self._check_fitted()
        return self._means(X).astype(np.float64)

    def _release(self, *, bare: bool = False) -> Any:
        """Return a plain model with the released leaf values; it holds no row and no statistic.

        It is an ``xgboost.XGBRegressor``; where the fit had names of columns, scikit-learn's bagging of this one, which
        knows them, as :meth:`GradientBoostingClassifier.release` says.

        Parameters
        ----------
        bare : bool, default=False
            Return the ``xgboost.XGBRegressor`` in any case.
        """
        return self._bare() if bare else labelled(self._bare(), self)

    def _bare(self) -> xgboost.XGBRegressor:
        return self._released_as(xgboost.XGBRegressor)
