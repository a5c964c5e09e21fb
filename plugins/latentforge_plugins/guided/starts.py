"""Where a search begins, and what density of codes keeps it where codes lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge_plugins.densities import LARGEST, fit_gaussian, fit_mixture, standard
from latentforge_plugins.walks import code_quantiles, has_prior

if TYPE_CHECKING:
    from .config import GuidedConfig

WIDE = 10.0
"""The standard deviation of wide starts: far off the data, as the first write-up has it."""


def classes_to_leave(context: ExploreContext, config: GuidedConfig) -> Tensor | None:
    """The class that each request asks for, (N,), where its starts are to be of other ones."""
    if config.start != "data" or config.any_class or context.images("train").y is None:
        return None
    return getattr(context.objective, "classes", None)


def starts_in_words(context: ExploreContext, config: GuidedConfig) -> str:
    """For the protocol: where each request begins."""
    if config.start == "wide":
        return f"normal draws of standard deviation {WIDE:g}"
    if config.start == "prior":
        return prior_in_words(context)
    if classes_to_leave(context, config) is not None:
        return "codes of random training images of other classes than the one asked for"
    return "codes of random training images" + (
        " of any class" if hasattr(context.objective, "classes") else ""
    )


def prior_in_words(context: ExploreContext) -> str:
    if has_prior(context.model):
        return "N(0, I), the model's prior"
    return "the Gaussian fitted on the training images' codes"


def can_fit(codes: Tensor) -> bool:
    """Whether there is enough of the codes (N, D) to fit a density to, and not too much."""
    return len(codes) > 1 and codes.shape[1] <= LARGEST


def own_prior(model: Any, codes: Tensor) -> Distribution:
    """N(0, I) where the model has that prior, else the Gaussian of its codes (N, D)."""
    return standard(codes) if has_prior(model) else fit_gaussian(codes)


def code_deviation(codes: Tensor) -> Tensor:
    """The size of each dimension of the codes (N, D), (D,): half of where the middle 68 % lie. That
    is the standard deviation of a normal one, and not led by the few codes far out that an
    autoencoder has. The standard deviation where it is zero."""
    low, high = code_quantiles(codes, torch.tensor([0.16, 0.84]).to(codes)).T
    half = (high - low) / 2
    return torch.where(half > 0, half, codes.std(0)).clamp(min=1e-6)


def aggregate_posterior(context: ExploreContext, components: int) -> MixtureSameFamily:
    """A mixture fitted on one sample of each training image's posterior: of a dimension that a VAE
    does not use, its mean says nothing and its sample follows the prior."""
    batches = context.images("train").batches(1000)
    z = torch.cat([context.model.encode(batch.x).sample() for batch in batches])
    return fit_mixture(z.flatten(1), components, context.seed)


def starts(context: ExploreContext, config: GuidedConfig, codes: Tensor) -> Tensor:
    """Where each request begins, (restarts, N, D)."""
    size = (config.restarts, len(context.objective.requests))
    if config.start == "data":
        return data_starts(context, codes, config.restarts, classes_to_leave(context, config))
    if config.start == "prior":
        return own_prior(context.model, codes).sample(torch.Size(size))
    return WIDE * torch.randn(*size, codes.shape[1], device=codes.device)


def data_starts(
    context: ExploreContext, codes: Tensor, restarts: int, leave: Tensor | None
) -> Tensor:
    """The codes (restarts, N, D) of random training images, of none whose class is to be left:
    int64 (N,), one for each request."""
    y, count = context.images("train").y, len(context.objective.requests)
    places = torch.randint(len(codes), (restarts, count), device=codes.device)
    if leave is not None and y is not None:
        for label in leave.unique():
            allowed = (y != label).nonzero().squeeze(1)
            if not len(allowed):
                raise UsageError(
                    f"every training image is of class {int(label)}: there is no other to start at",
                    remedy="--set any_class=true",
                )
            wanted = (leave == label).nonzero().squeeze(1)
            pick = torch.randint(len(allowed), (restarts, len(wanted)), device=codes.device)
            places[:, wanted] = allowed[pick]
    return codes[places]
