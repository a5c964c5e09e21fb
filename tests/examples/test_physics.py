"""The contract of objectives holds without images, parameters or a run."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch

from latentforge import Forge
from latentforge.config.resolve import check_options
from latentforge.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "latentforge-physics"
RESTARTS = 4


@pytest.fixture(scope="module")
def fly():
    """The simulator, which replaces a decoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)
        yield importlib.import_module("latentforge_physics.simulator").fly


@pytest.fixture(scope="module")
def spec(fly):
    registry = Forge(plugins=["latentforge_physics"]).registry
    return registry.get("objectives", "latentforge_physics/arrive").spec


def search(decode, objective, start, steps=300, lr=0.2):
    """Gradient ascent from codes `start`, which cycle through the requests. Returns a code or None
    for each request, and the number of steps of all codes. It uses only the contract."""
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
        gradient = torch.autograd.grad(score.sum(), z)[0]  # rows are independent
        rate = lr * (1 - step / steps)
        z = (z + rate * gradient)[open_].detach().requires_grad_()
        request = request[open_]
    return found, attempts


@pytest.mark.slow
def test_search_that_uses_only_the_contract_reaches_every_target(fly, spec):
    options = {"targets": [[3.0, 0.0], [-2.0, 2.0], [0.0, -3.0], [1.0, 3.0]]}
    objective = spec.build(check_options(spec.config, options, "arrive"), None)
    assert objective.requests[1] == "be at (-2, 2)"
    noise = torch.Generator().manual_seed(3)
    start = 2 * torch.randn(len(objective.requests) * RESTARTS, 2, generator=noise)
    found, attempts = search(fly, objective, start, lr=0.05)

    assert attempts < 300 * len(start) / 2  # the rows of satisfied requests were dropped
    for target, z in zip(options["targets"], found, strict=True):
        assert z is not None, target
        [end] = fly(z[None].double(), steps=5000).tolist()  # with a step 100 times as small
        assert math.dist(end, target) < 0.01 + 1e-3


def test_options_of_an_objective_are_validated(spec):
    with pytest.raises(ConfigError) as error:
        check_options(spec.config, ["tolerance=-1", "targets=[[1.0]]"], "arrive")
    assert len(error.value.details) == 2
    assert error.value.details[0].startswith("arrive.tolerance: ")
