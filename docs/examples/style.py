"""One look for all pictures: colours that colour-blind readers tell apart, and no more lines than needed."""

import matplotlib.pyplot as plt

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"

plt.rcParams.update(
    {
        "figure.figsize": (7.0, 4.0),
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e5e5",
        "axes.axisbelow": True,
        "font.size": 11,
        "legend.frameon": False,
    }
)
