"""Trees whose state is a function of the set of rows, kept exactly through deletions. What the estimators share.

``codes`` turns features into integers by a map that deletions seldom change; ``splits`` chooses the split of a node;
``grow`` grows trees and subtrees; ``kernels_delete`` removes rows; ``kernels_predict`` predicts; ``forest`` holds it
all together.
"""

from certified.errors import MissingExtra

try:
    import numba  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra("A tree", "numba", "trees") from error
