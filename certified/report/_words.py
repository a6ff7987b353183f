"""What figures mean, in words that need no mathematics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from certified.accounting import delta_of, epsilon_of

__all__ = ["claim_in_words", "curve_points", "differencing_in_words", "guess", "moment", "number", "rest_of_promise"]

_SCOPES = {
    "estimator": "the model",
    "pipeline": "the model with all steps before it",
    "search": "the whole search",
}


def number(value: Any) -> str:
    """Return a figure in four digits; whole numbers in full."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not stated"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    try:
        value = float(value)
    except (TypeError, ValueError):
        return str(value)
    if math.isnan(value):
        return "not stated"
    return "unlimited" if math.isinf(value) else f"{value:.4g}"


def moment(text: Any) -> str:
    """Return a time of a record as people write it."""
    try:
        when = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return str(text)
    if len(str(text)) <= 10:
        return f"{when.day} {when:%B %Y}"
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def guess(mu: float) -> str:
    """Return how often the best guess between two releases is right, in percent, rounded up to a tenth.

    For two normal distributions at distance mu and equal odds, that is the normal distribution function at mu/2.
    """
    share = 0.5 * (1.0 + math.erf(mu / 2.0 / math.sqrt(2.0)))
    return f"{min(100.0, math.ceil(1000.0 * share + 1e-9) / 10.0):g} %"


def claim_in_words(claim: str, mu: float, scope: str, adaptivity: str = "") -> str:
    """Return the claim as a sentence for everybody."""
    whole = _SCOPES[scope]
    if claim == "exact":
        text = (
            f"After the deletion, the model is the same, bit for bit, as if {whole} had been trained anew without the "
            "people who were deleted."
        )
    elif claim == "indistinguishable":
        text = (
            f"What is published after the deletion can hardly be told from what would be published if {whole} had been "
            "trained anew without the people who were deleted. Whoever sees it and has to guess which of the two it "
            "is, "
            f"is right at most {guess(mu)} of the time; tossing a coin is right 50 % of the time."
        )
    else:
        return "Nothing is guaranteed for this model."
    return f"{text} Requests covered: {adaptivity}." if adaptivity else text


def rest_of_promise(mu: float, target: float) -> str:
    """Return how much of the promise is used."""
    if target <= 0:
        return "no noise was needed"
    return f"{100 * mu / target:.0f} % of what is promised"


def differencing_in_words(mu: float) -> str:
    """Return what somebody learns who holds the releases before and after."""
    if math.isnan(mu):
        return "It was not estimated what the release before and the one after tell together."
    if mu <= 0:
        return "The releases before and after are the same: together they tell nothing about who was deleted."
    outside = mu / math.sqrt(2.0)
    return (
        "Somebody who holds the release before and the one after, and who knows all other people's data, can guess "
        f"whether a given person was deleted and is right about {guess(mu)} of the time; somebody who does not know "
        "the "
        f"others' data, {guess(outside)}. This is an estimate, and no part of the guarantee."
    )


def curve_points(mu: float, delta: float) -> Sequence[tuple[float, float]]:
    """Return points (epsilon, delta) of what a release is bound by."""
    if not 0 < mu < math.inf:
        return ()
    last = epsilon_of(mu, min(delta, 1e-9) or 1e-9)
    points = ((last * i / 40, delta_of(last * i / 40, mu)) for i in range(41))
    return [(epsilon, max(delta, 1e-12)) for epsilon, delta in points]
