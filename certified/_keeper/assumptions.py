"""What a bound rests on, by name: one record with its legend, wherever values are measured."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from certified._keeper.record import FrozenMap, convert
from certified.errors import InvalidInput

__all__ = ["LEGEND", "Assumptions"]

LEGEND = MappingProxyType(
    {
        "M": "how fast the Hessian can change along a path of length 1 in its own metric",
        "b": "how much it can have changed on the way to the minimiser: M times the length of that way",
        "eta": "share of the Hessian that deletions have taken since it was last factorised",
        "rho": "relative error of the factor of the Hessian",
        "nu": "length of the gradient at the parameter, rounding included",
        "step": "length of the predicted step; 0 where the gradient was measured",
        "k_G": "factor from the metric of the Hessian to that of the noise",
        "rounding_envelope": "bound of all rounding errors together, in the metric of the noise",
        "dual_gap": "bound of how far the objective is above its minimum",
        "n_shards": "shards, each with a model of its own",
        "n_slices": "slices of a shard, after each of which its model is kept",
        "epsilon_adaptive": "epsilon of the promise about the key of the shards",
        "delta_adaptive": "delta of the promise about the key of the shards",
        "n_answers": "answers that this promise covers",
        "n_answers_given": "answers given so far",
    }
)
"""Each assumption in a few words; the pages on theory say more."""


class Assumptions(FrozenMap):
    """Measured values, frozen; ``Assumptions(nu=..., M=...)`` takes names of :data:`LEGEND` alone.

    A record that was read may hold others, of a newer version.
    """

    __slots__ = ()

    def __init__(self, items: Any = (), **named: float) -> None:
        unknown = sorted(set(named) - set(LEGEND))
        if unknown:
            raise InvalidInput(
                f"Assumptions got {unknown}. Names of its legend are allowed: {sorted(LEGEND)}. Describe a new one "
                "there first."
            )
        super().__init__({name: convert(float, name, value) for name, value in (dict(items) | named).items()})

    def __str__(self) -> str:
        return "\n".join(f"{name} = {value:.4g}{_meaning(name)}" for name, value in self.items())


def _meaning(name: str) -> str:
    return f": {LEGEND[name]}" if name in LEGEND else ""
