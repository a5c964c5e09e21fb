"""Sources of codes: the prior, a density fitted to training codes, or the posteriors of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge_plugins.densities import (
    FITTED,
    LARGEST,
    covariances,
    fit_gaussian,
    fit_mixture,
    standard,
)
from latentforge_plugins.walks import AT_ONCE, codes_in, has_prior

if TYPE_CHECKING:
    from .config import SampleConfig


@dataclass(frozen=True)
class Source:
    """`draw(n)` returns codes (n, D); `density`, if any, is for float64 codes on the CPU."""

    name: str  # in metrics and arrays
    title: str
    says: str  # for the protocol
    draw: Callable[[int], Tensor]
    density: Distribution | None = None


def make(wanted: str, context: ExploreContext, codes: Tensor, config: SampleConfig) -> Source:
    """The source of this name for the model and its training codes (N, D). Without a prior in the
    model, `prior` is the Gaussian fitted to the codes, with the name "gaussian"."""
    if wanted == "aggregate":
        return aggregate(context)
    if wanted == "prior" and has_prior(context.model):
        density = standard(codes[:1].double().cpu())
        return with_density("prior", "prior N(0, I)", "N(0, I)", density, codes)
    count, size = len(codes), codes_in(context.model)
    if count < 2 or size > LARGEST:
        raise UsageError(
            f"no density can be fitted to {count} codes of {size} values: "
            f"it needs at least 2 codes of at most {LARGEST} values",
            remedy="--set 'sources=[\"aggregate\"]'",
        )
    known = codes.double().cpu()
    fitted = f"fitted to the {count} training codes"
    if wanted == "mixture":
        components = min(config.components, count)
        density = fit_mixture(known, components, context.seed)
        if count > FITTED:
            fitted = f"fitted to {FITTED} random codes of the {count} training codes"
        says = f"{components} Gaussians with {covariances(size)} covariances, {fitted}"
        return with_density("mixture", f"mixture of {components}", says, density, codes)
    says = f"a Gaussian {fitted}"
    if wanted == "prior":
        says += ", used because the model has no prior"
    return with_density("gaussian", "fitted Gaussian", says, fit_gaussian(known), codes)


def with_density(name: str, title: str, says: str, density: Distribution, like: Tensor) -> Source:
    return Source(name, title, f"{name}: {says}", lambda n: density.sample((n,)).to(like), density)


def aggregate(context: ExploreContext) -> Source:
    """Samples of the posteriors of random training images, one sample of each."""
    images = context.images("train")

    def draw(n: int) -> Tensor:
        places = torch.randint(len(images), (n,), device=context.device)
        parts = [context.model.encode(images.batch(p).x).sample() for p in places.split(AT_ONCE)]
        return torch.cat(parts).flatten(1)

    says = "aggregate: posterior samples of random training images, one each"
    return Source("aggregate", "aggregate posterior", says, draw)
