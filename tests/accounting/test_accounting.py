"""Oracle: mpmath with 60 digits and more. No test here is statistical except by hypothesis's choice of examples."""

import math
import subprocess
import sys

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified.accounting import compose, delta_of, epsilon_of, group, lattice_mu, mu_of
from certified.errors import InvalidInput

mus = st.floats(1e-6, 50)
epsilons = st.floats(0, 800)
deltas = st.floats(1e-12, 0.9)
relaxed = settings(deadline=None, max_examples=200)


def true_delta(epsilon, mu):
    """delta(epsilon; mu) with enough digits to survive its cancellation."""
    with mpmath.workdps(80 + int(min(epsilon, 2000) / 2 - math.log10(min(mu, 1)))):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        x, y = (e / m - m / 2) / mpmath.sqrt(2), (e / m + m / 2) / mpmath.sqrt(2)
        return (mpmath.erfc(x) - mpmath.exp(e) * mpmath.erfc(y)) / 2


def assert_safe_and_tight(epsilon, mu):
    bound, truth = delta_of(epsilon, mu), true_delta(epsilon, mu)
    assert bound >= truth
    assert bound <= truth * (1 + 1e-9) + 1e-14


@relaxed
@given(epsilons, mus)
def test_delta_is_never_below_the_true_value_and_close_to_it(epsilon, mu):
    assert_safe_and_tight(epsilon, mu)


@relaxed
@given(st.floats(-3, 6), st.floats(0.001, 60))
def test_delta_is_safe_and_tight_along_the_part_of_the_curve_that_matters(z, mu):
    assert_safe_and_tight(max(0.0, mu * (z + mu / 2)), mu)


@pytest.mark.parametrize(
    ("epsilon", "mu"),
    [(0, 1e-300), (0, 5e-324), (1e-300, 1e-300), (1, 1e-3), (1e-8, 1e-9), (700, 40), (1e3, 1e3), (1250, 50), (5e3, 99)],
)
def test_delta_is_safe_at_the_edges(epsilon, mu):
    assert_safe_and_tight(epsilon, mu)


def test_delta_has_the_limits_of_the_definition():
    assert delta_of(1.0, 0.0) == 0
    assert delta_of(1.0, math.inf) == 1
    assert delta_of(math.inf, 3.0) == 0
    assert delta_of(1e308, 1e-300) < 1e-300
    assert delta_of(1.0, 1e308) == 1
    assert delta_of(1e308, 1e308) == 1


@pytest.mark.parametrize(("epsilon", "delta", "mu"), [(1, 1e-5, 0.2681), (0.1, 1e-5, 0.0325), (1, 1e-4, 0.3139)])
def test_mu_agrees_with_the_reference_points(epsilon, delta, mu):
    assert mu_of(epsilon, delta) == pytest.approx(mu, abs=5e-5)


@relaxed
@given(st.floats(0, 100), deltas)
def test_mu_is_safe_and_cannot_be_raised(epsilon, delta):
    mu = mu_of(epsilon, delta)
    assert delta_of(epsilon, mu) <= delta
    assert true_delta(epsilon, mu) <= delta
    assert true_delta(epsilon, mu * (1 + 1e-9) + 1e-13) > delta


@relaxed
@given(st.floats(1e-4, 50), deltas)
def test_epsilon_is_safe_and_cannot_be_lowered(mu, delta):
    epsilon = epsilon_of(mu, delta)
    assert true_delta(epsilon, mu) <= delta
    lower = epsilon * (1 - 1e-9) - 1e-9
    assert lower < 0 or true_delta(lower, mu) > delta


