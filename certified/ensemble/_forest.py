"""Random forests and extra trees whose deletion gives, bit for bit, the forest of a refit."""

from __future__ import annotations

from typing import Any

from sklearn import ensemble as plain
from sklearn import tree as plain_trees

from certified.ensemble._several_trees import ForestClassifier, ForestRegressor

__all__ = ["ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"]


class RandomForestClassifier(ForestClassifier):
    """Random forest, exact under deletion: bit for bit the forest that a refit with the same key grows.

    Features are coded by 16-bit integers, by a map that deletions seldom change. A node looks at features that a hash
    chooses, and divides the codes of each into cells of equal width; the boundaries are the candidate thresholds. All
    that decides is a sum of integers over the rows of the node, so that a deletion subtracts, and grows a subtree anew
    only where another split has become the best.

    Parameters
    ----------
    n_estimators : int, default=100
    criterion : {"gini", "entropy", "log_loss"}, default="gini"
    max_depth : int or None, default=None
    min_samples_split : int or float, default=2
    min_samples_leaf : int or float, default=1
        Numbers of rows, or shares of all rows, whose number is rounded to a power of ``2 ** (1 / 16)``, within 2.2 %;
        where a deletion changes it, all trees are grown anew.
    min_weight_fraction_leaf : float, default=0.0
        Share of the weight of all rows that a leaf has at least, by the rounded weight; without weights, of the rows.
    min_impurity_decrease : float, default=0.0
        A node is split only if this lowers the impurity, weighted by the node's share of the rows of a tree, by as much
        or more. The number (weight) of these rows is rounded to a power of ``2 ** (1 / 16)``, within 2.2 %; where a
        deletion changes it, all trees are grown anew. Not with several targets.
    max_features : {"sqrt", "log2"}, int, float or None, default="sqrt"
        Features that a node looks at; more where none of them can be split.
    max_leaf_nodes : int or None, default=None
        Leaves of a tree at most: those of the splits that explain most, opened from the root on, as scikit-learn does.
        The whole tree is grown and kept, and this part of it shown, so that a deletion is as exact and costs as much as
        without.
    ccp_alpha : float, default=0.0
        Minimal cost-complexity pruning, likewise of what is shown. Not with several targets.
    bootstrap : bool, default=True
        Whether a tree sees a part of the subjects, each once, by a hash of tree and subject: as many as scikit-learn's
        samples with replacement have on average.
    oob_score : bool, default=False
        Whether to serve ``oob_score_`` and ``oob_decision_function_``, computed when asked for.
    n_jobs : int or None, default=None
        Threads for growing, bulk deletions and predictions. The result does not depend on it.
    verbose : int, default=0
        Taken and not used.
    warm_start : False
        True is refused: trees of an earlier fit would hold its rows. With one key the first trees of a larger forest
        are those of a smaller one.
    key : int or None, default=None
        What decides which trees see a subject and which candidates a node has: a whole number up to 128 bits. None has
        the operating system draw one at each fit; ``key_`` tells it. Keep it secret where those who ask for deletions
        could profit from it. There is no ``random_state``, because a fit draws no noise: give a key to repeat one.
    max_samples : float, int or None, default=None
        Rows that scikit-learn draws for a tree, as a share f of all rows or as a number, which is divided by the
        rounded number of all rows. A tree sees a subject with probability ``1 - exp(-f)``; None is f = 1. With 0.1 fits
        and deletions are nearly ten times as fast.
    n_thresholds : int, default=16
        Cells of a feature in a node.
    lazy : bool, default=False
        Whether subtrees wait to be grown anew until the next query or ``flush()``.
    categorical_features : None, "from_dtype", mask, positions or names, default="from_dtype"
        Features that are categories; by default the columns of a data frame that hold text or have a categorical type.
        A node orders them by one of 8 hashes and cuts this order, so that it splits on sets of categories. One that no
        row held has is read as missing.
    class_weight : dict, "balanced" or None, default=None
        Factors of the weights. "balanced" is scikit-learn's ``n_rows / (n_classes * count)``, rounded to a power of
        ``2 ** (1 / 16)``, within 2.2 %, so that deletions seldom change it; where one does, all trees are grown anew.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    feature_importances_ : array of shape (n_features,)
    estimators_ : list of trees
    oob_score_, oob_decision_function_
    work_ : Work
        What deletions have cost: nodes visited, rows counted again, subtrees grown again, rows in these.
    memory_ : int
        Bytes that the trees take.
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.

    Notes
    -----
    scikit-learn's ``monotonic_cst`` is refused: the limits of a node come from the values of those above it, so that
    one row could change any part of a tree.

    The kernels are compiled when a machine first grows a forest of a kind, for twenty seconds to a minute, and kept
    after that.

    The refit has the same key. With a fresh key the equality holds in law, for requests that do not depend on the key:
    somebody who sees the trees and asks for deletions accordingly can make them unlike those of a fresh forest. Then
    :meth:`rekey`.

    References
    ----------
    Breiman (2001), Random forests. Geurts, Ernst and Wehenkel (2006), Extremely randomized trees. Brophy and Lowd
    (2021), Machine unlearning for random forests.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.ensemble import RandomForestClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = RandomForestClassifier(10, key=1).fit(X, y)
    >>> _ = model.delete(range(20))
    >>> refit = RandomForestClassifier(10, key=1).fit(X[20:], y[20:], ids=range(20, len(y)))
    >>> model.state_digest_ == refit.state_digest_
    True
    """

    _plain_class, _forest_class = plain_trees.DecisionTreeClassifier, plain.RandomForestClassifier

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "gini",
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_impurity_decrease: float = 0.0,
        max_features: Any = "sqrt",
        max_leaf_nodes: int | None = None,
        ccp_alpha: float = 0.0,
        bootstrap: bool = True,
        oob_score: bool = False,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        key: int | None = None,
        max_samples: float | int | None = None,
        n_thresholds: int = 16,
        lazy: bool = False,
        categorical_features: Any = "from_dtype",
        class_weight: Any = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.ccp_alpha = ccp_alpha
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.key = key
        self.max_samples = max_samples
        self.n_thresholds = n_thresholds
        self.lazy = lazy
        self.categorical_features = categorical_features
        self.class_weight = class_weight


