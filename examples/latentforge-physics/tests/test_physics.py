import math

import pytest
import torch
from latentforge_physics.simulator import BODIES, SECONDS, SOFT, fly
from scipy.integrate import solve_ivp

from latentforge.testing import check_objective


def example():
    return torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("check", check_objective("arrive", example=example), ids=str)
def test_the_objective_keeps_its_contract(check):
    check()


def flown(vx, vy, seconds=SECONDS):
    """Compute the final position of a probe with an adaptive Runge-Kutta method of order 8."""

    def motion(_, state):
        x, y, *velocity = state
        pull = [0.0, 0.0]
        for bx, by, mass in BODIES:
            way = bx - x, by - y
            strength = mass / (way[0] ** 2 + way[1] ** 2 + SOFT**2) ** 1.5
            pull = [p + strength * w for p, w in zip(pull, way, strict=True)]
        return [*velocity, *pull]

    start = [0.0, 0.0, vx, vy]
    return solve_ivp(motion, (0, seconds), start, "DOP853", rtol=1e-10, atol=1e-12).y[:2, -1]


def test_the_simulator_agrees_with_an_independent_one():
    velocity = torch.tensor([[1.0, -0.5], [0.2, 2.0], [-2.0, 1.0]], dtype=torch.float64)
    for start, end in zip(velocity.tolist(), fly(velocity, steps=4000).tolist(), strict=True):
        assert end == pytest.approx(flown(*start).tolist(), abs=1e-4)


def test_gradient_equals_finite_differences():
    velocity = torch.tensor([[1.0, -0.5], [0.2, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fly, velocity)


def test_command_finds_velocities_that_reach_the_targets(latentforge_cli):
    answer = latentforge_cli("aim", "--target", "3,0", "--target=-2,2", "--json")
    assert answer.code == 0, answer.err
    for flight, target in zip(answer.json["flights"], [(3, 0), (-2, 2)], strict=True):
        assert flight["met"]
        assert math.dist(flown(*flight["velocity"]), target) < 0.02


def test_target_that_is_not_a_point_is_refused(latentforge_cli):
    answer = latentforge_cli("aim", "--target", "3")
    assert answer.code == 2
    assert "write X,Y" in answer.err
