"""Transformers in sequence as one: each forgets with the features that those before it make.

A step is a :class:`certified.stable.Stable`, or wrapped as one: what learns nothing from the rows (``Passive``), and
pipelines of steps (``Chain``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_approximation import AdditiveChi2Sampler, PolynomialCountSketch, RBFSampler, SkewedChi2Sampler
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Binarizer, FunctionTransformer, Normalizer, PolynomialFeatures
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _check_feature_names_in

from certified.columns import Columns, Schema, columns_of, row_of, values_of
from certified.errors import InvalidInput, NotDeletable
from certified.stable import Stable, Table, same
from certified.typing import FloatArray

__all__ = [
    "Chain",
    "Passive",
    "admit",
    "as_step",
    "forget_through",
    "is_of_text",
    "is_passthrough",
    "learn_through",
    "of_table",
    "served",
    "targets",
]

_STATELESS = (
    AdditiveChi2Sampler,
    Binarizer,
    FunctionTransformer,
    HashingVectorizer,
    Normalizer,
    PolynomialFeatures,
)
_BY_ELEMENT = (AdditiveChi2Sampler, Binarizer, Normalizer, PolynomialFeatures)  # no sum but within a row, in its order
_ROWS = 256  # in a block
_TRIED = 8
# Drawn by their seed and the number of features alone, unless a parameter has one of these values.
_SEEDED = (GaussianRandomProjection, PolynomialCountSketch, RBFSampler, SkewedChi2Sampler, SparseRandomProjection)
_OF_ROWS = {"gamma": "scale", "n_components": "auto"}


def as_step(step: Any, name: str, caller: str) -> Stable:
    """Return a transformer as an unfitted step, a clone; raise NotDeletable if it cannot forget."""
    if isinstance(step, Stable):
        step = clone(step)
        step._ready()
        step._owned = True
        return step
    if isinstance(step, _BaseComposition) and hasattr(step, "steps"):
        return Chain([(inner, as_step(part, f"{name}__{inner}", caller)) for inner, part in step.steps])
    if (
        _is_drawn(step)
        or (isinstance(step, str) and step == "passthrough")
        or isinstance(step, (*_STATELESS, FrozenEstimator))
    ):
        return Passive(step)
    shown = repr(step) if isinstance(step, str) else f"a {type(step).__name__}"
    reads_text = hasattr(step, "__sklearn_tags__") and is_of_text(step)
    other = (
        "scikit-learn's HashingVectorizer, which learns nothing" if reads_text else "its counterpart from `certified`"
    )
    raise NotDeletable(
        f"{caller} got the step {name!r}, {shown}, which learns from the data and cannot forget. Use "
        f"{other}, wrap it in FrozenEstimator if it was fitted on other "
        "data that are not subject to deletion, or use FunctionTransformer if it learns nothing."
    )


def _is_drawn(step: Any) -> bool:
    """Whether a transformer is random and does not depend on the rows, only on a seed that it was given."""
    if not isinstance(step, _SEEDED) or not isinstance(step.random_state, int | np.integer):
        return False
    return all(getattr(step, name, None) != value for name, value in _OF_ROWS.items())


def is_of_text(step: Any) -> bool:
    """Whether a transformer takes documents, one for each row, and not a table; a union where all of its parts do."""
    step = step.step if isinstance(step, Passive) else step
    if isinstance(step, str):
        return False
    if hasattr(step, "steps"):
        entered = [part for _, part in step.steps if part != "passthrough" and not is_passthrough(part)]
        return bool(entered) and is_of_text(entered[0])
    if hasattr(step, "transformer_list"):
        return all(is_of_text(part) for _, part in step.transformer_list if part != "drop")
    tags = get_tags(step).input_tags
    return bool(tags.string and not tags.two_d_array)


def is_passthrough(step: Any) -> bool:
    """Whether a step hands on what it gets."""
    return isinstance(step, Passive) and isinstance(step.step, str)


def of_table(step: Any, plain: Any) -> Any:
    """Return what a step released as it takes a table: scikit-learn's vectorisers take a plain column of documents."""
    if not is_of_text(step):
        return plain
    return Pipeline([("column", FunctionTransformer(np.ravel, feature_names_out="one-to-one")), ("text", plain)])


