"""A model, an objective and contexts whose searches can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import torch
from latentforge_plugins.guided.config import GuidedConfig
from latentforge_plugins.guided.guide import guide

from latentforge import LatentSpec
from latentforge.contracts import Arrays, ExploreContext
from latentforge.data.preparation import prepare_whole
from latentforge.findings import checked
from latentforge.latent import DiagonalGaussian


def context_of(y, classes, wanted, z=None):
    """Return a context of blank images; tests use each image's index as its code."""
    x = np.zeros((len(y), 2, 2), np.uint8)
    data = prepare_whole({"train": Arrays(x, y, classes)}, "arrays")

    class Objective:
        requests = ["?"] * len(wanted)
        classes = torch.tensor(wanted)

    class Model:
        latent = LatentSpec((1,), z)

    return ExploreContext(
        Model(), data.spec, data.split, torch.device("cpu"), 0, objective=Objective()
    )


class IdentityModel:
    """A model whose images, codes and decoded images are the same two values."""

    def __init__(self, prior):
        self.latent = LatentSpec(shape=(2,), prior=prior)

    def encode(self, x):
        return DiagonalGaussian(x, torch.full_like(x, 2 * math.log(0.5)))

    def decode(self, z):
        return z


class NearGoal:
    """Scores minus half the squared distance to `goal`; satisfied above `-reach`."""

    def __init__(self, goal, reach=0.0, count=3):
        self.goal, self.reach = torch.tensor(goal), reach
        self.requests = [f"be there, {i}" for i in range(count)]

    def score(self, x, request):
        return -0.5 * (x - self.goal).square().sum(1)

    def satisfied(self, x, request):
        return self.score(x, request) > -self.reach


def run_guide(objective, **options):
    """Run `guided` on the identity model; return its results and the training codes."""
    rng = np.random.default_rng(0)
    x = (0.5 + 0.1 * rng.standard_normal((2000, 2)) * [1.0, 0.5]).clip(0, 1).astype("float32")
    data = prepare_whole({"train": Arrays(x)}, "arrays")
    context = ExploreContext(
        IdentityModel("normal"), data.spec, data.split, torch.device("cpu"), 0, objective=objective
    )
    torch.manual_seed(0)
    findings = checked(guide(context, GuidedConfig(**options)))
    items = {item.name: item for item in findings.items}
    return items["found"].arrays, items, findings, x
