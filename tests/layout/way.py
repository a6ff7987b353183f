"""Print the way of one deletion: the rooms that it enters, in order.

``python tests/layout/way.py``. A room is a package, or a loose module, of `certified`.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from certified.linear_model import LogisticRegression
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

MODELS = {
    "LogisticRegression": LogisticRegression(),
    "Pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
}


def modules_of(act: Callable[[], Any]) -> list[str]:
    """Modules of the package whose functions an act calls, in order of the first call."""
    found: dict[str, None] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("certified."):
            found.setdefault(name.partition(".")[2])

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        act()
    finally:
        sys.setprofile(before)
    return list(found)


def rooms_of(modules: list[str]) -> list[str]:
    """Rooms that the modules lie in, in order."""
    return list(dict.fromkeys(name.partition(".")[0] for name in modules))


def way_of(estimator: Any) -> list[str]:
    """Modules on the way of one deletion that takes no pass, up to the certificate."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    model = estimator.fit(X, (X[:, 0] > 0).astype(int), ids=np.arange(300))
    return modules_of(lambda: (model.delete([7]), model.certificate_))


def main() -> None:
    """Print rooms and modules for each of the models."""
    for name, estimator in MODELS.items():
        modules = way_of(estimator)
        rooms = rooms_of(modules)
        print(f"{name}.delete to its certificate: {len(rooms)} rooms, {len(modules)} modules")
        for room in rooms:
            inside = [module.partition(".")[2] for module in modules if module.partition(".")[0] == room]
            print(f"  {room:16} {' '.join(inside)}".rstrip())


if __name__ == "__main__":
    main()