class RandomForestRegressor(ForestRegressor):
    """Random forest for targets, one or several, exact under deletion.

    Targets are rounded to 38 binary digits of the largest, so that sums of them are integers.

    Parameters
    ----------
    criterion : {"squared_error", "poisson"}, default="squared_error"
        "friedman_mse" is taken as "squared_error", with scikit-learn's warning.
    max_features : {"sqrt", "log2"}, int, float or None, default=1.0
    n_estimators, max_depth, min_samples_split, min_samples_leaf, min_impurity_decrease, bootstrap, oob_score, n_jobs
    verbose, warm_start
        As in :class:`RandomForestClassifier`.
    key, max_samples, n_thresholds, lazy, categorical_features
        As in :class:`RandomForestClassifier`.

    Attributes
    ----------
    feature_importances_ : array of shape (n_features,)
    estimators_ : list of trees
    oob_score_, oob_prediction_
    work_, memory_, certificate_, ids_, n_rows_, state_digest_
        As in :class:`RandomForestClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.ensemble import RandomForestRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> RandomForestRegressor(10, min_samples_leaf=5).fit(X, y).delete([3]).certificate.claim
    'exact'
    """

    _plain_class, _forest_class = plain_trees.DecisionTreeRegressor, plain.RandomForestRegressor

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "squared_error",
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_impurity_decrease: float = 0.0,
        max_features: Any = 1.0,
        max_leaf_nodes: int | None = None,
        ccp_alpha: float = 0.0,
        bootstrap: bool = True,
        oob_score: bool = False,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        key: int | None = None,
        max_samples: float | int | None = None,
        n_thresholds: int = 16,
        lazy: bool = False,
        categorical_features: Any = "from_dtype",
    ) -> None:
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.ccp_alpha = ccp_alpha
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.key = key
        self.max_samples = max_samples
        self.n_thresholds = n_thresholds
        self.lazy = lazy
        self.categorical_features = categorical_features


