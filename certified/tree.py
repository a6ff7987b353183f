"""Single trees whose deletion gives, bit for bit, the tree of a refit."""

from __future__ import annotations

from typing import Any

from sklearn import tree as plain
from sklearn.base import clone
from sklearn.tree._tree import ccp_pruning_path
from sklearn.utils import Bunch

from certified._trees.tasks import ClassifierTrees, RegressorTrees, Trees

__all__ = ["DecisionTreeClassifier", "DecisionTreeRegressor"]


class _Single(Trees):
    n_jobs = None

    def _released(self, says: Any, trees: Any = None) -> Any:
        out = self._tree(0, says)
        if hasattr(self, "classes_"):
            out.classes_ = self.classes_
        return out

    @property
    def tree_(self) -> Any:
        """The plain tree of scikit-learn."""
        return self._plain().tree_

    def cost_complexity_pruning_path(self, X: Any, y: Any, sample_weight: Any = None) -> Bunch:
        """Return the effective alphas of minimal cost-complexity pruning, and the impurities of the leaves after each.

        With squared errors and Poisson deviance the impurities are those that splits explain: what no split does is
        left out, the same for all.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.

        Returns
        -------
        ccp_path : Bunch with ``ccp_alphas`` and ``impurities``
        """
        whole = clone(self).set_params(ccp_alpha=0.0).fit(X, y, sample_weight=sample_weight)
        return Bunch(**ccp_pruning_path(whole.tree_))

    @property
    def max_features_(self) -> int:
        """Features that a node looks at."""
        return int(self._grown().growth.max_features)

    def get_depth(self) -> int:
        """Return the depth of the tree."""
        return self._plain().get_depth()

    def get_n_leaves(self) -> int:
        """Return the number of leaves."""
        return self._plain().get_n_leaves()


class DecisionTreeClassifier(_Single, ClassifierTrees):
    """Decision tree, exact under deletion.

    Parameters
    ----------
    criterion : {"gini", "entropy", "log_loss"}, default="gini"
    max_features : {"sqrt", "log2"}, int, float or None, default=None
    n_thresholds : int, default=64
        Cells of a feature in a node, whose boundaries are the candidate thresholds.
    max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf, min_impurity_decrease, max_leaf_nodes
    ccp_alpha, key
        As in :class:`certified.ensemble.RandomForestClassifier`.
    categorical_features, class_weight
        As in :class:`certified.ensemble.RandomForestClassifier`.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    feature_importances_ : array of shape (n_features,)
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from certified.tree import DecisionTreeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> DecisionTreeClassifier(max_depth=3).fit(X, y).delete([0, 1]).certificate.claim
    'exact'
    """

    _plain_class = plain.DecisionTreeClassifier

    def __init__(
        self,
        *,
        criterion: str = "gini",
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_impurity_decrease: float = 0.0,
        max_features: Any = None,
        max_leaf_nodes: int | None = None,
        ccp_alpha: float = 0.0,
        key: int | None = None,
        n_thresholds: int = 64,
        categorical_features: Any = "from_dtype",
        class_weight: Any = None,
    ) -> None:
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.ccp_alpha = ccp_alpha
        self.key = key
        self.n_thresholds = n_thresholds
        self.categorical_features = categorical_features
        self.class_weight = class_weight


class DecisionTreeRegressor(_Single, RegressorTrees):
    """Decision tree for targets, one or several, exact under deletion.

    Parameters
    ----------
    criterion : {"squared_error", "poisson"}, default="squared_error"
    max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf, min_impurity_decrease, max_features
    max_leaf_nodes, ccp_alpha, key, n_thresholds
        As in :class:`DecisionTreeClassifier`.
    categorical_features
        As in :class:`DecisionTreeClassifier`.

    Attributes
    ----------
    feature_importances_ : array of shape (n_features,)
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.
    """

    _plain_class = plain.DecisionTreeRegressor

    def __init__(
        self,
        *,
        criterion: str = "squared_error",
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_impurity_decrease: float = 0.0,
        max_features: Any = None,
        max_leaf_nodes: int | None = None,
        ccp_alpha: float = 0.0,
        key: int | None = None,
        n_thresholds: int = 64,
        categorical_features: Any = "from_dtype",
    ) -> None:
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.ccp_alpha = ccp_alpha
        self.key = key
        self.n_thresholds = n_thresholds
        self.categorical_features = categorical_features
