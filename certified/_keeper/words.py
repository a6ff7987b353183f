"""Figures in words, for those who do not know the symbols."""

import math

__all__ = ["told_by_two", "told_by_two_alone"]


def told_by_two(mu: float, done: str = "changed") -> str:
    """What somebody can tell who holds the releases from before and after: an estimate, in words."""
    if mu == 0.0:
        return "The releases from before and after are the same."
    if mu > 6.0:  # right in 999 of 1,000 cases
        return f"Whoever holds the releases from before and after can tell what was {done}."
    cases = f"{_right(mu):.0f} of 100 cases what was {done}"
    return (
        f"With both releases, and all other rows, one guesses right in {cases}; a coin in 50 (estimated mu = {mu:.4g})."
    )


def told_by_two_alone(mu: float) -> str:
    """The same of somebody who does not know the other rows, and has to compare two noisy releases."""
    if mu == 0.0 or mu > 6.0:
        return ""
    alone = mu / math.sqrt(2.0)
    return f"Without the other rows: in {_right(alone):.0f} (estimated mu = {alone:.4g})."


def _right(mu: float) -> float:
    """Percentage of right guesses between N(0, 1) and N(mu, 1), each as probable."""
    return 50.0 * math.erfc(-mu / math.sqrt(8.0))
