"""Samples codes from the results of a search: codes of a class, so that results differ as images
do, or codes of an open-ended objective, whose mean image is the best guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentforge.contracts import Objective
from latentforge.engine.latent_search import Found
from latentforge.seeding import generator

STEP = 0.2  # standard deviation of the noise of a step, in units of the spread of the codes
STEEP = 5.0  # largest slope that a step follows, per unit: near a boundary, log p is steep
SHARPNESS = 20.0  # power of p(class | x). With power 1, results are often near a boundary
LAST = 20  # steps whose codes can be results
OFFSETS, REACH = 3, 0.3  # random offsets, and their size in units, that must satisfy a request too


@dataclass
class Density:
    """A density of codes `u` in units of `unit`: prior(z) exp(power x score), not normalised."""

    decode: Callable[[Tensor], Tensor]
    objective: Objective
    prior: Callable[[Tensor], Tensor]
    unit: Tensor | float
    seed: int

    def evaluate(
        self, u: Tensor, rows: Tensor, power: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The log density (N,) and its slope (N, D), the scores (N,), and the images, which are
        those that were scored, so that an objective can reuse its answers about them."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            z = u * self.unit
            x = self.decode(z)
            score = self.objective.score(x, rows)
            value = power * score + self.prior(z)
            (slope,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), slope, score.detach(), x

    def noise(self, device: torch.device) -> torch.Generator:
        return generator(device, "guided samples", self.seed)


def sample_results(found: Found, density: Density, steps: int) -> Found:
    """Replace each solution by a code that `steps` Langevin steps from it reach: the last one that
    satisfies the request also at random offsets, so that other classifiers agree.

    A search climbs, so that its results are all near the same most probable images. Langevin steps
    (Roberts and Tweedie 1996) sample instead, from the density p(z) p(class | x)^SHARPNESS. The
    score of a request must therefore be log p(class | x).
    """
    rows = found.satisfied.nonzero().squeeze(1)
    if not len(rows):
        return found
    unit, noise = density.unit, density.noise(found.z.device)
    latest, latest_score = found.z[rows].clone(), found.score[rows].clone()
    u = latest / unit

    def normal() -> Tensor:
        return torch.randn(u.shape, generator=noise, device=u.device)

    for step in range(steps):
        _, slope, score, x = density.evaluate(u, rows, SHARPNESS)
        if step >= steps - LAST:
            accepted = density.objective.satisfied(x, rows) & score.isfinite()
            for _ in range(OFFSETS):
                with torch.no_grad():
                    x = density.decode((u + REACH * normal()) * unit)
                    accepted &= density.objective.satisfied(x, rows)
            latest[accepted], latest_score[accepted] = (u * unit)[accepted], score[accepted]
        u = u + 0.5 * STEP**2 * slope.clamp(-STEEP, STEEP) + STEP * normal()
    codes, scores = found.z.clone(), found.score.clone()
    codes[rows], scores[rows] = latest, latest_score
    paths = {  # also end at the sampled codes
        request: torch.cat([path, codes[request, None].to(path)])
        if found.satisfied[request]
        else path
        for request, path in found.paths.items()
    }
    with torch.no_grad():
        return replace(found, z=codes, x=density.decode(codes), score=scores, paths=paths)


CHAINS = 16  # per request
SPREAD = 1.5  # standard deviation of the starts of the chains around the result, in units
ACCEPTED = 0.574  # the fraction of accepted steps with the fastest mixing in many dimensions


def average_samples(found: Found, density: Density, steps: int) -> Found:
    """Replace each image by the mean of the images that Langevin chains visit; the code stays.

    The density is the posterior of z if the score is a log likelihood. The chains take
    Metropolis-adjusted Langevin steps (Roberts and Tweedie 1996), whose size is adapted in the
    first third of the steps (Roberts and Rosenthal 1998). The mean image has the smallest expected
    squared error.
    """
    noise = density.noise(found.z.device)
    rows = torch.arange(len(found.z), device=found.z.device).repeat(CHAINS)

    def normal() -> Tensor:
        return torch.randn(u.shape, generator=noise, device=u.device)

    def log_proposal(target: Tensor, origin: Tensor, slope: Tensor) -> Tensor:
        return -(target - origin - 0.5 * size**2 * slope).square().sum(1) / (2 * size**2)

    u, size = (found.z / density.unit).repeat(CHAINS, 1), STEP
    u = u + SPREAD * normal()
    value, slope, _, x = density.evaluate(u, rows)
    x = x.detach().clone()
    total, burn_in = torch.zeros_like(x), steps // 3
    for step in range(steps):
        proposed = u + 0.5 * size**2 * slope + size * normal()
        new_value, new_slope, _, new_x = density.evaluate(proposed, rows)
        ratio = new_value - value
        ratio += log_proposal(u, proposed, new_slope) - log_proposal(proposed, u, slope)
        uniform = torch.rand(len(u), generator=noise, device=u.device)
        accepted = uniform.log() < ratio  # not where the new value is nan
        u = torch.where(accepted[:, None], proposed, u)
        slope = torch.where(accepted[:, None], new_slope, slope)
        value = torch.where(accepted, new_value, value)
        x[accepted] = new_x.detach()[accepted]
        if step < burn_in:
            size *= 1.1 if float(accepted.float().mean()) > ACCEPTED else 1 / 1.1
        else:
            total += x
    mean = total.unflatten(0, (CHAINS, -1)).mean(0) / (steps - burn_in)
    return replace(found, x=mean)
