"""Minimise a convex loss, bound the distance to the minimiser, delete without a pass over the rows."""
