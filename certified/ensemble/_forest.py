"""Random forests and extra trees whose deletion gives, bit for bit, the forest of a refit."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import ensemble as plain
from sklearn import tree as plain_trees

from certified._trees.shared_state import SharedState
from certified._trees.tasks import PLAIN, ClassifierTrees, RegressorTrees, Trees, scored
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"]


def _seen_by(draws: float) -> float:
    """Return which share of the rows a sample with replacement has, of so many draws for each row."""
    return float(-np.expm1(-draws))


class _Forest(Trees):
    """The parameters, and what needs several trees."""

    n_estimators: Any
    bootstrap: Any
    max_samples: Any
    oob_score: Any
    lazy: Any
    _forest_class: Any

    @property
    def _lazy(self) -> bool:  # type: ignore[override]
        return bool(self.lazy)

    def _n_trees(self) -> int:
        return self._whole("n_estimators", 1)

    def _share(self, shared: SharedState) -> float:
        name = type(self).__name__
        if not self.bootstrap:
            if self.max_samples is not None:
                raise InvalidInput(f"{name}(max_samples=...) is a share of the rows for bootstrap=True alone.")
            if self.oob_score:
                raise InvalidInput(f"{name}(oob_score=True) needs bootstrap=True: otherwise every tree sees every row.")
            return 1.0
        given = 1.0 if self.max_samples is None else self.max_samples
        if isinstance(given, int | np.integer) and not isinstance(given, bool) and given >= 1:
            return 1.0 if shared.n_rows == 0.0 else _seen_by(float(given) / shared.n_rows)
        if not isinstance(given, float | np.floating) or not 0.0 < given <= 1.0:
            raise InvalidInput(
                f"{name}(max_samples={given!r}) is not allowed: a share of the rows in (0.0, 1.0], or a number of rows "
                ">= 1. Nothing was changed."
            )
        return _seen_by(float(given))

    def _takes_shares(self) -> bool:
        number = isinstance(self.max_samples, int | np.integer) and bool(self.bootstrap)
        return number or super()._takes_shares()

    def _released(self, says: Any, trees: Any = None) -> Any:
        if trees is None:
            trees = np.flatnonzero(self._grown().n_rows).tolist() or [-1]
        given = {name: getattr(self, name) for name in ("n_estimators", *PLAIN)}
        out = self._forest_class(**given, bootstrap=bool(self.bootstrap))
        out.estimators_ = [self._tree(t, says) for t in trees]
        out.estimator_ = self._plain_class()
        out.n_outputs_, out.n_features_in_ = out.estimators_[0].n_outputs_, out.estimators_[0].n_features_in_
        for name in ("classes_", "n_classes_"):
            if hasattr(self, name):
                setattr(out, name, getattr(self, name))
        return out

    @property
    def estimators_(self) -> list[Any]:
        """The trees as plain ones of scikit-learn; with categories they read what ``release()[0]`` makes of a frame."""
        return list(self._plain().estimators_)

    def _out_of_bag(self) -> FloatArray:
        """Return for each row held what the trees say that have not seen it; NaN where all have."""
        if not self.oob_score:
            raise AttributeError(f"{type(self).__name__} was made with oob_score=False.")
        forest = self._grown()
        return self._mean(forest.codes, forest.seen())[self._retained]

    @property
    def oob_score_(self) -> float:
        """Accuracy or R2 on the retained rows, each predicted by the trees that have not seen it."""
        return scored(self, self._y[self._retained], self._out_of_bag())


class _Classifier(_Forest, ClassifierTrees):
    @property
    def oob_decision_function_(self) -> FloatArray:
        """Shares of the classes for each row held, by the trees that have not seen it, shape (n_rows, n_classes)."""
        return self._out_of_bag()


class _Regressor(_Forest, RegressorTrees):
    @property
    def oob_prediction_(self) -> FloatArray:
        """Prediction for each row held, by the trees that have not seen it."""
        out = self._out_of_bag()
        return out[:, 0] if self._flat else out


class RandomForestClassifier(_Classifier):
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
    min_impurity_decrease : float, default=0.0
        A node is split only if this lowers the impurity, weighted by the node's share of the rows of a tree, by as much
        or more. The number (weight) of these rows is rounded to a power of ``2 ** (1 / 16)``, within 2.2 %; where a
        deletion changes it, all trees are grown anew. Not with several targets.
    max_features : {"sqrt", "log2"}, int, float or None, default="sqrt"
        Features that a node looks at; more where none of them can be split.
    bootstrap : bool, default=True
        Whether a tree sees a part of the subjects, each once, by a hash of tree and subject: as many as scikit-learn's
        samples with replacement have on average.
    oob_score : bool, default=False
        Whether to serve ``oob_score_`` and ``oob_decision_function_``, computed when asked for.
    n_jobs : int or None, default=None
        Threads for growing, bulk deletions and predictions. The result does not depend on it.
    verbose, warm_start
        Taken and not used. A fit grows all trees; with one key the first of them are those of a smaller forest.
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
    scikit-learn's ``max_leaf_nodes``, ``min_weight_fraction_leaf``, ``ccp_alpha`` and ``monotonic_cst`` are refused
    with a reason unless they have scikit-learn's default: one row could change any part of a tree by them.

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
        min_impurity_decrease: float = 0.0,
        max_features: Any = "sqrt",
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
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
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


class RandomForestRegressor(_Regressor):
    """Random forest for targets, one or several, exact under deletion.

    Targets are rounded to 38 binary digits of the largest, so that sums of them are integers.

    Parameters
    ----------
    criterion : {"squared_error"}, default="squared_error"
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
        min_impurity_decrease: float = 0.0,
        max_features: Any = 1.0,
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
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
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


class ExtraTreesClassifier(_Classifier):
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
        min_impurity_decrease: float = 0.0,
        max_features: Any = "sqrt",
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
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
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


class ExtraTreesRegressor(_Regressor):
    """Extremely randomized trees for targets, exact under deletion.

    Parameters
    ----------
    criterion : {"squared_error"}, default="squared_error"
    max_features : {"sqrt", "log2"}, int, float or None, default=1.0
    n_estimators, max_depth, min_samples_split, min_samples_leaf, min_impurity_decrease, oob_score, n_jobs
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
        min_impurity_decrease: float = 0.0,
        max_features: Any = 1.0,
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
        self.min_impurity_decrease = min_impurity_decrease
        self.max_features = max_features
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
