"""Where a search begins, and what density of codes keeps it where codes lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge_plugins.densities import LARGEST, fit_gaussian, fit_mixture, standard
from latentforge_plugins.walks import code_quantiles, has_prior

if TYPE_CHECKING:
    from . import GuidedConfig

WIDE = 10.0
"""The standard deviation of wide starts: far off the data, as the first write-up has it."""


def can_fit(codes: Tensor) -> bool:
    """Whether there is enough of the codes (N, D) to fit a density to, and not too much."""
    return len(codes) > 1 and codes.shape[1] <= LARGEST


def own_prior(model: Any, codes: Tensor) -> Distribution:
    """N(0, I) where the model has that prior, else the Gaussian of its codes (N, D)."""
    return standard(codes) if has_prior(model) else fit_gaussian(codes)


def spread(codes: Tensor) -> Tensor:
    """The size of each dimension of the codes (N, D), (D,): half of where the middle 68 % lie. That
    is the standard deviation of a normal one, and not led by the few codes far out that an
    autoencoder has. The standard deviation where it is zero."""
    low, high = code_quantiles(codes, torch.tensor([0.16, 0.84]).to(codes)).T
    half = (high - low) / 2
    return torch.where(half > 0, half, codes.std(0)).clamp(min=1e-6)


def aggregate_posterior(context: ExploreContext, components: int) -> Distribution:
    """A mixture fitted on one sample of each training image's posterior: of a dimension that a VAE
    does not use, its mean says nothing and its sample follows the prior."""
    batches = context.images("train").batches(1000)
    z = torch.cat([context.model.encode(batch.x).sample() for batch in batches])
    return fit_mixture(z.flatten(1), components, context.seed)


def starts(context: ExploreContext, config: GuidedConfig, codes: Tensor) -> Tensor:
    """Where each request begins, (restarts, N, D)."""
    size = (config.restarts, len(context.objective.requests))
    if config.start == "data":
        return data_starts(context, codes, config.restarts, other=not config.any_class)
    if config.start == "prior":
        return own_prior(context.model, codes).sample(torch.Size(size))
    return WIDE * torch.randn(*size, codes.shape[1], device=codes.device)


def data_starts(context: ExploreContext, codes: Tensor, restarts: int, *, other: bool) -> Tensor:
    """The codes (restarts, N, D) of random training images; with `other`, only of images of other
    classes than the objective asks for."""
    y, count = context.images("train").y, len(context.objective.requests)
    classes = getattr(context.objective, "classes", None)
    places = torch.randint(len(codes), (restarts, count), device=codes.device)
    if other and classes is not None and y is not None:
        for label in classes.unique():
            allowed = (y != label).nonzero().squeeze(1)
            if not len(allowed):
                raise UsageError(
                    f"every training image is of class {int(label)}: there is no other to start at",
                    remedy="--set any_class=true",
                )
            wanted = (classes == label).nonzero().squeeze(1)
            pick = torch.randint(len(allowed), (restarts, len(wanted)), device=codes.device)
            places[:, wanted] = allowed[pick]
    return codes[places]
