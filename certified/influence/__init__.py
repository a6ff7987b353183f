"""What a model would be without each subject: influence with a certified error, for all subjects at once, no refit."""

from certified.influence._influence import influence
from certified.influence._record import Influence

__all__ = ["Influence", "influence"]
