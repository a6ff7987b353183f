"""The deletion checks, each a function of an unfitted estimator that raises AssertionError."""

from __future__ import annotations

import io
import pickle
import threading
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils import get_tags

from certified.audit import noise_metric, private_parameter
from certified.audit._memory import dumped, unlike
from certified.audit._models import same_key
from certified.testing._strategies import Adversary, made_data
from certified.typing import FloatArray, IntArray

__all__ = [
    "CHECKS",
    "check_adaptive_requests_meet_the_refit",
    "check_bad_requests_change_nothing",
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
]


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
        X, y, ids = made_data(seed=repeats, repeats=repeats)
        model = _fit(estimator, X, y, ids)
        request = np.unique(ids)[7 : 7 + n_subjects]
        receipt = model.delete(request)
        retained = _retained(ids, model)
        assert receipt.n_rows == np.count_nonzero(~retained) == n_subjects * repeats, "the receipt counts other rows"
        assert not np.isin(request, model.ids_).any(), "deleted ids are still listed in ids_"
        _assert_equals_refit(model, _fit(same_key(model), X[retained], y[retained], ids[retained]))


def check_order_and_grouping_do_not_matter(estimator: Any) -> None:
    """One by one, reversed, or all at once: the same refit is met."""
    X, y, ids = made_data(seed=5)
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
        X, y, ids = made_data(seed=12, repeats=2)
        model = _fit(estimator, X, y, ids)
        gone = [i for request in Adversary(rule).play(model, X, _target(estimator, X, y), ids) for i in request]
        retained = _retained(ids, model)
        assert set(np.asarray(ids)[~retained].tolist()) == set(gone), "ids_ does not follow the requests"
        _assert_equals_refit(model, _fit(same_key(model), X[retained], y[retained], ids[retained]))


def check_rows_that_join_meet_the_refit(estimator: Any) -> None:
    """Rows added, also to subjects that are held, then deletions: the state is that of a refit on the retained rows."""
    X, y, ids = made_data(seed=13, repeats=2)
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
    X, y, ids = made_data(seed=6)
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
    X, y, ids = made_data(seed=7, spread=0)
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
        X, y, ids = made_data(seed=seed)
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
    X, y, ids = made_data(seed=8)
    model = _fresh(estimator)
    before = {name: repr(value) for name, value in model.get_params(deep=False).items()}
    model.fit(X, _target(estimator, X, y), ids=ids)
    model.delete([ids[0]])
    after = {name: repr(value) for name, value in model.get_params(deep=False).items()}
    assert before == after, "fit or delete changed a parameter"
    assert not clone(model).__sklearn_is_fitted__(), "a clone of a fitted model is fitted"


def check_release_stands_alone(estimator: Any) -> None:
    """The release loads where this package cannot be imported, predicts the same, and holds no training row."""
    X, y, ids = made_data(seed=9)
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
    X, y, ids = made_data(seed=10)
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
    """Of two classes, the last row of one cannot be deleted: a refit is refused too."""
    if not is_classifier(estimator):
        return
    X, y, ids = made_data(seed=11)
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
    X, y, ids = made_data(seed=16)
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


CHECKS = (
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
