"""Gaussian differential privacy: conversions, composition and the lattice release, always on the safe side.

``mu`` is the parameter of a Gaussian trade-off: telling two releases apart is at least as hard as telling N(0, 1)
from N(mu, 1). Its (epsilon, delta) curve (Dong, Roth, Su 2022, corollary 1) is::

    delta(eps; mu) = Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2)
                   = (erfc(x) - e^eps erfc(y)) / 2,    x = (eps/mu - mu/2)/sqrt(2),  y = (eps/mu + mu/2)/sqrt(2).

Every function returns a float that is safe after rounding: bounds on delta, epsilon and mu are never below the true
value, and `mu_of`, the noise that a target allows, is never above it.

Rounding. u = 2^-53. Assumed of the C library: ``exp`` and ``erfc`` are within 8 units in the last place (16 u,
relative) wherever the result is a normal number; glibc documents at most 5. The rest is derived where it is used.
"""

import math
from collections.abc import Callable, Iterable

from certified.errors import InvalidInput

__all__ = ["Transcript", "compose", "delta_of", "epsilon_of", "group", "lattice_mu", "mu_of", "together"]

_U = 2.0**-53
_LIBM = 16 * _U
_TINY = 2.0**-1020  # added to an upper bound: covers erfc where it leaves the normal numbers
_ASYMPTOTIC = 25.0  # from here on e^eps erfc(y) is bounded by a series: erfc(25) = 8e-274 is still normal
_PHI_0 = 0.3989422804014328  # 1/sqrt(2 pi), rounded up


