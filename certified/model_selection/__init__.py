"""Searches that delete: after a deletion the winner is the one that a fresh search on the retained rows would pick.

A hyper-parameter chosen by cross-validation on rows that were deleted later keeps their influence. So a search keeps
the model of every candidate and fold, deletes from each, scores again and chooses again.
"""

from certified.model_selection._candidates import GridSearchCV, RandomizedSearchCV

__all__ = ["GridSearchCV", "RandomizedSearchCV"]