@relaxed
@given(st.floats(0.01, 20), deltas)
def test_epsilon_undoes_mu(epsilon, delta):
    assert epsilon_of(mu_of(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-6)


def test_epsilon_and_mu_have_the_limits_of_the_definition():
    assert epsilon_of(0.0, 0.0) == 0
    assert epsilon_of(0.1, 0.0) == math.inf
    assert epsilon_of(math.inf, 0.5) == math.inf
    assert epsilon_of(1e200, 0.5) == math.inf
    assert epsilon_of(1e-9, 1e-5) == 0
    assert mu_of(1.0, 0.0) == 0
    assert mu_of(1.0, 1.0) == math.inf
    assert mu_of(math.inf, 1e-5) == math.inf
    assert mu_of(1.0, 5e-324) == 0  # below what the bound resolves: refused, not guessed
    assert epsilon_of(1.0, 5e-324) == math.inf


@relaxed
@given(st.lists(st.floats(0, 1e300), max_size=20))
def test_compose_and_group_round_up(values):
    with mpmath.workdps(700):
        exact = [mpmath.mpf(value) for value in values]
        root, total = mpmath.sqrt(mpmath.fsum(e * e for e in exact)), mpmath.fsum(exact)
    assert root <= compose(values) <= root * (1 + 1e-14) + 1e-322
    assert total <= group(values) <= total * (1 + 1e-14) + 1e-322


def test_compose_neither_overflows_nor_underflows():
    assert compose([]) == group([]) == 0
    assert compose([0.3]) == group([0.3]) == 0.3
    assert compose([1e-200] * 4) == pytest.approx(2e-200)
    assert compose([1e200] * 4) == pytest.approx(2e200)
    assert compose([1.0, math.inf]) == group([1.0, math.inf]) == math.inf
    assert group([1.7e308, 1.7e308]) == math.inf


@relaxed
@given(st.floats(0, 1e6), st.floats(1e-6, 1e6), st.integers(0, 10**6), st.integers(3, 40), st.floats(0, 10))
def test_lattice_mu_rounds_its_formula_up(distance, sigma, dimension, log_scale, arithmetic):
    step = 2.0**-log_scale
    with mpmath.workdps(60):
        d, s, e = mpmath.mpf(distance), mpmath.mpf(sigma), mpmath.mpf(arithmetic)
        truth = (d / s + e + mpmath.sqrt(dimension) * step) / mpmath.sqrt(1 - 16 * mpmath.mpf(step) ** 2)
    assert truth <= lattice_mu(distance, sigma, dimension, step, arithmetic) <= truth * (1 + 1e-14) + 1e-322


def test_lattice_mu_of_equal_parameters_is_the_lattice_term():
    assert lattice_mu(0.0, 0.1, 4, 2.0**-20) == pytest.approx(2.0**-19)
    assert lattice_mu(math.inf, 0.1, 4, 2.0**-20) == math.inf


def discrete_delta(epsilon, shift, scale):
    """Hockey-stick divergence of two discrete Gaussians that are ``shift`` lattice points apart, by a full sum."""
    with mpmath.workdps(50):
        points = range(-16 * scale, 16 * scale + shift + 1)
        kernel = {
            k: mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * scale**2)) for k in range(points[0] - shift, points[-1] + 1)
        }
        factor = mpmath.exp(mpmath.mpf(epsilon))
        norm = mpmath.fsum(kernel[k] for k in points)
        # The tails left out weigh less than exp(-16^2/2) < 1e-55 of the whole.
        return mpmath.fsum(max(0, kernel[k - shift] - factor * kernel[k]) for k in points) / norm


@pytest.mark.parametrize("scale", [8, 11, 16])
@pytest.mark.parametrize("shift", [1, 2, 5, 13])
def test_discrete_noise_is_no_easier_to_tell_apart_than_gaussian_noise_of_slightly_smaller_variance(scale, shift):
    mu = shift / math.sqrt(scale**2 - 16)
    for z in (-10, 0, 0.3, 1, 2, 4, 7):
        epsilon = max(0.0, mu * (z + mu / 2))
        assert discrete_delta(epsilon, shift, scale) <= delta_of(epsilon, mu)


def test_discrete_noise_is_not_covered_by_gaussian_noise_of_larger_variance():
    """The test above can fail: with a mu that is too small it does."""
    shift, scale = 2, 8
    assert discrete_delta(0.3, shift, scale) > delta_of(0.3, shift / math.sqrt(scale**2 + 4))


@pytest.mark.parametrize("bad", [-1.0, math.nan, "x", None])
def test_bad_arguments_are_refused(bad):
    for call in (
        lambda: delta_of(bad, 1.0),
        lambda: delta_of(1.0, bad),
        lambda: epsilon_of(bad, 1e-5),
        lambda: epsilon_of(1.0, bad),
        lambda: mu_of(bad, 1e-5),
        lambda: mu_of(1.0, bad),
        lambda: compose([1.0, bad]),
        lambda: group([1.0, bad]),
        lambda: lattice_mu(bad, 1.0, 1, 0.01),
        lambda: lattice_mu(1.0, bad, 1, 0.01),
        lambda: lattice_mu(1.0, 1.0, bad, 0.01),
        lambda: lattice_mu(1.0, 1.0, 1, bad),
        lambda: lattice_mu(1.0, 1.0, 1, 0.01, bad),
    ):
        with pytest.raises(InvalidInput, match="must be a number in"):
            call()


def test_delta_above_one_zero_sigma_and_a_coarse_lattice_are_refused():
    with pytest.raises(InvalidInput, match="delta"):
        epsilon_of(1.0, 1.5)
    with pytest.raises(InvalidInput, match="sigma"):
        lattice_mu(1.0, 0.0, 1, 0.01)
    with pytest.raises(InvalidInput, match="step"):
        lattice_mu(1.0, 1.0, 1, 0.5)


def test_accounting_and_certificate_load_no_numerical_library():
    code = (
        "import sys, certified.accounting, certified.certificate\n"
        "print(sorted({'numpy', 'scipy', 'jax', 'sklearn', 'opendp', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
