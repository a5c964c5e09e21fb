"""The start codes of a search, and the densities that keep it close to the training codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge_plugins.densities import (
    Density,
    fit_gaussian,
    fit_mixture,
    prior_density,
    standard_normal,
)
from latentforge_plugins.walks import code_quantiles

from .config import GuidedConfig

WIDE = 10.0  # standard deviation of wide starts: far from the data, as in the original search


def excluded_classes(context: ExploreContext, config: GuidedConfig) -> Tensor | None:
    """Return the requested classes, (N,), if the starts must have other classes, else None."""
    if config.start != "data" or config.any_class or context.images("train").y is None:
        return None
    if context.condition is not None:  # all images are of one class
        return None
    return getattr(context.objective, "classes", None)


def describe_starts(context: ExploreContext, config: GuidedConfig) -> str:
    """Describe the starts for the protocol."""
    if config.start == "wide":
        return f"samples of a normal distribution with standard deviation {WIDE:g}"
    if config.start == "prior":
        return describe_prior(context)
    if config.start_class is not None:
        name = context.data.classes[config.start_class]
        return f"codes of random training images of class {name}"
    if excluded_classes(context, config) is not None:
        return "codes of random training images of classes other than the requested one"
    if context.condition is not None:
        name = context.data.classes[context.condition]
        return f"codes of random training images of class {name}"
    any_class = " of any class" if hasattr(context.objective, "classes") else ""
    return f"codes of random training images{any_class}"


FITTED = "the Gaussian fitted to the training images' codes"


def describe_prior(context: ExploreContext) -> str:
    """Describe the model's prior or, if it has none, what is used instead."""
    prior = context.model.latent.prior
    return {"normal": "N(0, I), the model's prior", "own": "the model's own prior"}.get(
        prior, FITTED
    )


def prior_or_gaussian(model: Any, codes: Tensor) -> Density:
    """Return the model's prior or, if it has none, a Gaussian fitted to its codes (N, D)."""
    return prior_density(model, codes) or fit_gaussian(codes)


def describe_gaussian(context: ExploreContext) -> str:
    normal = context.model.latent.prior == "normal"
    return describe_prior(context) if normal else FITTED


def gaussian_density(model: Any, codes: Tensor) -> Density:
    """Return N(0, I) if it is the model's prior, else a Gaussian fitted to its codes (N, D)."""
    return standard_normal(codes) if model.latent.prior == "normal" else fit_gaussian(codes)


def code_deviation(codes: Tensor) -> Tensor:
    """Return the spread of codes (N, D) in each dimension, (D,): half the range of the middle 68 %.
    It equals the standard deviation for a normal distribution, but is robust to the outliers of an
    autoencoder. If it is zero, the standard deviation is used."""
    low, high = code_quantiles(codes, torch.tensor([0.16, 0.84]).to(codes)).T
    half = (high - low) / 2
    return torch.where(half > 0, half, codes.std(0)).clamp(min=1e-6)


def aggregate_posterior(context: ExploreContext, components: int) -> MixtureSameFamily:
    """Fit a mixture to one posterior sample of each training image. In a dimension that a VAE does
    not use, posterior means carry no information, but samples follow the prior."""
    batches = context.images("train").batches(1000)
    z = torch.cat([context.model.encode(batch.x).sample() for batch in batches])
    return fit_mixture(z.flatten(1), components, context.seed)


def sample_starts(context: ExploreContext, config: GuidedConfig, codes: Tensor) -> Tensor:
    """Sample the start codes of all requests, (restarts, N, D)."""
    size = (config.restarts, len(context.objective.requests))
    if config.start_class is not None:
        return sample_class_starts(context, codes, config.restarts, config.start_class)
    if config.start == "data":
        excluded = excluded_classes(context, config)
        return sample_data_starts(context, codes, config.restarts, excluded)
    if config.start == "prior":
        return prior_or_gaussian(context.model, codes).sample(torch.Size(size))
    return WIDE * torch.randn(*size, codes.shape[1], device=codes.device)


def sample_class_starts(
    context: ExploreContext, codes: Tensor, restarts: int, label: int
) -> Tensor:
    """Return the codes (restarts, N, D) of random training images of one class. Raises UsageError
    for an unknown class and for a class without training images."""
    train, classes = context.images("train"), context.data.classes
    allowed = train.of_class(label)
    if not len(allowed):
        others = [i for i in range(len(classes)) if len(train.of_class(i))]
        raise UsageError(
            f"class {classes[label]} has no training images, so no search can start from it",
            details=[f"{i}: {classes[i]}, has training images" for i in others[:10]],
            hint=f"--set start_class={others[0]}" if others else "omit start_class",
        )
    size = (restarts, len(context.objective.requests))
    return codes[allowed[torch.randint(len(allowed), size, device=allowed.device)]]


def sample_data_starts(
    context: ExploreContext, codes: Tensor, restarts: int, excluded: Tensor | None
) -> Tensor:
    """Return the codes (restarts, N, D) of random training images. `excluded`, int64 (N,), contains
    the class that the starts of each request must not have."""
    y, count = context.images("train").y, len(context.objective.requests)
    indices = torch.randint(len(codes), (restarts, count), device=codes.device)
    if excluded is not None and y is not None:
        for label in excluded.unique():
            allowed = (y != label).nonzero().squeeze(1)
            if not len(allowed):
                raise UsageError(
                    f"all training images are of class {int(label)}, "
                    "so there is no other class to start from",
                    hint="--set any_class=true",
                )
            requests = (excluded == label).nonzero().squeeze(1)
            picks = torch.randint(len(allowed), (restarts, len(requests)), device=codes.device)
            indices[:, requests] = allowed[picks]
    return codes[indices]
