"""Deletion by the influence function: its certificate is at least the true distance, and mutants are caught."""

import numpy as np
import pytest
import test_glm_certificates as glm

from certified._convex import influence_step

pytestmark = glm.pytestmark


def _judge(seeds, least):
    ratios, refused = glm._run(seeds)
    for key, values in ratios.items():
        print(f"\n{key}: {len(values)}, {np.quantile(values, [0, 0.05, 0.5, 0.95]).round(3)}")
    print(f"{refused} refused")
    assert refused <= len(seeds) // 10
    assert len(ratios["predicted"]) >= least


def test_no_certificate_of_an_influence_step_is_below_the_true_distance(monkeypatch):
    monkeypatch.setattr(glm, "delete", influence_step.delete)
    _judge(range(54), 54)


@pytest.mark.slow
def test_no_certificate_of_an_influence_step_is_below_the_true_distance_in_ten_thousand_cases(monkeypatch):
    monkeypatch.setattr(glm, "delete", influence_step.delete)
    _judge(range(20_000, 30_000), 10_000)


def test_what_leaves_the_hessian_has_to_be_counted(monkeypatch):
    """The step is of the old Hessian: a bound that takes it for the new one is caught."""
    monkeypatch.setattr(glm, "delete", influence_step.delete)
    monkeypatch.setattr(influence_step, "_along", lambda loss, V, pi, rows, roots: np.zeros(len(pi)))
    with pytest.raises(AssertionError, match="predicted: certified"):
        glm._run(range(400))


def test_what_left_before_has_to_be_counted(monkeypatch):
    monkeypatch.setattr(glm, "delete", influence_step.delete)
    monkeypatch.setattr(influence_step, "_taken", lambda loss, metric, rows, gone: 0.0)
    with pytest.raises(AssertionError, match="predicted: certified"):
        glm._run(range(400))