def _number(call: str, name: str, value: float, low: float = 0.0, high: float = math.inf) -> float:
    """``value`` as a float in [low, high]; anything else is refused."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise InvalidInput(
            f"{call} got {name}={value!r}. {name} must be a number in [{low:g}, {high:g}] and not NaN. "
            f"Pass a value in that range; nothing was computed."
        )
    return number


def _up(value: float) -> float:
    return math.nextafter(value, math.inf) if value > 0 else value


def _tail_at_least(epsilon: float, x: float, y: float, error: float) -> float:
    """Lower bound of e^epsilon erfc(y), where |x| and y are known up to ``error``.

    Below `_ASYMPTOTIC` directly: epsilon <= y^2 (arithmetic-geometric mean), so nothing overflows. Above, by
    e^epsilon erfc(y) = e^(-x^2) erfcx(y) and the alternating series
    erfcx(y) >= (1 - 1/(2y^2) + 3/(4y^4) - 15/(8y^6)) / (y sqrt(pi)), whose relative gap is below 7/y^8.
    """
    y = y + error
    if y < _ASYMPTOTIC:
        return math.exp(epsilon) * math.erfc(y) * (1 - 3 * _LIBM)
    t = 1 / (2 * y * y)
    series = (1 - t * (1 - 3 * t * (1 - 5 * t))) / (y * math.sqrt(math.pi))
    x = abs(x) + error
    return math.exp(-x * x * (1 + 4 * _U)) * series * (1 - 2 * _LIBM)


def delta_of(epsilon: float, mu: float) -> float:
    """Return an upper bound of delta(epsilon; mu), the delta of mu-GDP at ``epsilon``.

    Parameters
    ----------
    epsilon : float >= 0
        In nats; infinity is allowed.
    mu : float >= 0
        Gaussian-DP parameter; infinity means that no guarantee is given.

    Returns
    -------
    float
        In [0, 1], at least the true value. 0 for ``mu = 0``, 1 for ``mu = inf``.

    Raises
    ------
    InvalidInput
        If an argument is negative or not a number.

    Notes
    -----
    With a = fl(epsilon/mu) and b = mu/2, x and y carry an absolute error of at most 4 u (a + b)/sqrt(2): u a from the
    division, ``u |a - b|`` from the subtraction, ``2 u |a - b|`` from the factor 1/sqrt(2) and the product.
    erfc decreases, so x is moved down and y up by 6 u y. The result is also at most delta(0; mu) <= mu/sqrt(2 pi).

    Examples
    --------
    >>> round(delta_of(1.0, 0.2681), 7)
    1e-05
    """
    epsilon = _number("delta_of(epsilon, mu)", "epsilon", epsilon)
    mu = _number("delta_of(epsilon, mu)", "mu", mu)
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    a, b = epsilon / mu, mu / 2
    x, y = (a - b) * math.sqrt(0.5), (a + b) * math.sqrt(0.5)
    if math.isinf(y):  # x exceeds 1e300, since mu is finite
        return 0.0 if math.isinf(epsilon) else _TINY
    error = 6 * _U * y
    upper = math.erfc(x - error) * (1 + 2 * _LIBM) + _TINY
    delta = _up((upper - _tail_at_least(epsilon, x, y, error)) * (0.5 + 4 * _U))
    return min(max(delta, 0.0), math.nextafter(mu * _PHI_0, math.inf), 1.0)


def _last_true(holds: Callable[[float], bool], start: float, outward: float) -> float:
    """The last float found, going from 0 or infinity by factors and then halves, at which ``holds`` was seen true.

    ``outward`` is 2 if larger arguments are harder (the answer is a maximum), 1/2 if smaller ones are. The value
    returned has itself been checked, unless it is the limit 0 or infinity, where the caller's claim holds trivially.
    """
    good = start
    while not holds(good):
        good /= outward
        if good == 0 or math.isinf(good):
            return good
    bad = good * outward
    while bad > 0 and not math.isinf(bad) and holds(bad):
        good, bad = bad, bad * outward
    while True:
        middle = good + (bad - good) / 2
        if middle in (good, bad):
            return good
        good, bad = (middle, bad) if holds(middle) else (good, middle)


def epsilon_of(mu: float, delta: float) -> float:
    """Return the smallest epsilon found with ``delta_of(epsilon, mu) <= delta``.

    Parameters
    ----------
    mu : float >= 0
        Gaussian-DP parameter.
    delta : float in [0, 1]

    Returns
    -------
    float
        At least the true epsilon, and checked. 0 for ``mu = 0``; infinity for ``mu = inf`` and for ``delta = 0``.

    Raises
    ------
    InvalidInput
        If an argument is out of range or not a number.

    Examples
    --------
    >>> round(epsilon_of(0.2681, 1e-5), 3)
    1.0
    """
    mu = _number("epsilon_of(mu, delta)", "mu", mu)
    delta = _number("epsilon_of(mu, delta)", "delta", delta, high=1.0)
    if mu == 0:
        return 0.0
    if math.isinf(mu) or delta == 0:
        return math.inf
    if delta_of(0.0, mu) <= delta:
        return 0.0
    start = mu * (mu / 2 + math.sqrt(-2 * math.log(delta)))  # here Phi(-eps/mu + mu/2) <= delta
    if math.isinf(start):
        return math.inf
    return _last_true(lambda epsilon: delta_of(epsilon, mu) <= delta, start or 1.0, 0.5)


def mu_of(epsilon: float, delta: float) -> float:
    """Return the largest mu found with ``delta_of(epsilon, mu) <= delta``.

    Parameters
    ----------
    epsilon : float >= 0
        In nats.
    delta : float in [0, 1]

    Returns
    -------
    float
        At most the true mu, and checked: mu-GDP implies (epsilon, delta)-DP. 0 for ``delta = 0``, infinity for
        ``delta = 1`` or ``epsilon = inf``.

    Raises
    ------
    InvalidInput
        If an argument is out of range or not a number.

    Examples
    --------
    >>> round(mu_of(1.0, 1e-5), 4)
    0.2681
    """
    epsilon = _number("mu_of(epsilon, delta)", "epsilon", epsilon)
    delta = _number("mu_of(epsilon, delta)", "delta", delta, high=1.0)
    if delta == 1 or math.isinf(epsilon):
        return math.inf
    if delta == 0:
        return 0.0
    return _last_true(lambda mu: delta_of(epsilon, mu) <= delta, 1.0, 2.0)


def _mus(call: str, mus: Iterable[float]) -> list[float]:
    return [value for mu in mus if (value := _number(call, "mu", mu)) > 0]


def compose(mus: Iterable[float]) -> float:
    """Return the mu of a transcript of releases with fresh noise, sqrt(sum mu_t^2), rounded up.

    Holds for releases chosen adaptively (Dong, Roth, Su 2022, corollary 2).

    Parameters
    ----------
    mus : iterable of float >= 0
        One per release; none gives 0.

    Raises
    ------
    InvalidInput
        If an entry is negative or not a number.

    Examples
    --------
    >>> round(compose([3.0, 4.0]), 6)
    5.0
    """
    values = _mus("compose(mus)", mus)
    if len(values) < 2 or math.inf in values:
        return max(values, default=0.0)
    largest = max(values)
    # Relative errors: 3 u a term, u for the correctly rounded sum, u each for root and product; below 5 u in all.
    root = math.sqrt(math.fsum((value / largest) ** 2 for value in values))
    return _up(_up(largest * root) * (1 + 8 * _U))


def group(mus: Iterable[float]) -> float:
    """Return the mu between the ends of a chain of neighbours, sum mu_t, rounded up (triangle inequality).

    Parameters
    ----------
    mus : iterable of float >= 0
        One per link; none gives 0.

    Raises
    ------
    InvalidInput
        If an entry is negative or not a number.

    Examples
    --------
    >>> round(group([0.1, 0.2]), 6)
    0.3
    """
    values = _mus("group(mus)", mus)
    if len(values) < 2 or math.inf in values:
        return max(values, default=0.0)
    try:
        return _up(math.fsum(values))
    except OverflowError:
        return math.inf


def lattice_mu(distance: float, sigma: float, dimension: int, step: float, arithmetic: float = 0.0) -> float:
    """Return the mu of the lattice Gaussian release of two parameters that are at most ``distance`` apart.

    Parameters
    ----------
    distance : float >= 0
        Bound on ||w - w'||_G, in the units of the estimator's metric G.
    sigma : float > 0
        Noise in the same units.
    dimension : int >= 0
        Number of released parameters.
    step : float in (0, 1/8]
        Lattice step in whitened coordinates u = L'w/sigma, where G = LL'.
    arithmetic : float >= 0
        Bound on the 2-norm of the rounding error of u, summed over the worlds that compute u in floating point.

    Returns
    -------
    float
        Upper bound of mu. Equal inputs still pay for the lattice: callers that know two states to be the same bit for
        bit need no bound at all.

    Raises
    ------
    InvalidInput
        If an argument is out of range or not a number.

    Notes
    -----
    1. Both worlds round u to the lattice, each coordinate by at most step/2. The lattice points are therefore at most
       ``shift = distance/sigma + arithmetic + sqrt(dimension) step`` apart.
    2. Discrete Gaussian noise of scale s = 1/step is added to the integer point k. Up to a factor of 1 +- 1e-136 per
       coordinate this is a post-processing of N(k, s^2 - 16): round x ~ N(k, s^2 - 16) at random to the discrete
       Gaussian of scale 4 centred at x. Its normaliser is the same for all x up to 5 exp(-32 pi^2) < 1e-136 (Poisson
       summation), and the convolution of the two densities has variance s^2.
    3. So mu = shift/(step sqrt(s^2 - 16)) = shift/sqrt(1 - 16 step^2). The factor of 2 changes epsilon by less than
       dimension * 1e-135 and is far inside the outward rounding below.

    References
    ----------
    Canonne, Kamath, Steinke (2020), "The discrete Gaussian for differential privacy".
    Dong, Roth, Su (2022), "Gaussian differential privacy".

    Examples
    --------
    >>> round(lattice_mu(0.01, 0.1, 50, 2.0**-20), 5)
    0.10001
    """
    call = "lattice_mu(distance, sigma, dimension, step, arithmetic)"
    distance = _number(call, "distance", distance)
    sigma = _number(call, "sigma", sigma, low=math.ulp(0.0))
    root_d = math.sqrt(_number(call, "dimension", dimension, high=2.0**53))
    step = _number(call, "step", step, low=math.ulp(0.0), high=0.125)
    arithmetic = _number(call, "arithmetic", arithmetic)
    if math.isinf(distance) or math.isinf(arithmetic):
        return math.inf
    terms = (distance / sigma, arithmetic, root_d * step)
    shift = math.fsum(_up(_up(term)) for term in terms) if max(terms) < 1e300 else math.inf
    # 1 - 16 step^2 >= 3/4: its relative error is below 2 u, that of the root below 2 u, of quotient and sum 2 u.
    return _up(_up(shift) / math.sqrt(1 - 16 * step * step) * (1 + 8 * _U))


def together(target: float, releases: int) -> float:
    """Return the mu of so many releases of which none tells more than `target`, sqrt(releases) * target, rounded up.

    This is what is proved for requests that are chosen after seeing releases: each release keeps a limit that was
    fixed before. The composed values of what was measured (:class:`Transcript`) are facts about the data at hand.

    Examples
    --------
    >>> round(together(0.3, 4), 6)
    0.6
    """
    return math.sqrt(releases) * target * (1.0 + 2.0**-50)


class Transcript:
    """The releases made so far: how many, and how much they reveal together."""

    def __init__(self) -> None:
        self.releases = 0
        self._squared: float = 0.0

    def record(self, mu: float) -> None:
        """Count a release."""
        self.releases += 1
        self._squared = compose([math.sqrt(self._squared), mu]) ** 2 * (1 + 2.0**-50)

    def with_next(self, mu: float) -> float:
        """mu of all releases so far and one more, composed."""
        return compose([math.sqrt(self._squared) * (1 + 2.0**-50), mu])

    @property
    def mu(self) -> float:
        """mu of all releases so far, composed."""
        return self.with_next(0.0)
