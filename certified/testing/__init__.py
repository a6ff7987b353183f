"""Checks of the guarantees, public, for anybody's estimator.

In the manner of scikit-learn's ``check_estimator``: :func:`check_deletable` runs every check,
:func:`yield_deletion_checks` gives them one by one, for a test framework. An estimator takes part if it has
``fit(X, y, ids=...)``, ``delete(ids)``, ``ids_``, ``certificate_`` and, unless its claim is "exact",
``private_coef_``, ``private_intercept_`` and ``noise_metric_``. One whose claim is "exact" has ``state_digest_``.
One with a key has the parameter ``key`` and ``key_``: refits are compared under the same (:func:`same_key`).
The documentation has a page, "Make your estimator deletable"; ``certified check module:Estimator`` runs the checks from
the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from certified.audit._models import same_key
from certified.testing._checks import (
    CHECKS,
    check_adaptive_requests_meet_the_refit,
    check_bad_requests_change_nothing,
    check_delete_equals_refit,
    check_deleted_values_are_gone,
    check_last_of_a_class_is_refused,
    check_noise_is_fresh,
    check_nothing_follows_the_deleted_row,
    check_order_and_grouping_do_not_matter,
    check_parameters_unaffected,
    check_release_stands_alone,
    check_rows_that_join_meet_the_refit,
    check_saved_copies_agree,
)
from certified.testing._estimators import all_estimators
from certified.testing._strategies import Adversary, adversaries, data_sets, deletion_requests

__all__ = [
    "Adversary",
    "adversaries",
    "all_estimators",
    "check_adaptive_requests_meet_the_refit",
    "check_bad_requests_change_nothing",
    "check_deletable",
    "check_delete_equals_refit",
    "check_deleted_values_are_gone",
    "check_last_of_a_class_is_refused",
    "check_noise_is_fresh",
    "check_nothing_follows_the_deleted_row",
    "check_order_and_grouping_do_not_matter",
    "check_parameters_unaffected",
    "check_release_stands_alone",
    "check_rows_that_join_meet_the_refit",
    "check_saved_copies_agree",
    "data_sets",
    "deletion_requests",
    "parametrize_with_deletion_checks",
    "same_key",
    "yield_deletion_checks",
]


def check_deletable(estimator: Any) -> None:
    """Run every deletion check on clones of an estimator.

    Parameters
    ----------
    estimator : estimator
        Unfitted.

    Raises
    ------
    AssertionError
        The first check that fails says what was expected and what was found.

    Examples
    --------
    >>> from certified.linear_model import Ridge
    >>> check_deletable(Ridge())
    """
    for _, check in yield_deletion_checks(estimator):
        check()


def yield_deletion_checks(estimator: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield ``(name, check)`` for every deletion check; ``check()`` raises AssertionError if it fails."""
    for check in CHECKS:
        yield check.__name__, partial(check, estimator)


def parametrize_with_deletion_checks(estimators: Iterable[Any]) -> Any:
    """Return a pytest decorator that runs every deletion check on every estimator, each as a test of its own.

    As scikit-learn's ``parametrize_with_checks``: the test has one argument, ``deletion_check``.

    Parameters
    ----------
    estimators : iterable of estimators
        Unfitted.

    Examples
    --------
    .. code-block:: python

       @parametrize_with_deletion_checks([MyEstimator(), MyEstimator(alpha=2.0)])
       def test_deletion(deletion_check):
           deletion_check()
    """
    import pytest

    found = [
        pytest.param(check, id=f"{estimator!r}: {name}".replace("\n", " "))
        for estimator in estimators
        for name, check in yield_deletion_checks(estimator)
    ]
    return pytest.mark.parametrize("deletion_check", found)
