"""Samples codes that satisfy their requests, so that the results of a search differ from each other
as the training images of a class do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from latentforge.contracts import Objective
from latentforge.engine.latent_search import Found
from latentforge.seeding import generator

STEP = 0.2  # standard deviation of the noise of a step, in units of the spread of the codes
STEEP = 5.0  # largest slope that a step follows, per unit: near a boundary, log p is steep


def sample_results(
    found: Found,
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    prior: Callable[[Tensor], Tensor],
    unit: Tensor | float,
    steps: int,
    seed: int,
) -> Found:
    """Replace each solution by the last satisfied one of `steps` Langevin steps from it.

    A search climbs, so that its results are all near the same most probable images. Langevin steps
    (Roberts and Tweedie 1996) sample instead: with the log density score + prior, where the score
    of a class is log p(class | x), they sample the codes of that class, p(z | class).
    """
    rows = found.satisfied.nonzero().squeeze(1)
    if not len(rows) or not steps:
        return found
    noise = generator(found.z.device, "guided samples", seed)
    latest, score = found.z[rows].clone(), found.score[rows].clone()
    u = latest / unit
    for _ in range(steps):
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            z = u * unit
            x = decode(z)
            value = objective.score(x, rows)
            (slope,) = torch.autograd.grad((value + prior(z)).sum(), u)
        accepted = objective.satisfied(x, rows) & value.isfinite()
        latest[accepted], score[accepted] = z[accepted].detach(), value[accepted].detach()
        moved = torch.randn(u.shape, generator=noise, device=u.device)
        u = u.detach() + 0.5 * STEP**2 * slope.clamp(-STEEP, STEEP) + STEP * moved
    codes, scores = found.z.clone(), found.score.clone()
    codes[rows], scores[rows] = latest, score
    with torch.no_grad():
        return replace(found, z=codes, x=decode(codes), score=scores)
