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

import io
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.stats import rankdata
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils import get_tags

from certified.audit import noise_metric, private_parameter
from certified.audit._memory import dumped, unlike
from certified.audit._models import same_key
from certified.typing import FloatArray, IntArray

__all__ = [
    "Adversary",
    "adversaries",
    "check_deletable",
    "data_sets",
    "deletion_requests",
    "parametrize_with_deletion_checks",
    "same_key",
    "yield_deletion_checks",
]

_ROWS, _FEATURES = 120, 4


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
    for check in _CHECKS:
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


@dataclass(frozen=True)
class Adversary:
    """Chooses deletions after looking at the released model, round after round.

    Parameters
    ----------
    rule : {"extreme", "ordinary", "worst fitted", "swinging"}
        Which rows: with the largest output, the most usual one, the worst prediction, or now the largest and now the
        smallest output.
    size : int
        Subjects in each request.
    rounds : int
    """

    rule: str = "extreme"
    size: int = 2
    rounds: int = 3

    def request(self, model: Any, X: Any, y: Any, ids: Any, turn: int = 0) -> list[Any]:
        """Return the next request: what a fitted model serves decides."""
        held = np.flatnonzero(np.isin(ids, model.ids_))
        out = _outlook(model, X[held])
        place, target = (rankdata(values) / len(held) for values in (out, np.asarray(y)[held]))
        interest = {
            "extreme": place,
            "ordinary": -np.abs(place - 0.5),
            "worst fitted": np.abs(place - target),
            "swinging": place if turn % 2 == 0 else -place,
        }[self.rule]
        chosen = dict.fromkeys(np.asarray(ids)[held[np.argsort(-interest, kind="stable")]].tolist())
        return list(chosen)[: self.size]

    def play(self, model: Any, X: Any, y: Any, ids: Any) -> list[list[Any]]:
        """Delete in rounds from a fitted model; return the requests."""
        requests = []
        for turn in range(self.rounds):
            requests.append(self.request(model, X, y, ids, turn))
            model.delete(requests[-1])
        return requests


def _outlook(model: Any, X: FloatArray) -> FloatArray:
    """One number for each row from what the model serves."""
    for name in ("decision_function", "predict_proba", "predict", "transform"):
        if hasattr(model, name):
            values = getattr(model, name)(X)
            values = values.toarray() if issparse(values) else np.asarray(values)
            if values.dtype.kind not in "biuf":
                values = np.unique(values, return_inverse=True)[1].reshape(values.shape)
            table = values.reshape(len(X), -1).astype(np.float64)
            return np.nan_to_num(table @ np.arange(1.0, table.shape[1] + 1.0))
    return np.arange(len(X), dtype=np.float64)


def adversaries(max_rounds: int = 4) -> Any:
    """Hypothesis strategy of :class:`Adversary`: requests that depend on earlier releases, over which a guarantee for
    requests fixed in advance says nothing."""
    from hypothesis import strategies as st

    rules = st.sampled_from(["extreme", "ordinary", "worst fitted", "swinging"])
    return st.builds(Adversary, rule=rules, size=st.integers(1, 3), rounds=st.integers(1, max_rounds))


def data_sets(n_rows: int = 60, n_features: int = 3) -> Any:
    """Hypothesis strategy of ``(X, y, ids)``: scales from 1e-3 to 1e3, correlated columns, subjects with many rows.

    y holds both classes, and each class has rows of at least ten subjects. Shapes are fixed.
    """
    from hypothesis import strategies as st

    return st.builds(
        _data,
        seed=st.integers(0, 2**32 - 1),
        n_rows=st.just(n_rows),
        n_features=st.just(n_features),
        spread=st.sampled_from([0, 1, 3]),
        repeats=st.integers(1, 3),
    )


def deletion_requests(ids: Any, max_share: float = 0.3) -> Any:
    """Hypothesis strategy of sequences of requests: disjoint non-empty lists of ids, at most a share of all."""
    from hypothesis import strategies as st

    unique = np.unique(ids).tolist()
    most = max(1, int(max_share * len(unique)))
    chosen = st.lists(st.sampled_from(unique), min_size=1, max_size=most, unique=True)
    return st.builds(_grouped, chosen, st.integers(1, 5))


def _grouped(chosen: list[Any], size: int) -> list[list[Any]]:
    return [chosen[k : k + size] for k in range(0, len(chosen), size)]


