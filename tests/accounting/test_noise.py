"""Releases against closed forms; statistical tests fail by chance with probability 1e-6 each, as stated."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from certified import noise
from certified.errors import CannotCertify, InvalidInput
from certified.noise import NO_NOISE, OS_ENTROPY, SEEDED, STEP, discrete_gaussian, release, source, whiten

ERROR_RATE = 1e-6
SIGMA = 0.25


def problem(d=4, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(3 * d, d)) * np.logspace(0, 2, d)
    return rng.normal(size=d) * 3, np.linalg.cholesky(a.T @ a)


def assert_standard_normal_rows(z):
    """Mean and covariance of the rows of z against N(0, I); all tests together err with probability ERROR_RATE."""
    n, d = z.shape
    pairs = list(itertools.combinations(range(d), 2))
    level = ERROR_RATE / (2 * d + 2 * len(pairs))
    for j in range(d):
        assert abs(z[:, j].sum() / math.sqrt(n)) < stats.norm.isf(level / 2)
    # Along any fixed direction v the sum of squares is chi-square with n degrees of freedom.
    directions = [np.eye(d)[j] for j in range(d)]
    for (i, j), sign in itertools.product(pairs, (1, -1)):
        directions.append((np.eye(d)[i] + sign * np.eye(d)[j]) / math.sqrt(2))
    for v in directions:
        total = ((z @ v) ** 2).sum()
        assert stats.chi2.ppf(level / 2, n) < total < stats.chi2.isf(level / 2, n)


@pytest.mark.parametrize("seed", [None, 7])
def test_releases_have_mean_w_and_covariance_sigma_squared_times_the_inverse_of_g(seed):
    w, factor = problem()
    rng = None if seed is None else np.random.default_rng(seed)
    releases = np.array([release(w, factor, SIGMA, rng) for _ in range(4000)])
    assert_standard_normal_rows((releases - w) @ factor / SIGMA)


def test_the_covariance_test_catches_a_halved_sigma_and_a_transposed_factor():
    w, factor = problem()
    rng = np.random.default_rng(3)
    releases = np.array([release(w, factor, SIGMA, rng) for _ in range(4000)])
    for wrong in ((releases - w) @ factor / (SIGMA * 1.1), (releases - w) @ factor.T / SIGMA):
        with pytest.raises(AssertionError):
            assert_standard_normal_rows(wrong)


def test_discrete_gaussian_draws_follow_the_exact_probabilities():
    """Pearson's chi-square test at the error rate of 1e-6, on cells that are expected at least 20 times."""
    scale, n = 2.5, 40_000
    draws = discrete_gaussian(n, scale)
    points = np.arange(-40, 41)
    p = np.exp(-(points**2) / (2 * scale**2))
    p /= p.sum()
    cells = points[n * p >= 20]
    seen = np.array([(draws == k).sum() for k in cells] + [(~np.isin(draws, cells)).sum()])
    inside = p[np.isin(points, cells)]
    expected = n * np.append(inside, 1 - inside.sum())
    statistic = ((seen - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.isf(ERROR_RATE, len(cells))


@pytest.mark.parametrize("seeded", [False, True])
def test_noise_is_fresh_at_every_call(seeded):
    w, factor = problem()
    rng = np.random.default_rng(1) if seeded else None
    releases = {release(w, factor, SIGMA, rng).tobytes() for _ in range(50)}
    assert len(releases) == 50


def test_a_seed_reproduces_the_sequence_of_releases():
    w, factor = problem()
    first, second = (
        [release(w, factor, SIGMA, rng) for _ in range(3)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    np.testing.assert_array_equal(first, second)


def test_the_release_is_a_lattice_point_mapped_back():
    w, _ = problem()
    factor = np.diag([1.0, 2.0, 0.5, 4.0])  # powers of two: mapping back is exact, so the integers can be seen
    for _ in range(20):
        points = factor.T @ release(w, factor, 0.25) / 0.25 / STEP
        np.testing.assert_array_equal(points, np.rint(points))


def test_without_noise_the_lattice_point_is_the_nearest_one(monkeypatch):
    w, factor = problem(6)
    monkeypatch.setattr(noise, "discrete_gaussian", lambda size, scale, rng=None: np.zeros(size, np.int64))
    u, _ = whiten(w, factor, SIGMA)
    back = factor.T @ release(w, factor, SIGMA) / SIGMA
    assert np.abs(back - u).max() <= STEP / 2 * (1 + 1e-6) + 1e-9


def test_two_secrets_on_the_same_lattice_point_release_the_same_bits():
    """No bit of the secret below the lattice survives: given the noise, the release depends on the point alone."""
    factor = np.linalg.cholesky(np.array([[2.0, 0.3], [0.3, 1.0]]))
    w = np.array([1.0, -2.0])
    moved = w * (1 + 1e-12)
    a, b = (release(x, factor, 1.0, np.random.default_rng(0)) for x in (w, moved))
    np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-12, 12), st.booleans())
def test_the_rounding_allowance_is_an_upper_bound(d, seed, sigma, exponent, cancelling):
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.normal(size=(d, d)) * 10.0 ** rng.uniform(-6, 6, size=(d, d))) + np.eye(d) * 1e-3
    w = rng.normal(size=d) * 10.0**exponent
    if cancelling and d > 1:
        w[-1] = -(factor[:-1, 0] @ w[:-1]) / (factor[-1, 0] or 1.0)
    u, arithmetic = whiten(w, factor, sigma)
    with mpmath.workdps(60):
        exact = [
            mpmath.fsum(mpmath.mpf(factor[i, j]) * mpmath.mpf(w[i]) for i in range(d)) / mpmath.mpf(sigma)
            for j in range(d)
        ]
        error = mpmath.sqrt(mpmath.fsum((mpmath.mpf(u[j]) - exact[j]) ** 2 for j in range(d)))
    assert error <= arithmetic
    assert arithmetic <= 1.01 * (d + 2) * 2.0**-53 * np.linalg.norm(np.abs(factor).T @ np.abs(w)) / sigma + 1e-100


def test_the_rounding_allowance_holds_where_products_underflow():
    _, arithmetic = whiten(np.array([1e-200, 1e-200]), np.eye(2) * 1e-200, 1.0)
    assert arithmetic >= math.sqrt(2) * 5e-324


def test_an_empty_parameter_is_released_as_it_is():
    assert release(np.zeros(0), np.zeros((0, 0)), 1.0).shape == (0,)
    assert discrete_gaussian(0, 3.0).shape == (0,)


def test_the_certificate_text_follows_the_source_of_the_noise():
    assert source(0.1) == OS_ENTROPY
    assert source(0.1, np.random.default_rng(0)) == SEEDED == "seeded, no guarantee"
    assert source(0.0) == NO_NOISE


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    w, factor = problem()
    with pytest.raises(CannotCertify, match="NaN or infinity in w"):
        release(np.array([bad, 0, 0, 0]), factor, SIGMA)
    factor[0, 0] = bad
    with pytest.raises(CannotCertify, match="NaN or infinity in factor"):
        release(w, factor, SIGMA)


def test_what_the_lattice_cannot_hold_is_refused():
    with pytest.raises(CannotCertify, match="standard deviations"):
        release(np.array([2.0**42]), np.eye(1), 1.0)
    with pytest.raises(CannotCertify, match="overflows"):
        release(np.array([1e300]), np.eye(1) * 1e300, 1.0)
    assert release(np.array([2.0**41]), np.eye(1), 1.0).shape == (1,)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    w, factor = problem()
    with pytest.raises(CannotCertify, match="sigma"):
        release(w, factor, sigma)


def test_other_types_and_factors_are_refused():
    w, factor = problem()
    with pytest.raises(CannotCertify, match="float32"):
        release(w.astype(np.float32), factor, SIGMA)
    with pytest.raises(CannotCertify, match="int64"):
        release(np.arange(4), factor, SIGMA)
    with pytest.raises(CannotCertify, match="list"):
        release([0.0], factor, SIGMA)
    with pytest.raises(CannotCertify, match="lower triangular"):
        release(w, factor.T.copy(), SIGMA)
    with pytest.raises(CannotCertify, match="singular"):
        release(w, np.zeros((4, 4)), SIGMA)


def test_shapes_that_do_not_match_are_refused():
    w, factor = problem()
    with pytest.raises(InvalidInput, match="shape"):
        release(w[:3], factor, SIGMA)
    with pytest.raises(InvalidInput, match="shape"):
        release(w[:, None], factor, SIGMA)
    with pytest.raises(InvalidInput, match="discrete_gaussian"):
        discrete_gaussian(-1, 1.0)
    with pytest.raises(InvalidInput, match="discrete_gaussian"):
        discrete_gaussian(1, math.nan)
