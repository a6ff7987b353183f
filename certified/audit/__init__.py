"""Audits: attempts to refute a claim that a model has unlearned.

An audit can refute a claim and never prove one; only the proof behind a certificate gives an upper bound. In order of
what they see and what they need:

* :func:`exact_gap`, :func:`state_equal`: both states, white box, no sampling;
* :func:`release_test`: one published model and the retained rows;
* :func:`differencing`: a release before and one after, to rebuild the deleted row;
* :func:`empirical`: samples of any two procedures, with controls;
* :mod:`certified.audit.attacks`: membership inference on any scikit-learn-compatible model;
* :func:`neurips_score`: the score of a competition, for comparison only;
* :func:`utility`: what deletion did to the quality of a model.

Results are frozen records with a verdict, REFUTED, NOT REFUTED or INCONCLUSIVE; :func:`audited` puts them beside a
certificate's claim.
"""

from certified.audit._differencing import Differencing, differencing
from certified.audit._empirical import Empirical, empirical, per_run
from certified.audit._gap import ExactGap, exact_gap, gaussian_mu
from certified.audit._membership import Membership, membership
from certified.audit._models import draws, noise_metric, private_parameter
from certified.audit._neurips import NeuripsScore, neurips_score
from certified.audit._one_run import OneRun, one_run
from certified.audit._release import ReleaseTest, release_test, whitened_test
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, AuditResult, audited
from certified.audit._state import StateEqual, state_equal
from certified.audit._utility import Utility, utility

__all__ = [
    "INCONCLUSIVE",
    "NOT_REFUTED",
    "REFUTED",
    "AuditResult",
    "Differencing",
    "Empirical",
    "ExactGap",
    "Membership",
    "NeuripsScore",
    "OneRun",
    "ReleaseTest",
    "StateEqual",
    "Utility",
    "audited",
    "differencing",
    "draws",
    "empirical",
    "exact_gap",
    "gaussian_mu",
    "membership",
    "neurips_score",
    "noise_metric",
    "one_run",
    "per_run",
    "private_parameter",
    "release_test",
    "state_equal",
    "utility",
    "whitened_test",
]