def _data(
    seed: int = 0, n_rows: int = _ROWS, n_features: int = _FEATURES, spread: int = 1, repeats: int = 1
) -> tuple[FloatArray, FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    mix = np.eye(n_features) + 0.5 * rng.standard_normal((n_features, n_features))
    X = rng.standard_normal((n_rows, n_features)) @ mix * 10.0 ** rng.integers(-spread, spread + 1, n_features)
    z = (X / X.std(axis=0)) @ rng.standard_normal(n_features)
    y = (z + rng.logistic(size=n_rows) > np.median(z)).astype(float)
    ids = 1000 + np.arange(n_rows) // repeats
    firsts = np.flatnonzero(np.arange(n_rows) % repeats == 0)[:20]
    y[firsts] = np.arange(firsts.size) % 2
    return X, y, ids


def _target(estimator: Any, X: FloatArray, y: FloatArray) -> FloatArray:
    if not is_regressor(estimator):
        return y
    values = y + X @ np.linspace(0.01, 0.02, X.shape[1])  # a function of the row alone
    if get_tags(estimator).target_tags.positive_only:
        return 0.1 + np.abs(values)
    return values


def _fresh(estimator: Any) -> Any:
    """Return an unfitted copy; keys that would be drawn are one that was given, or 0, so that two fits agree."""
    out = clone(estimator)
    keys = {name: value for name, value in out.get_params().items() if name.split("__")[-1] == "key"}
    return out.set_params(**dict.fromkeys(keys, next((key for key in keys.values() if key is not None), 0)))


def _fit(estimator: Any, X: FloatArray, y: FloatArray, ids: IntArray) -> Any:
    return _fresh(estimator).fit(X, _target(estimator, X, y), ids=ids)


def _assert_equals_refit(model: Any, refit: Any) -> None:
    """Exact claim: the same state. Otherwise: within the two certificates in the noise metric."""
    if model.certificate_.claim == "exact":
        _assert_same_state(model, refit)
        return
    metric, fresh = noise_metric(model), noise_metric(refit)
    gap = private_parameter(model) - private_parameter(refit)
    distance = float(np.sqrt(gap @ metric @ gap))
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.isfinite(allowed), "the certificate gives no bound"
    assert distance <= allowed * (1 + 1e-9) + 1e-12, (
        f"after deletion the parameters are {distance:.3g} from a refit, the certificates allow {allowed:.3g}"
    )
    assert np.array_equal(metric, fresh), "the noise metric is not that of a refit"


def _assert_same_state(model: Any, refit: Any) -> None:
    named = [name for name in ("state_digest_", "private_coef_") if hasattr(model, name)]
    assert named, "an estimator that claims to be exact needs `state_digest_`, by which its state can be compared"
    if hasattr(model, "state_digest_"):
        assert model.state_digest_ == refit.state_digest_, "the state is not bit for bit that of a refit"
    if hasattr(model, "private_coef_"):
        assert np.array_equal(model.private_coef_, refit.private_coef_), "coefficients differ from a refit's"


def _retained(ids: IntArray, model: Any) -> Any:
    return np.isin(ids, model.ids_)


def check_delete_equals_refit(estimator: Any) -> None:
    """One subject, several, and nearly a third: the state is a refit's, exactly or within the certificate."""
    for repeats, n_subjects in ((1, 1), (2, 5), (3, 12)):
        X, y, ids = _data(seed=repeats, repeats=repeats)
        model = _fit(estimator, X, y, ids)
        request = np.unique(ids)[7 : 7 + n_subjects]
        receipt = model.delete(request)
        retained = _retained(ids, model)
        assert receipt.n_rows == np.count_nonzero(~retained) == n_subjects * repeats, "the receipt counts other rows"
        assert not np.isin(request, model.ids_).any(), "deleted ids are still listed in ids_"
        _assert_equals_refit(model, _fit(same_key(model), X[retained], y[retained], ids[retained]))


def check_order_and_grouping_do_not_matter(estimator: Any) -> None:
    """One by one, reversed, or all at once: the same refit is met."""
    X, y, ids = _data(seed=5)
    request = ids[20:32]
    estimator, refit = same_key(_fit(estimator, X, y, ids)), None
    for groups in ([[i] for i in request], [[i] for i in request[::-1]], [request], [request[:5], request[5:]]):
        model = _fit(estimator, X, y, ids)
        for group in groups:
            model.delete(group)
        refit = refit or _fit(estimator, X[_retained(ids, model)], y[_retained(ids, model)], ids[_retained(ids, model)])
        _assert_equals_refit(model, refit)


def check_adaptive_requests_meet_the_refit(estimator: Any) -> None:
    """Requests chosen by looking at the released model, three in a row, end at the same refit as any others."""
    for rule in ("extreme", "worst fitted"):
        X, y, ids = _data(seed=12, repeats=2)
        model = _fit(estimator, X, y, ids)
        gone = [i for request in Adversary(rule).play(model, X, _target(estimator, X, y), ids) for i in request]
        retained = _retained(ids, model)
        assert set(np.asarray(ids)[~retained].tolist()) == set(gone), "ids_ does not follow the requests"
        _assert_equals_refit(model, _fit(same_key(model), X[retained], y[retained], ids[retained]))


def check_rows_that_join_meet_the_refit(estimator: Any) -> None:
    """Rows added, also to subjects that are held, then deletions: the state is that of a refit on the retained rows."""
    X, y, ids = _data(seed=13, repeats=2)
    target, first = _target(estimator, X, y), np.arange(len(y)) % 4 != 3  # every other new row is of a known subject
    first[-8:] = False
    if not hasattr(estimator, "add"):
        return
    model = _fresh(estimator).fit(X[first], target[first], ids=ids[first])
    model.delete([ids[0]])
    late = ~first & (ids != ids[0])
    model.add(X[late], target[late], ids=ids[late])
    retained = ids != ids[0]
    _assert_equals_refit(model, _fresh(estimator).fit(X[retained], target[retained], ids=ids[retained]))
    model.delete([ids[3], ids[-1]])
    retained &= ~np.isin(ids, [ids[3], ids[-1]])
    assert model.n_rows_ == np.count_nonzero(retained), "n_rows_ does not count the rows that were added"
    _assert_equals_refit(model, _fresh(estimator).fit(X[retained], target[retained], ids=ids[retained]))
    before = dumped(model)
    for wrong, names in (
        (X[:2, 1:], [1, 2]),
        (np.full((2, X.shape[1]), np.inf), [1, 2]),
        (X[:2], [1]),
        (X[:2], ["a", "b"]),
    ):
        try:
            model.add(wrong, target[: len(wrong)], ids=names)
        except ValueError as error:
            assert str(error), "the error for rows that cannot join says nothing"
        else:
            raise AssertionError("rows that cannot join were accepted")
        assert dumped(model) == before, "rows that were refused changed the model"


def check_bad_requests_change_nothing(estimator: Any) -> None:
    """Unknown, repeated and empty requests and a request for everybody raise, and nothing changes."""
    X, y, ids = _data(seed=6)
    model = _fit(estimator, X, y, ids)
    before = dumped(model)
    bad = {"unknown": [-5], "partly unknown": [ids[3], -5], "repeated": [ids[3], ids[3]], "empty": [], "all": ids}
    for name, request in bad.items():
        try:
            model.delete(request)
        except (ValueError, LookupError, ArithmeticError) as error:
            assert str(error), f"the error for {name} ids says nothing"
        else:
            raise AssertionError(f"a request with {name} ids was accepted")
        assert dumped(model) == before, f"a refused request ({name} ids) changed the model"


def check_deleted_values_are_gone(estimator: Any) -> None:
    """No value of a deleted row, as given, is found in the pickled model."""
    X, y, ids = _data(seed=7, spread=0)
    X[11] = [0.123456789123 + k for k in range(X.shape[1])]
    model = _fit(estimator, X, y, ids)
    model.delete([ids[11]])
    dump = pickle.dumps(model)
    for value in X[11]:
        assert np.float64(value).tobytes() not in dump, "a value of a deleted row is still in the pickled model"
    assert int(ids[11]) not in np.asarray(model.ids_).tolist()


def check_nothing_follows_the_deleted_row(estimator: Any) -> None:
    """Twins that differ in one row alone are the same, array by array, once it is deleted and they are refined.

    So nobody can compute the row from what is left, by whatever algebra. Compared are what is stored and what is held;
    of what a class names as ``working_memory``, the form in which it would be stored. A refined parameter that lies by
    chance at the edge of a cell of its grid may differ: a row counts as held only where three pairs of twins tell it.
    """
    told: list[str] = []
    for place, seed in ((17, 15), (40, 16), (63, 17)):
        X, y, ids = _data(seed=seed)
        target, other = _target(estimator, X, y), X.copy()
        other[place] = 3.0 * X[place - 1] - X[place]
        twins = [_fresh(estimator).fit(values, target, ids=ids) for values in (X, other)]
        for twin in twins:
            twin.delete([ids[place]])
            if twin.certificate_.claim != "exact" and hasattr(twin, "refine"):
                twin.refine()
        stored = [pickle.loads(pickle.dumps(twin)) for twin in twins]  # which brings waiting trees up to date
        told = unlike(*stored) or unlike(*twins)
        if not told:
            return
    raise AssertionError(f"what the model holds depends on a deleted row: {', '.join(told[:8])}")


def check_parameters_unaffected(estimator: Any) -> None:
    """fit and delete leave the parameters alone; a clone is unfitted."""
    X, y, ids = _data(seed=8)
    model = _fresh(estimator)
    before = {name: repr(value) for name, value in model.get_params(deep=False).items()}
    model.fit(X, _target(estimator, X, y), ids=ids)
    model.delete([ids[0]])
    after = {name: repr(value) for name, value in model.get_params(deep=False).items()}
    assert before == after, "fit or delete changed a parameter"
    assert not clone(model).__sklearn_is_fitted__(), "a clone of a fitted model is fitted"


def check_release_stands_alone(estimator: Any) -> None:
    """The release loads where this package cannot be imported, predicts the same, and holds no training row."""
    X, y, ids = _data(seed=9)
    model = _fit(estimator, X, y, ids)
    if not hasattr(model, "release"):
        return
    model.delete([ids[1]])
    released = model.release()
    dump = pickle.dumps(released)
    for row in X:
        assert row.tobytes() not in dump, "the release holds a training row"
    served = model.predict(X) if hasattr(model, "predict") else model.transform(X)
    served = served.toarray() if issparse(served) else served
    method = "predict" if hasattr(model, "predict") else "transform"
    stream = io.BytesIO(pickle.dumps(released))
    try:
        alone = _WithoutPackage(stream).load()
    except ModuleNotFoundError as error:
        raise AssertionError(f"the release does not stand alone: it needs {error.name}") from None
    answer = getattr(alone, method)(X)
    answer = answer.toarray() if issparse(answer) else answer
    assert np.allclose(answer, served, rtol=1e-9), "the release, saved and loaded, answers otherwise"


class _WithoutPackage(pickle.Unpickler):
    """Loads a pickle as where this package is not installed."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "certified":
            raise ModuleNotFoundError(f"No module named {module!r}", name=f"{module}.{name}")
        return super().find_class(module, name)


def check_noise_is_fresh(estimator: Any) -> None:
    """Two models of the same data release different parameters if the certificate speaks of noise."""
    X, y, ids = _data(seed=10)
    models = [_fit(estimator, X, y, ids) for _ in range(2)]
    if not hasattr(models[0], "coef_") or models[0].certificate_.claim != "indistinguishable":
        return
    first, second = (np.ravel(model.coef_).copy() for model in models)
    assert not np.any(first == second), "two fits released the same parameters: the noise is not fresh"
    gap = (
        (first - np.ravel(models[0].private_coef_))
        @ np.linalg.inv(np.linalg.inv(noise_metric(models[0]))[: first.size, : first.size])
        @ (first - np.ravel(models[0].private_coef_))
    )
    scale = models[0].certificate_.sigma
    # chi-square with first.size degrees of freedom: beyond these limits with probability below 1e-9 for 4 features
    assert 1e-5 < gap / scale**2 < 60 + 4 * first.size, "the noise does not have the size that the certificate states"


def check_last_of_a_class_is_refused(estimator: Any) -> None:
    """A classifier keeps at least one row of each class."""
    if not is_classifier(estimator):
        return
    X, y, ids = _data(seed=11)
    model = _fit(estimator, X, y, ids)
    before = dumped(model)
    try:
        model.delete(ids[y == 1])
    except ValueError as error:
        assert "class" in str(error), "the error does not say that a class would be lost"
    else:
        raise AssertionError("every row of a class could be deleted")
    assert dumped(model) == before, "a refused request changed the model"


def check_saved_copies_agree(estimator: Any) -> None:
    """What is drawn for a saved copy is drawn in the model too, and counted there; also while other threads run."""
    X, y, ids = _data(seed=16)
    model, ends = _fit(estimator, X, _target(estimator, X, y), ids), threading.Event()
    model.delete(ids[:1])
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        copies = [dumped(model), dumped(model)]
    finally:
        ends.set()
        thread.join()
    assert copies[0] == copies[1], "two saved copies of one state differ: what one draws, the model does not count"


_CHECKS = (
    check_delete_equals_refit,
    check_order_and_grouping_do_not_matter,
    check_adaptive_requests_meet_the_refit,
    check_rows_that_join_meet_the_refit,
    check_bad_requests_change_nothing,
    check_deleted_values_are_gone,
    check_nothing_follows_the_deleted_row,
    check_parameters_unaffected,
    check_release_stands_alone,
    check_noise_is_fresh,
    check_last_of_a_class_is_refused,
    check_saved_copies_agree,
)
