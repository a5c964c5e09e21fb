"""The contract of objectives holds where there are no images, no parameters and no run."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch

from latentforge import Forge
from latentforge.config import check_options
from latentforge.errors import ConfigError

RESTARTS = 4


@pytest.fixture(scope="module")
def physics():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        yield importlib.import_module("physics")


@pytest.fixture(scope="module")
def spec(physics):
    return Forge(plugins=[physics]).registry.get("objectives", "physics/baskets").spec


def search(decode, objective, start, steps=300, lr=0.2):
    """Gradient ascent with `len(start)` attempts, each request's in turn; gives a code or None for
    each request and the attempts made in all. Knows the contract and nothing else."""
    request = torch.arange(len(start)) % len(objective.requests)
    z, found, attempts = start.clone().requires_grad_(), [None] * len(objective.requests), 0
    for step in range(steps):
        x = decode(z)
        for row in objective.satisfied(x, request).nonzero().flatten().tolist():
            found[request[row]] = z[row].detach()
        score = objective.score(x, request)
        open_ = torch.tensor([found[r] is None for r in request.tolist()])
        if not open_.any():
            break
        attempts += len(z)
        gradient = torch.autograd.grad(score.sum(), z)[0]  # rows do not mix
        rate = lr * (1 - step / steps)
        z = (z + rate * gradient)[open_].detach().requires_grad_()
        request = request[open_]
    return found, attempts


def closed_form(z, drag, seconds=1.0):
    """Where the ball is, by the solution of v' = -g - drag v, in plain numbers."""
    vx, vy = (float(v) for v in z)
    g = 9.81
    if drag == 0:
        return vx * seconds, vy * seconds - g * seconds**2 / 2
    reach = (1 - math.exp(-drag * seconds)) / drag
    return vx * reach, (vy + g / drag) * reach - g * seconds / drag


@pytest.mark.parametrize("drag", [0.0, 0.8])
def test_a_search_that_knows_the_contract_alone_reaches_every_target(physics, spec, drag):
    options = {"targets": [[4.0, 3.0], [-6.0, 0.5], [0.0, -2.0], [9.0, -9.0]]}
    objective = spec.build(check_options(spec.config, options, "baskets"), None)
    assert objective.requests[1] == "be at (-6 m, 0.5 m)"
    noise = torch.Generator().manual_seed(3)
    start = 5 * torch.randn(len(objective.requests) * RESTARTS, 2, generator=noise)
    found, attempts = search(physics.Throw(drag), objective, start)

    assert attempts < 300 * len(start) / 2  # the rows of satisfied requests were dropped
    for target, z in zip(options["targets"], found, strict=True):
        assert z is not None, target
        assert math.dist(closed_form(z, drag), target) < 0.01 + 1e-3  # Heun's error at 0.01 s


def test_the_rows_of_an_attempt_do_not_depend_on_the_other_rows(physics, spec):
    objective = spec.build(spec.config(), None)
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    request = torch.tensor([2, 0, 2])
    x = physics.Throw(0.1)(z)
    score, satisfied = objective.score(x, request), objective.satisfied(x, request)
    assert score.shape == satisfied.shape == (3,)
    assert satisfied.dtype == torch.bool
    for row in range(3):
        alone = objective.score(x[row : row + 1], request[row : row + 1])
        torch.testing.assert_close(alone[0], score[row])


def test_the_gradient_of_the_score_is_that_of_the_physics(physics, spec):
    """Without drag dx/dz is the time, so the gradient points from the ball to the target."""
    objective = spec.build(spec.config(), None)
    z = torch.tensor([[1.0, 2.0]], requires_grad=True)
    request = torch.tensor([0])
    objective.score(physics.Throw()(z), request).backward()
    x, y = closed_form(z.detach()[0], 0.0)
    way = torch.tensor([4.0 - x, 3.0 - y])
    torch.testing.assert_close(z.grad[0], way / way.norm(), rtol=1e-4, atol=1e-5)


def test_the_options_of_an_objective_are_checked_like_any_other(spec):
    with pytest.raises(ConfigError) as error:
        check_options(spec.config, ["tolerance=-1", "targets=[[1.0]]"], "baskets")
    assert len(error.value.details) == 2
    assert error.value.details[0].startswith("baskets.tolerance: ")