class Passive(Stable):
    """A transformer that learns nothing from the rows but their number of features: the statistic and what is served.

    What it makes of text or of sparse features may be sparse; what it makes of an array is an array. One that takes
    documents has a single column of text.

    A row must come out the same, bit for bit, whichever rows are beside it: else what a deletion takes back is not what
    the fit counted. A matrix product rounds a row otherwise where there are fewer of them, so an array is handed over
    in blocks of one shape, the last one filled up; and what depends on the other rows all the same is refused.

    Parameters
    ----------
    step : "passthrough", FrozenEstimator or transformer
        Fitted on rows of zeros, where it has to be fitted.
    """

    def __init__(self, step: Any) -> None:
        self.step = step

    def _count(self, table: Table) -> tuple[int]:
        if is_of_text(self.step):
            self._documents(table.x)
        else:
            self._check_rows_apart(table.x)
        return (table.x.shape[1],)

    def _check_rows_apart(self, x: Any) -> None:
        """Raise NotDeletable if a row comes out differently beside other rows."""
        n = x.shape[0]
        if isinstance(self.step, str) or n < 2:
            return
        some = np.unique(np.linspace(0, n - 1, _TRIED).astype(np.intp))
        together, learned = self._apply((x.shape[1],), x[some]), (x.shape[1],)
        for k in (0, len(some) // 2, len(some) - 1):
            alone = self._apply(learned, x[some[k : k + 1]])
            if not same(values_of(alone), values_of(together[k : k + 1])):
                raise NotDeletable(
                    f"{type(self.step).__name__} makes another value of a row when other rows are beside it, so it "
                    "learns from them and cannot forget. Let the function treat every row by itself, or use a "
                    "transformer of `certified`. Nothing was changed."
                )

    def _discount(self, statistic: tuple[int], removed: Table) -> tuple[int]:
        return statistic

    def _derive(self, statistic: tuple[int]) -> tuple[int]:
        return statistic

    def _apply(self, learned: tuple[int], X: Any) -> Any:
        if isinstance(self.step, str):
            return X
        if not X.shape[0]:  # transformers of others refuse to see no row
            return np.empty((0, self._width(learned, learned[0])))
        of_text = is_of_text(self.step)
        plain = self._fitted(learned[0])
        if not (of_text or issparse(X) or isinstance(self.step, _BY_ELEMENT)):
            return _in_blocks(plain.transform, np.asarray(X))
        out = plain.transform(self._documents(X) if of_text else X if issparse(X) else np.asarray(X))
        if issparse(out) and (of_text or issparse(X)):
            return csr_array(out, dtype=np.float64)
        return _dense(out)

    def _documents(self, X: Any) -> Any:
        """Return the one column of a table of text."""
        name, columns = type(self.step).__name__, columns_of(X) if isinstance(X, Columns) else []
        if len(columns) != 1:
            raise InvalidInput(
                f"{name} got {X.shape[1]} columns, or numbers. One column of text is needed. Give a list of texts, or "
                f"choose a column: ColumnTransformer([('text', {name}(), 'column')])."
            )
        missing = np.array([text is None for text in columns[0]])
        if missing.any():
            raise InvalidInput(
                f"{name} got {int(missing.sum())} rows without text, the first at position "
                f"{int(np.argmax(missing))}. Text is needed in every row. Write an empty text where there is none."
            )
        return columns[0]

    def _fitted(self, n_features: int) -> Any:
        if isinstance(self.step, FrozenEstimator):
            return self.step
        if "_statistic" in self.__dict__ and self._learned[0] == n_features:
            return self._plain
        return clone(self.step).fit(["a"] if is_of_text(self.step) else np.zeros((1, n_features)))

    def _width(self, learned: tuple[int], n_features: int) -> int:
        if isinstance(self.step, str):
            return n_features
        made_up = row_of(["a"]) if is_of_text(self.step) else np.zeros((1, n_features))
        return self._apply(learned, made_up).shape[1]

    def _example(self, learned: tuple[int], n_features: int) -> list[Any]:
        return ["a"] if is_of_text(self.step) else super()._example(learned, n_features)

    def _serve(self, statistic: tuple[int], learned: tuple[int]) -> None:
        if not isinstance(self.step, str):
            self._plain = self._fitted(learned[0])
        super()._serve(statistic, learned)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names that the transformer gives, or numbered ones where it gives none."""
        names = _check_feature_names_in(self, input_features)
        if isinstance(self.step, str):
            return names
        if hasattr(self._plain, "get_feature_names_out"):
            return np.asarray(self._plain.get_feature_names_out(names), dtype=object)
        return np.array([f"x{j}" for j in range(self._width(self._learned, len(names)))], dtype=object)

    def release(self) -> Any:
        """Return the transformer itself, with the names of the features where it was given some."""
        if isinstance(self.step, str | FrozenEstimator) or not hasattr(self, "feature_names_in_"):
            return self.step if isinstance(self.step, str) else self._plain
        out = copy(self._plain)
        out.feature_names_in_ = self.feature_names_in_.copy()
        return out


def _in_blocks(transform: Callable[[Any], Any], X: Any) -> FloatArray:
    """Return what a transformer makes of an array, handed over in blocks of `_ROWS` rows, the last one filled up."""
    out = []
    for start in range(0, max(len(X), 1), _ROWS):
        part = X[start : start + _ROWS]
        whole = part[np.minimum(np.arange(_ROWS), len(part) - 1)] if 0 < len(part) < _ROWS else part
        out.append(_dense(transform(np.ascontiguousarray(whole)))[: len(part)])
    return np.concatenate(out) if len(out) > 1 else out[0]


def _dense(out: Any) -> FloatArray:
    return np.asarray(out.toarray() if hasattr(out, "toarray") else out, dtype=np.float64)


class Chain(Stable):
    """Steps in sequence, one step of something larger.

    Parameters
    ----------
    steps : list of (str, Stable)
        From :func:`as_step`.
    """

    def __init__(self, steps: list[tuple[str, Stable]]) -> None:
        self.steps = steps

    @property
    def parts(self) -> list[Stable]:
        """The steps without their names."""
        return [step for _, step in self.steps]

    def _see(self, X: Any, names: Any, schema: Schema | None) -> None:
        super()._see(X, names, schema)
        self.parts[0]._see(X, names, schema)

    def _count(self, table: Table) -> tuple[Any, ...]:
        return learn_through(self.parts, table)[0]

    def _forget(self, statistic: Any, removed: Table, left: Callable[[], Table]) -> tuple[Any, ...]:
        return forget_through(self.parts, removed, left)[0]

    def _derive(self, statistic: Any) -> tuple[Any, ...]:
        return tuple(step._derived(part) for step, part in zip(self.parts, statistic, strict=True))

    def _apply(self, learned: Any, X: Any) -> Any:
        for step, part in zip(self.parts, learned, strict=True):
            X = step._apply(part, X)
        return X

    def _apply_rows(self, learned: Any, table: Table) -> Any:
        for step, part in zip(self.parts, learned, strict=True):
            table = table._replace(x=step._apply_rows(part, table))
        return table.x

    def _renewed(self, learned: Any, left: Callable[[], Table]) -> list[Any]:
        entered = left
        for step, part in zip(self.parts[:-1], learned, strict=False):
            if not same(part, step._learned):
                return [self._apply_rows(learned, left())]
            entered = _then(step, part, entered)
        return self.parts[-1]._renewed(learned[-1], entered)

    def _target(self, y: Any, n_rows: int) -> Any:
        return targets([step for step in self.parts if step._supervised], y, n_rows)

    @property
    def _supervised(self) -> bool:  # type: ignore[override]
        return any(step._supervised for step in self.parts)

    def _width(self, learned: Any, n_features: int) -> int:
        for step, part in zip(self.parts, learned, strict=True):
            n_features = step._width(part, n_features)
        return n_features

    def _example(self, learned: Any, n_features: int) -> list[Any]:
        return self.parts[0]._example(learned[0], n_features)

    def _serve(self, statistic: Any, learned: Any) -> None:
        n_features = self.n_features_in_
        for step, counted, part in zip(self.parts, statistic, learned, strict=True):
            n_features = served(step, counted, part, n_features)
        super()._serve(statistic, learned)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out of the last step."""
        names = _check_feature_names_in(self, input_features)
        for step in self.parts:
            names = step.get_feature_names_out(names)
        return names

    def release(self) -> Pipeline:
        """Return a plain pipeline of the released steps."""
        (name, first), *rest = self.steps
        return Pipeline([(name, first.release()), *((name, of_table(step, step.release())) for name, step in rest)])


def targets(steps: Sequence[Stable], y: Any, n_rows: int) -> Any:
    """Return the targets as all of these steps use them, None for no steps."""
    found = [step._target(y, n_rows) for step in steps]
    for step, other in zip(steps, found, strict=True):
        if not np.array_equal(other, found[0]):
            raise InvalidInput(
                f"{type(step).__name__} and {type(steps[0]).__name__} take y for different things, classes and "
                "numbers. Set target_type= of the encoder."
            )
    return found[0] if found else None


def served(step: Stable, statistic: Any, learned: Any, n_features: int) -> int:
    """Let a step serve what it has learned from this many features; return how many come out. Cannot fail."""
    step.n_features_in_ = n_features
    if not (statistic is step.__dict__.get("_statistic") and learned is step._learned):
        step._serve(statistic, learned)
    return step._width(learned, n_features)


def learn_through(steps: Sequence[Stable], table: Table) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Return the statistics of the steps, what they learn, and the features that come out of the last one."""
    statistics, learned = [], []
    for step in steps:
        admit(step, table.x)
        statistics.append(step._count(table))
        learned.append(step._derive(statistics[-1]))
        table = table._replace(x=step._apply_rows(learned[-1], table))
    return tuple(statistics), tuple(learned), table.x


def forget_through(
    steps: Sequence[Stable], removed: Table, left: Callable[[], Table]
) -> tuple[tuple[Any, ...], tuple[Any, ...], list[bool], Callable[[], list[Any]]]:
    """Return statistics, what is learned, which steps serve something else, and the features of the rows left.

    Everything is counted anew from the first step that serves something else. Features are made only when asked for,
    in the pieces of ``Stable._renewed``.
    """
    statistics: list[Any] = []
    learned: list[Any] = []
    changed: list[bool] = []
    entered = left
    for step in steps:
        entered = left
        if any(changed):
            admit(step, left().x)
            statistics.append(step._count(left()))
        else:
            statistics.append(step._forget(step._statistic, removed, left))
        learned.append(step._derived(statistics[-1]))
        changed.append(not same(learned[-1], step._learned))
        if not any(changed):
            removed = removed._replace(x=step._apply_rows(step._learned, removed))
        left = _then(step, learned[-1], left)

    def pieces() -> list[Any]:
        return [left().x] if any(changed[:-1]) else steps[-1]._renewed(learned[-1], entered)

    return tuple(statistics), tuple(learned), changed, pieces


def admit(step: Stable, x: Any) -> None:
    """Raise InvalidInput if a step cannot take these features."""
    if isinstance(step, Passive | Chain):
        return  # what follows is theirs to say
    tags, name = get_tags(step).input_tags, type(step).__name__
    if isinstance(x, Columns):
        if not tags.categorical:
            raise InvalidInput(
                f"{name} got features that are text. Put certified.preprocessing.OneHotEncoder in front of it, or "
                "choose other columns."
            )
        return
    if issparse(x) and not tags.sparse:
        raise InvalidInput(
            f"{name} got sparse features, and takes dense ones. Set sparse_output=False in the encoder or "
            "sparse_threshold=0 in the ColumnTransformer in front of it."
        )
    if not (tags.allow_nan or np.isfinite(values_of(x)).all()):
        raise InvalidInput(
            f"{name} got features that are missing (NaN) or infinite from the steps before it. Put "
            "certified.impute.SimpleImputer in front of it, or correct the rows."
        )


def _then(step: Stable, learned: Any, left: Callable[[], Table]) -> Callable[[], Table]:
    @cache
    def after() -> Table:
        table = left()
        return table._replace(x=step._apply_rows(learned, table))

    return after
