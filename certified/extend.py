"""What an estimator of your own is made of, in one place. Names that start with ``_`` elsewhere may change.

Two ways lead to an estimator from which subjects can be deleted. One is to have the methods that the page "Make your
estimator deletable" lists: no base class is needed. The other is :class:`ExactStep`: give it a statistic from which
rows can be subtracted exactly, and it fits, deletes, adds, certifies and takes part in pipelines::

    class Centre(ExactTransformer):
        def _count(self, table):                 # the statistic of all rows, whatever their order
            return Products.of(table.x, table.weight)

        def _subtract(self, statistic, removed): # without the deleted rows; None where they must be counted again
            return statistic.subtract(removed.x, removed.weight)

        def _learned_from(self, statistic): ...  # what is served
        def _apply(self, learned, X): ...        # rows, transformed

Check the result with :func:`certified.testing.check_deletable`.
"""

from certified._data.hashing import bottom_k, subject_hash
from certified._data.reproducible import digest
from certified._data.subjects import Subjects
from certified._data.table import Table
from certified._exact.sums import GroupSums, Products
from certified._steps.estimators import ExactClassifier, ExactRegressor, ExactTransformer
from certified._steps.step import ExactStep
from certified.base import Deletable, Plan

__all__ = [
    "Deletable",
    "ExactClassifier",
    "ExactRegressor",
    "ExactStep",
    "ExactTransformer",
    "GroupSums",
    "Plan",
    "Products",
    "Subjects",
    "Table",
    "bottom_k",
    "digest",
    "subject_hash",
]