class ExtraTreesClassifier(ForestClassifier):
    """Extremely randomized trees, exact under deletion.

    As :class:`RandomForestClassifier`, but a node compares one threshold of each feature, which a hash chooses among
    the boundaries between the cells from the smallest value in the node to the largest.

    Parameters
    ----------
    bootstrap : bool, default=False
    n_thresholds : int, default=64
        Cells among whose boundaries the hash chooses.
    n_estimators, criterion, max_depth, min_samples_split, min_samples_leaf, min_impurity_decrease, max_features
        As in :class:`RandomForestClassifier`.
    oob_score, n_jobs, key, max_samples, lazy, categorical_features, class_weight
        As in :class:`RandomForestClassifier`.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    feature_importances_, oob_score_, oob_decision_function_, work_, memory_, certificate_, ids_, n_rows_, state_digest_
        As in :class:`RandomForestClassifier`.
    """

    _plain_class, _forest_class, _random = plain_trees.ExtraTreeClassifier, plain.ExtraTreesClassifier, True

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "gini",
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_impurity_decrease: float = 0.0,
        max_features: Any = "sqrt",
        max_leaf_nodes: int | None = None,
        ccp_alpha: float = 0.0,
        bootstrap: bool = False,
        oob_score: bool = False,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        key: int | None = None,
        max_samples: float | int | None = None,
        n_thresholds: int = 64,
        lazy: bool = False,
        categorical_features: Any = "from_dtype",
        class_weight: Any = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.ccp_alpha = ccp_alpha
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.key = key
        self.max_samples = max_samples
        self.n_thresholds = n_thresholds
        self.lazy = lazy
        self.categorical_features = categorical_features
        self.class_weight = class_weight


class ExtraTreesRegressor(ForestRegressor):
    """Extremely randomized trees for targets, exact under deletion.

    Parameters
    ----------
    criterion : {"squared_error", "poisson"}, default="squared_error"
        "friedman_mse" is taken as "squared_error", with scikit-learn's warning.
    max_features : {"sqrt", "log2"}, int, float or None, default=1.0
    n_estimators, max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf, max_leaf_nodes
    ccp_alpha, min_impurity_decrease, oob_score, n_jobs
    verbose, warm_start
        As in :class:`RandomForestClassifier`.
    key, max_samples, lazy, categorical_features
        As in :class:`RandomForestClassifier`.
    bootstrap, n_thresholds
        As in :class:`ExtraTreesClassifier`.

    Attributes
    ----------
    feature_importances_, oob_score_, oob_prediction_, work_, memory_, certificate_, ids_, n_rows_, state_digest_
        As in :class:`RandomForestClassifier`.
    """

    _plain_class, _forest_class, _random = plain_trees.ExtraTreeRegressor, plain.ExtraTreesRegressor, True

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        criterion: str = "squared_error",
        max_depth: int | None = None,
        min_samples_split: int = 2,
        min_samples_leaf: int = 1,
        min_weight_fraction_leaf: float = 0.0,
        min_impurity_decrease: float = 0.0,
        max_features: Any = 1.0,
        max_leaf_nodes: int | None = None,
        ccp_alpha: float = 0.0,
        bootstrap: bool = False,
        oob_score: bool = False,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        key: int | None = None,
        max_samples: float | int | None = None,
        n_thresholds: int = 64,
        lazy: bool = False,
        categorical_features: Any = "from_dtype",
    ) -> None:
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.ccp_alpha = ccp_alpha
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.key = key
        self.max_samples = max_samples
        self.n_thresholds = n_thresholds
        self.lazy = lazy
        self.categorical_features = categorical_features
