"""Steps that learn nothing from the rows: transformers of others, functions, frozen ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_array, issparse, vstack
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_approximation import AdditiveChi2Sampler, PolynomialCountSketch, RBFSampler, SkewedChi2Sampler
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Binarizer, FunctionTransformer, Normalizer, PolynomialFeatures
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.utils import get_tags
from sklearn.utils.validation import _check_feature_names_in

from certified._data.frames import Columns, Schema, columns_of, row_of
from certified._data.reproducible import same
from certified._data.table import Table
from certified._steps.step import ExactStep, canonical
from certified.errors import InvalidInput, NotDeletable
from certified.parts._table import PartedTable
from certified.typing import FloatArray

__all__ = ["StatelessStep", "as_named", "is_of_text", "is_passthrough", "is_stateless", "of_table"]

_STATELESS = (
    AdditiveChi2Sampler,
    Binarizer,
    FunctionTransformer,
    HashingVectorizer,
    Normalizer,
    PolynomialFeatures,
)


_ROWS = 256  # in a block
_ALONE = 128  # rows of the fit that a function of the user's must make the same of by themselves
_ALONE_OF_KNOWN = 8


# Drawn by their seed and the number of features alone, unless a parameter has one of these values.
_SEEDED = (GaussianRandomProjection, PolynomialCountSketch, RBFSampler, SkewedChi2Sampler, SparseRandomProjection)


_OF_ROWS = {"gamma": "scale", "n_components": "auto"}


def as_named(step: Any) -> Any:
    """Return a step as given, "passthrough" for None."""
    return "passthrough" if step is None else step


def is_stateless(step: Any) -> bool:
    """Whether a step learns nothing from the rows: known of its class, or declared."""
    named = isinstance(step, str) and step == "passthrough"
    return named or _is_drawn(step) or isinstance(step, (*_STATELESS, FrozenEstimator))


def _is_drawn(step: Any) -> bool:
    """Whether a transformer is random and does not depend on the rows, only on a seed that it was given."""
    if not isinstance(step, _SEEDED) or not isinstance(step.random_state, int | np.integer):
        return False
    return all(getattr(step, name, None) != value for name, value in _OF_ROWS.items())


def is_of_text(step: Any) -> bool:
    """Whether a transformer takes documents, one for each row, and not a table; a union where all of its parts do."""
    step = as_named(step.step if isinstance(step, StatelessStep) else step)
    if isinstance(step, str):
        return False
    if hasattr(step, "steps"):
        entered = [part for _, part in step.steps if as_named(part) != "passthrough" and not is_passthrough(part)]
        return bool(entered) and is_of_text(entered[0])
    if hasattr(step, "transformer_list"):
        return all(is_of_text(part) for _, part in step.transformer_list if part != "drop")
    tags = get_tags(step).input_tags
    return bool(tags.string and not tags.two_d_array)


def is_passthrough(step: Any) -> bool:
    """Whether a step hands on what it gets."""
    return isinstance(step, StatelessStep) and isinstance(step.step, str)


def of_table(step: Any, plain: Any) -> Any:
    """Return what a step released as it takes a table: scikit-learn's vectorisers take a plain column of documents."""
    if not is_of_text(step):
        return plain
    return Pipeline([("column", FunctionTransformer(np.ravel, feature_names_out="one-to-one")), ("text", plain)])


class _Frame(NamedTuple):
    """Names of columns, and whether they stand in a frame of pandas, which most transformers of others ask for."""

    names: Any
    pandas: bool

    def of(self, block: Any) -> Any:
        """Return rows as such a frame; of polars where pandas is not installed."""
        rows = block.toarray() if issparse(block) else block
        columns = {str(name): _plain(rows[:, j]) for j, name in enumerate(self.names)}
        if self.pandas:
            with suppress(ImportError):
                return import_module("pandas").DataFrame(columns)
        return pl.DataFrame(columns)


