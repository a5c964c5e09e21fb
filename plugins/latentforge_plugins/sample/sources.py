"""Sources of codes: the prior, a density fitted to training codes, or the posteriors of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge_plugins import densities
from latentforge_plugins.densities import Density
from latentforge_plugins.walks import BATCH, code_size

from .config import SampleConfig


@dataclass(frozen=True)
class Source:
    """`draw(n)` returns codes (n, D); `density`, if any, is for float64 codes on the CPU."""

    name: str  # used in the names of metrics and arrays
    title: str
    description: str  # for the protocol
    draw: Callable[[int], Tensor]
    density: Density | None = None


def make_source(name: str, context: ExploreContext, codes: Tensor, config: SampleConfig) -> Source:
    """Return the source with this name for the model and its training codes (N, D). If the model
    has no prior, "prior" gives the source "gaussian", a Gaussian fitted to the codes."""
    if name == "aggregate":
        return aggregate_source(context)
    if name == "prior" and context.model.latent.prior == "normal":
        density = densities.standard_normal(codes[:1].double().cpu())
        return density_source("prior", "prior N(0, I)", "N(0, I)", density, codes)
    if name == "prior" and (prior := densities.prior_density(context.model, codes)) is not None:
        return density_source("prior", "the model's prior", "the model's own prior", prior, codes)
    count, size = len(codes), code_size(context.model)
    if count < 2 or size > densities.MAX_DIMENSIONS:
        raise UsageError(
            f"no density can be fitted to {counted(count, 'code')} of {counted(size, 'value')}: "
            f"a fit needs at least 2 codes of at most {densities.MAX_DIMENSIONS} values",
            hint="--set 'sources=[\"aggregate\"]'",
        )
    values = codes.double().cpu()
    fitted = f"fitted to the {count} training codes"
    if name == "mixture":
        density = densities.fit_mixture(values, config.components, context.seed)
        components = len(density.mixture_distribution.probs)
        if count > densities.MAX_FITTED:
            fitted = f"fitted to {densities.MAX_FITTED} random codes of the {count} training codes"
        kind = densities.covariance_type(size)
        description = f"{counted(components, 'Gaussian')} with {kind} covariances, {fitted}"
        return density_source("mixture", f"mixture of {components}", description, density, codes)
    description = f"a Gaussian {fitted}"
    if name == "prior":
        description += ", used because the model has no prior"
    density = densities.fit_gaussian(values)
    return density_source("gaussian", "fitted Gaussian", description, density, codes)


def density_source(
    name: str, title: str, description: str, density: Density, like: Tensor
) -> Source:
    description = f"{name}: {description}"
    return Source(
        name, title, description, lambda n: density.sample(torch.Size([n])).to(like), density
    )


def aggregate_source(context: ExploreContext) -> Source:
    """Return the source that takes one sample from the posterior of each random training image."""
    images = context.images("train")

    def draw(n: int) -> Tensor:
        indices = torch.randint(len(images), (n,), device=context.device)
        parts = [context.model.encode(images.batch(p).x).sample() for p in indices.split(BATCH)]
        return torch.cat(parts).flatten(1)

    description = "aggregate: posterior samples of random training images, one each"
    return Source("aggregate", "aggregate posterior", description, draw)
