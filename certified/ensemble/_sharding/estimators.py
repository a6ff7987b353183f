"""Exact deletion for any estimator: a model for each shard, and only shards that a deletion hits learn again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.utils import check_array, check_consistent_length, get_tags
from sklearn.utils.multiclass import check_classification_targets

from certified._data.targets import classes_left, codes_among, target_column
from certified._keeper.probabilities import LogProbabilities
from certified.ensemble._sharding.base import Sharded
from certified.ensemble._sharding.private_answers import distributions, noisy_sum
from certified.ensemble._sharding.shard import Stage
from certified.errors import InvalidInput, InvalidRequest, LastOfClass
from certified.typing import FloatArray, IntArray

__all__ = ["ShardedClassifier", "ShardedRegressor"]


class ShardedClassifier(LogProbabilities, ClassifierMixin, Sharded):
    """A classifier that deletes exactly: copies of any classifier, each of which sees one shard of the subjects.

    A subject's shard follows from the keyed hash of its id. Inside a shard rows are in an order that they alone
    determine, and the copy is seeded by the key, so its state is a function of the set of rows. A deletion fits
    again the copies whose shards it hits, side by side; the state is then that of a refit with the same key, bit for
    bit.

    Parameters
    ----------
    estimator : estimator
        Any classifier with scikit-learn's interface: XGBoost, LightGBM, a neural network, a pipeline. Its
        ``random_state`` is set from the key unless it is an integer, its ``n_jobs`` to 1 unless it is given.
    n_shards : int, default=10
        More shards make a deletion cheaper and each copy weaker, because it sees fewer rows.
    n_slices : int, default=1
        Slices of a shard, with a checkpoint before each; a deletion starts from the checkpoint before the first slice
        that it hits. For estimators with ``partial_fit`` (each slice is learned once) or ``warm_start`` (each fit
        goes on with one more slice); where there are both, ``warm_start=True`` chooses the latter. XGBoost, LightGBM
        and other ensembles of trees get their share of ``n_estimators`` with each slice.
    aggregation : {"average", "vote", "private"}, default="average"
        Mean of the probabilities; shares of the votes; mean with noise, which covers requests that depend on
        earlier answers.
    key : int or None, default=None
        128-bit key of the hashes. None draws a secret one from the operating system, which a statement about a
        fresh key needs; it is then in ``key_``.
    epsilon, delta : float, default=1.0 and 1e-6
        Promise of the private aggregation, for ``n_answers`` answers.
    n_answers : int, default=1
        Rows that the private aggregation answers before :meth:`rekey`.
    at_once : bool, default=True
        Whether all of them are answered by one call. Several calls need about twice the noise, because a question may
        then depend on earlier answers.
    n_jobs : int or None, default=None
        Shards that learn side by side, through joblib; ``joblib.parallel_config`` chooses where.
    verbose : int, default=0
        Progress, as in :class:`joblib.Parallel`.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    certificate_ : Certificate
        Exact; ``adaptivity`` says for which requests and against which refit.
    ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.
    key_ : int
        Private.

    Notes
    -----
    A shard with rows of one class predicts it; one without rows is left out. The list of categories of a frame's
    categorical column belongs to the type of the column, not to a row, and stays. When sharding is the right choice,
    and when it is not, is said in ``docs/theory/sharding.rst``.

    References
    ----------
    Bourtoule et al. (2021), "Machine unlearning". Gupta et al. (2021), "Adaptive machine unlearning".

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from certified.ensemble import ShardedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = ShardedClassifier(DecisionTreeClassifier(max_depth=3), n_shards=5).fit(X, y)
    >>> model.deletion_cost([17]).parts
    1.0
    >>> model.delete([17]).certificate.claim
    'exact'
    """

    _aggregations = ("average", "vote", "private")

    def __init__(
        self,
        estimator: Any,
        n_shards: int = 10,
        *,
        n_slices: int = 1,
        aggregation: str = "average",
        key: int | None = None,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        n_answers: int = 1,
        at_once: bool = True,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.n_shards = n_shards
        self.n_slices = n_slices
        self.aggregation = aggregation
        self.key = key
        self.epsilon = epsilon
        self.delta = delta
        self.n_answers = n_answers
        self.at_once = at_once
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _target(self, y: Any, n_rows: int) -> IntArray:
        y = target_column(y, n_rows, type(self).__name__)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidInput(
                f"{type(self).__name__}.fit got y with one class ({self.classes_[0]!r}). Two classes are needed."
            )
        return codes.astype(np.int64)

    def _more_targets(self, y: Any, n_rows: int) -> IntArray:
        return codes_among(self.classes_, y, n_rows, f"{type(self).__name__}.add")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not is_classifier(self.estimator):
            self._refuse("estimator", "A classifier is allowed; for a regressor there is ShardedRegressor.")
        if self.aggregation == "average" and not hasattr(self.estimator, "predict_proba"):
            self._refuse("estimator", "It has no predict_proba, which aggregation='average' needs; use 'vote'.")

    def _with_classes_left(self, rows: IntArray) -> tuple[Any, Callable[[], None]] | None:
        """Every shard learns anew, as the codes of the classes change; answers that were given stay counted."""
        if self.aggregation == "private":  # all shards would change, which its noise does not hide
            return None
        codes = np.concatenate([shard.table.y for shard in self._shards])
        stay = ~np.isin(np.concatenate([shard.positions for shard in self._shards]), rows)
        if classes_left(codes, stay, len(self.classes_)) is None:
            return None
        table, positions = self._dealt()
        found = classes_left(table.y, ~np.isin(positions, rows), len(self.classes_))
        assert found is not None
        draft, left = self._draft(), np.flatnonzero(~np.isin(positions, rows))
        draft.classes_ = self.classes_[found[0]]
        table = table._replace(y=found[1]).take(left)
        try:
            draft._learn(self._subjects, table, positions[left], self._key, self._drawn)
        except InvalidInput as error:
            raise InvalidRequest(f"delete(ids=...) makes a fit necessary that is refused: {error}") from error
        return draft, _nothing

    def _check_left(self, hits: list[tuple[int, Any, int]]) -> None:
        if not hits:
            return
        masks = {s: gone for s, gone, _ in hits}
        for code in np.unique(np.concatenate([self._shards[s].table.y[gone] for s, gone in masks.items()])):
            if not any(
                np.any((shard.table.y == code) & ~masks[s] if s in masks else shard.table.y == code)
                for s, shard in enumerate(self._shards)
            ):
                raise LastOfClass(
                    f"delete(ids=...) would leave no row of class {self.classes_.tolist()[code]!r}. A class leaves "
                    "with its last row where two others stay and the aggregation is not private. Fit a model without "
                    "that class instead. Nothing was changed."
                )

    def _n_outputs(self) -> int:
        return 1 if len(self.classes_) == 2 else len(self.classes_)

    def _answer(self, stage: Stage, X: Any, votes: bool) -> FloatArray:
        """Return the distribution over all classes that a shard gives each row; uniform if it knows nothing."""
        out = np.zeros((X.shape[0], len(self.classes_)))
        if stage.classes.size == 0:
            out[:] = 1.0 / len(self.classes_)
        elif stage.model is None:
            out[:, stage.classes[0]] = 1.0
        elif votes:
            out[np.arange(len(out)), stage.classes[np.asarray(stage.model.predict(X)).astype(np.int64)]] = 1.0
        else:
            out[:, stage.classes] = stage.model.predict_proba(X)
        return out

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the mean of the shards' distributions over the classes, shape (n_rows, n_classes).

        With ``aggregation="vote"`` the shares of the votes; with "private" noisy, and each row counts as an answer.
        """
        stages = self._served()
        X = self._seen(X)
        votes = self.aggregation == "vote" or not hasattr(self.estimator, "predict_proba")
        if self.aggregation != "private":
            return np.mean([self._answer(stage, X, votes) for stage in stages if stage.classes.size], axis=0)
        self._count_answers(X.shape[0])
        each = np.array([distributions(self._answer(stage, X, votes)) for stage in stages])
        if self._n_outputs() == 1:
            second = np.clip(noisy_sum(each[:, :, 1], self._sigma) / self.n_shards, 0.0, 1.0)
            return np.column_stack([1.0 - second, second])
        mean = np.clip(noisy_sum(each, self._sigma) / self.n_shards, 2.0**-40, 1.0)
        return mean / mean.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row; a tie goes to the class that comes first."""
        best = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[best]


class ShardedRegressor(RegressorMixin, Sharded):
    """A regressor that deletes exactly: copies of any regressor, each of which sees one shard of the subjects.

    Parameters
    ----------
    estimator : estimator
        Any regressor with scikit-learn's interface, of one output or several.
    n_shards, n_slices, key, epsilon, delta, n_answers, at_once, n_jobs, verbose
        As in :class:`ShardedClassifier`.
    aggregation : {"average", "private"}, default="average"
        Mean of the predictions; the mean of those clipped to ``output_range``, with noise.
    output_range : pair of float or None, default=None
        Lowest and highest prediction of the private aggregation, chosen without the data.

    Attributes
    ----------
    certificate_, ids_, n_rows_, state_digest_, key_
        As in :class:`ShardedClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.tree import DecisionTreeRegressor
    >>> from certified.ensemble import ShardedRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ShardedRegressor(DecisionTreeRegressor(max_depth=3), n_shards=5).fit(X, y)
    >>> model.delete([3]).certificate.claim
    'exact'
    """

    _aggregations = ("average", "private")

    def __init__(
        self,
        estimator: Any,
        n_shards: int = 10,
        *,
        n_slices: int = 1,
        aggregation: str = "average",
        output_range: Any = None,
        key: int | None = None,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        n_answers: int = 1,
        at_once: bool = True,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.n_shards = n_shards
        self.n_slices = n_slices
        self.aggregation = aggregation
        self.output_range = output_range
        self.key = key
        self.epsilon = epsilon
        self.delta = delta
        self.n_answers = n_answers
        self.at_once = at_once
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _target(self, y: Any, n_rows: int) -> FloatArray:
        table: Any = np.empty(0) if y is None or issparse(y) else np.asarray(y)
        if table.ndim != 2 or table.shape[1] == 1:
            return np.array(target_column(y, n_rows, type(self).__name__), dtype=np.float64)
        if self.aggregation == "private":
            self._refuse("aggregation", f"Noise is for one output, and y has {table.shape[1]}; use 'average'.")
        check_consistent_length(np.empty(n_rows), table)
        return np.array(check_array(table, dtype=np.float64, input_name="y"))

    def _more_targets(self, y: Any, n_rows: int) -> FloatArray:
        more, held = self._target(y, n_rows), self._shards[0].table.y
        if more.shape[1:] != held.shape[1:]:
            counts = [part.shape[1] if part.ndim == 2 else 1 for part in (more, held)]
            raise InvalidInput(
                f"{type(self).__name__}.add got y with {counts[0]} outputs, the fit had {counts[1]}. As many are "
                "needed. Nothing was changed."
            )
        return more

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not is_regressor(self.estimator):
            self._refuse("estimator", "A regressor is allowed; for a classifier there is ShardedClassifier.")
        if self.aggregation == "private":
            low, high = self.output_range if np.shape(self.output_range) == (2,) else (0.0, 0.0)
            if not (np.isfinite([low, high]).all() and low < high):
                self._refuse("output_range", "The private aggregation needs a pair (lowest, highest).")

    def predict(self, X: Any) -> FloatArray:
        """Return the mean of the shards' predictions; with "private" noisy, and each row counts as an answer."""
        stages = self._served()
        X = self._seen(X)
        if self.aggregation != "private":
            return np.mean([_column(stage.model.predict(X)) for stage in stages if stage.model is not None], axis=0)
        self._count_answers(X.shape[0])
        low, high = self.output_range
        each = np.full((len(stages), X.shape[0]), 0.5)
        for s, stage in enumerate(stages):
            if stage.model is not None:
                said = np.ravel(stage.model.predict(X)).astype(np.float64)
                each[s] = np.clip((np.where(np.isnan(said), (low + high) / 2, said) - low) / (high - low), 0.0, 1.0)
        return low + (high - low) * np.clip(noisy_sum(each, self._sigma) / self.n_shards, 0.0, 1.0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator).target_tags
        tags.target_tags.multi_output = inner.multi_output and self.aggregation != "private"
        return tags


def _column(predicted: Any) -> FloatArray:
    """Return predictions of one output as a column, those of several as they are."""
    return np.ravel(predicted) if np.ndim(predicted) < 2 or np.shape(predicted)[1] == 1 else np.asarray(predicted)


def _nothing() -> None:
    """Overwrite nothing: shards are replaced as wholes."""
