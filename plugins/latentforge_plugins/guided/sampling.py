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
SHARPNESS = 10.0  # power of p(class | x). With power 1, results are often near a boundary
LAST = 20  # steps whose codes can be results
OFFSETS, REACH = 6, 0.5  # random offsets, and their size in units, that must satisfy a request too


def sample_results(
    found: Found,
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    prior: Callable[[Tensor], Tensor],
    unit: Tensor | float,
    steps: int,
    seed: int,
) -> Found:
    """Replace each solution by a code that `steps` Langevin steps from it reach: the last one that
    satisfies the request also at random offsets, so that other classifiers agree.

    A search climbs, so that its results are all near the same most probable images. Langevin steps
    (Roberts and Tweedie 1996) sample instead, from the density p(z) p(class | x)^SHARPNESS. The
    score of a request must therefore be log p(class | x).
    """
    rows = found.satisfied.nonzero().squeeze(1)
    if not len(rows) or not steps:
        return found
    noise = generator(found.z.device, "guided samples", seed)
    latest, score = found.z[rows].clone(), found.score[rows].clone()
    u = latest / unit

    def noisy(scale: float) -> Tensor:
        return scale * torch.randn(u.shape, generator=noise, device=u.device)

    for step in range(steps):
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            z = u * unit
            x = decode(z)
            value = objective.score(x, rows)
            (slope,) = torch.autograd.grad((SHARPNESS * value + prior(z)).sum(), u)
        u = u.detach()
        if step >= steps - LAST:
            accepted = objective.satisfied(x, rows) & value.isfinite()
            with torch.no_grad():
                for _ in range(OFFSETS):
                    x = decode((u + noisy(REACH)) * unit)
                    accepted &= objective.satisfied(x, rows)
            latest[accepted], score[accepted] = z[accepted].detach(), value[accepted].detach()
        u = u + 0.5 * STEP**2 * slope.clamp(-STEEP, STEEP) + noisy(STEP)
    codes, scores = found.z.clone(), found.score.clone()
    codes[rows], scores[rows] = latest, score
    paths = {  # also end at the sampled codes
        request: torch.cat([path, codes[request, None].to(path)])
        if found.satisfied[request]
        else path
        for request, path in found.paths.items()
    }
    with torch.no_grad():
        return replace(found, z=codes, x=decode(codes), score=scores, paths=paths)