class StatelessStep(ExactStep):
    """A transformer that learns nothing from the rows but their number of features: the statistic and what is served.

    What it makes of text or of sparse features may be sparse; what it makes of an array is an array. One that takes
    documents has a single column of text.

    A row must come out the same, bit for bit, whichever rows are beside it: else what a deletion takes back is not what
    the fit counted. Sums inside a row round by the order of memory, and a matrix product rounds a row otherwise where
    there are fewer of them: so rows are handed over in blocks of one shape and one order of memory, the last one filled
    up. That what comes out depends on the row alone is known of scikit-learn's transformers, and a declaration of the
    user's for functions and for what is frozen. A fit tests it: all rows again beside others, some by themselves. No
    test proves it, so the certificate says that it rests on the declaration.

    What was fitted on a frame and frozen gets a frame with the names it knows. A function, or what is frozen and knows
    no names, that fails on an array and not on a frame gets a frame.

    Parameters
    ----------
    step : "passthrough", FrozenEstimator or transformer
        Fitted on rows of zeros, where it has to be fitted.
    """

    _frame: _Frame | None = None  # that the transformer asks for; None where it takes an array

    def __init__(self, step: Any) -> None:
        self.step = step

    def _see(self, X: Any, names: Any, schema: Schema | None) -> None:
        super()._see(X, names, schema)
        self._frame = None
        known = isinstance(self.step, FunctionTransformer) and isinstance(self.step.func, np.ufunc | None)
        nameless = isinstance(self.step, FrozenEstimator) and not hasattr(self.step.estimator, "feature_names_in_")
        if not (isinstance(self.step, FunctionTransformer) or nameless) or known or names is None:
            return
        text = [] if schema is None else [j for j, kind in enumerate(schema.kinds) if kind == "text"]
        values: Any = np.zeros((_ROWS, len(names)), dtype=object if text else np.float64)
        if text:
            values[:, text] = "a"
        asked = _Frame(names, hasattr(X, "iloc"))
        if _fails(self.step.transform, values) and not _fails(self.step.transform, asked.of(values)):
            self._frame = asked

    @property
    def declared(self) -> str:
        """What the user declares and nobody can prove, a clause; empty for what is known."""
        if isinstance(self.step, FrozenEstimator):
            return f"{type(self.step.estimator).__name__} was fitted on other data and treats every row by itself"
        if isinstance(self.step, FunctionTransformer):
            if self.step.func is None or (isinstance(self.step.func, np.ufunc) and not self.step.kw_args):
                return ""
            name = getattr(self.step.func, "__name__", type(self.step.func).__name__)
            return f"the function {name} treats every row by itself"
        return ""

    def _declared(self) -> list[str]:
        return [self.declared] if self.declared else []

    def _count_over(self, rows: PartedTable) -> tuple[int]:
        return next(rows.map(_counted_by, self))

    def _count(self, table: Table) -> tuple[int]:
        if is_of_text(self.step):
            self._documents(table.x)
        else:
            self._check_rows_apart(table.x)
        return (table.x.shape[1],)

    def _check_rows_apart(self, x: Any) -> None:
        """Raise NotDeletable if a row comes out differently beside other rows."""
        if isinstance(self.step, str):
            return
        learned = (x.shape[1],)
        together = self._apply(learned, x)
        for rows in _company(x.shape[0], _ALONE if self.declared else _ALONE_OF_KNOWN):
            if not _alike(self._apply(learned, x[rows]), together[rows]):
                raise NotDeletable(
                    f"{type(self.step).__name__} makes another value of a row when other rows are beside it, so it "
                    "learns from them and cannot delete rows. Let the function treat every row by itself, or use a "
                    "transformer of `certified`. Nothing was changed."
                )

    def _subtract(self, statistic: tuple[int], removed: Table) -> tuple[int]:
        return statistic

    def _learned_from(self, statistic: tuple[int]) -> tuple[int]:
        return statistic

    def _apply(self, learned: tuple[int], X: Any) -> Any:
        if isinstance(self.step, str):
            return X
        if not X.shape[0]:  # transformers of others refuse to see no row
            return np.empty((0, self._width(learned, learned[0])))
        plain = self._fitted(learned[0])
        if not is_of_text(self.step):
            asked = self._frame
            if isinstance(self.step, FrozenEstimator) and hasattr(self.step.estimator, "feature_names_in_"):
                asked = _Frame(self.step.estimator.feature_names_in_, True)
            handed = plain.transform if asked is None else lambda block: plain.transform(asked.of(block))
            return _in_blocks(handed, X, type(self.step).__name__)
        out = plain.transform(self._documents(X))
        return canonical(csr_array(out, dtype=np.float64)) if issparse(out) else _dense(out)

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
        if is_of_text(self.step):
            return clone(self.step).fit(["a"])
        rows = np.zeros((1, n_features))
        return clone(self.step).fit(rows if self._frame is None else self._frame.of(rows))

    def _width(self, learned: tuple[int], n_features: int) -> int:
        if isinstance(self.step, str):
            return n_features
        made_up = row_of(["a"]) if is_of_text(self.step) else np.zeros((1, n_features))
        return self._apply(learned, made_up).shape[1]

    def _example(self, learned: tuple[int], n_features: int) -> list[Any]:
        return ["a"] if is_of_text(self.step) else super()._example(learned, n_features)

    def transform(self, X: Any) -> Any:
        """Return what the transformer makes of the rows."""
        return self._apply(self._learned, X)

    def _store(self, statistic: tuple[int], learned: tuple[int]) -> None:
        if not isinstance(self.step, str):
            self._plain = self._fitted(learned[0])
        super()._store(statistic, learned)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names that the transformer gives, or numbered ones where it gives none."""
        names = _check_feature_names_in(self, input_features)
        if isinstance(self.step, str):
            return names
        if hasattr(self._plain, "get_feature_names_out"):
            return np.asarray(self._plain.get_feature_names_out(names), dtype=object)
        return np.array([f"x{j}" for j in range(self._width(self._learned, len(names)))], dtype=object)

    def _release(self) -> Any:
        """Return the transformer itself, with the names of the features where it was given some."""
        if isinstance(self.step, str | FrozenEstimator) or not hasattr(self, "feature_names_in_"):
            return self.step if isinstance(self.step, str) else self._plain
        out = copy(self._plain)
        out.feature_names_in_ = self.feature_names_in_.copy()
        return out


def _in_blocks(transform: Callable[[Any], Any], X: Any, name: str) -> Any:
    """Return what a transformer makes of rows, handed over in blocks of `_ROWS`, the last one filled up.

    Sparse where both are. A block is an array in C order, or a CSR array.
    """
    out: list[Any] = []
    sparse = issparse(X)
    X = X if sparse else np.asarray(X)
    for start in range(0, max(X.shape[0], 1), _ROWS):
        part = X[start : start + _ROWS]
        n = part.shape[0]
        whole = part[np.minimum(np.arange(_ROWS), n - 1)]
        block = transform(whole if sparse else np.ascontiguousarray(whole))
        if getattr(getattr(block, "dtype", None), "kind", "f") in "OUT" and _fails(_dense, block):
            raise InvalidInput(
                f"{name} made values that are no numbers, for example {np.ravel(block)[0]!r}. Numbers are needed. "
                "Apply it to the data before, or encode the text by a transformer of `certified`. Nothing was changed."
            )
        made = canonical(csr_array(block, dtype=np.float64)) if sparse and issparse(block) else _dense(block)
        if made.ndim != 2 or made.shape[0] != _ROWS or (out and made.shape[1] != out[0].shape[1]):
            raise NotDeletable(
                f"{name} made a table of shape {made.shape} of {_ROWS} rows"
                + (f", and one of {out[0].shape[1]} columns of others" if out else "")
                + ". One row for each row, and as many columns whatever the values, are needed: what depends on the "
                "other rows cannot be forgotten. Nothing was changed."
            )
        out.append(made[:n])
    if len(out) == 1:
        return out[0]
    return csr_array(vstack(out, format="csr")) if issparse(out[0]) else np.concatenate(out)


def _fails(transform: Callable[[Any], Any], X: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(np.asarray(transform(X)).shape[0] != X.shape[0])
        except Exception:
            return True


def _plain(column: Any) -> Any:
    """Return a column of objects as numbers where it holds numbers alone."""
    return (
        column
        if column.dtype != object or any(v is None or isinstance(v, str) for v in column)
        else column.astype(np.float64)
    )


def _company(n: int, alone: int) -> Iterator[Any]:
    """Yield positions of rows, each row again beside others in several ways, and some rows by themselves."""
    every = np.arange(n)
    groups = [np.roll(every[::-1], _ROWS // 2), every[::2], every[1::2], every[: n // 2], every[n // 2 :]]
    yield from (rows for rows in groups if rows.size)
    for k in np.unique(np.linspace(0, n - 1, min(n, alone)).astype(np.intp)):
        yield every[k : k + 1]


def _alike(a: Any, b: Any) -> bool:
    """Whether two tables hold the same bits."""
    if issparse(a) and issparse(b):
        return a.shape == b.shape and all(same(getattr(a, p), getattr(b, p)) for p in ("indptr", "indices", "data"))
    return not issparse(a) and not issparse(b) and same(a, b)


def _dense(out: Any) -> FloatArray:
    return canonical(np.array(out.toarray() if hasattr(out, "toarray") else out, dtype=np.float64))


def _counted_by(table: Table, weight: Any, step: StatelessStep) -> tuple[int]:
    """What a step finds in a part: how many features there are, the same in all of them."""
    return step._count(table)
