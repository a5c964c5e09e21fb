"""Sources of codes: the prior, a density fitted to training codes, or the posteriors of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge_plugins import densities
from latentforge_plugins.densities import Density
from latentforge_plugins.walks import BATCH, code_size, is_conditional, view_for

from .config import SampleConfig


@dataclass(frozen=True)
class CodeSource:
    """`draw(n)` returns codes (n, D). `log_prob(z, y)`, if any, is the log density in nats, (N,),
    of float64 codes z (N, D) on the CPU; only a prior p(z | y) uses the labels y (N,)."""

    name: str  # used in the names of metrics and arrays
    title: str
    description: str  # for the protocol
    draw: Callable[[int], Tensor]
    log_prob: Callable[[Tensor, Any], Tensor] | None = None
    by_class: bool = False  # whether the codes of a conditional model depend on the class


def make_source(
    name: str, context: ExploreContext, codes: Tensor | None, config: SampleConfig
) -> CodeSource:
    """Return the source with this name for the model and its training codes (N, D), or None for a
    model without an encoder. If the model has no prior, "prior" gives the source "gaussian", a
    Gaussian fitted to the codes. A density that is fitted to entries of a codebook has no
    `log_prob`, because codes that are discrete have no density."""
    if codes is None:  # only its type and the number of dimensions are used
        codes = torch.zeros(1, code_size(context.model), device=context.device)
    if name == "aggregate":
        return aggregate_source(context)
    if name == "prior" and is_conditional(context) and context.model.latent.prior == "own":
        return class_prior_source(context)
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
    values, discrete = codes.double().cpu(), "codebook" in context.provides
    fitted = f"fitted to the {count} training codes"
    if name == "mixture":
        density = densities.fit_mixture(values, config.components, context.seed)
        components = len(density.mixture_distribution.probs)
        if count > densities.MAX_FITTED:
            fitted = f"fitted to {densities.MAX_FITTED} random codes of the {count} training codes"
        kind = densities.covariance_type(size)
        description = f"{counted(components, 'Gaussian')} with {kind} covariances, {fitted}"
        source = density_source("mixture", f"mixture of {components}", description, density, codes)
        return replace(source, log_prob=None) if discrete else source
    description = f"a Gaussian {fitted}"
    if name == "prior":
        description += ", used because the model has no prior"
    density = densities.fit_gaussian(values)
    source = density_source("gaussian", "fitted Gaussian", description, density, codes)
    return replace(source, log_prob=None) if discrete else source


def density_source(
    name: str, title: str, description: str, density: Density, like: Tensor
) -> CodeSource:
    description = f"{name}: {description}"
    return CodeSource(
        name,
        title,
        description,
        lambda n: density.sample(torch.Size([n])).to(like),
        lambda z, y: density.log_prob(z),
    )


def class_prior_source(context: ExploreContext) -> CodeSource:
    """Return the prior p(z | y) of a conditional model under the classes of the samples."""
    shape = context.model.latent.shape

    def log_prob(z: Tensor, y: Tensor) -> Tensor:
        codes = z.float().to(y.device).unflatten(1, shape)
        parts = zip(codes.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([context.model.given(c).prior().log_prob(part) for part, c in parts])

    def draw(n: int) -> Tensor:
        parts = sampled_classes(context, n).split(BATCH)
        z = [context.model.given(y).prior().sample(len(y)) for y in parts]
        return torch.cat(z).flatten(1)

    description = "prior: the model's prior p(z | class)"
    return CodeSource("prior", "prior p(z | class)", description, draw, log_prob, by_class=True)


def sampled_classes(context: ExploreContext, n: int) -> Any:
    """Return the classes of `n` samples of a conditional model, int64 (n,): those that have
    training images, in turn. None for another model."""
    if not is_conditional(context):
        return None
    present = context.images("train").y.unique()
    return present[torch.arange(n, device=present.device) % len(present)]


def aggregate_source(context: ExploreContext) -> CodeSource:
    """Return the source that takes one sample from the posterior of each random training image. For
    a conditional model, image i has the class of sample i."""
    images = context.images("train")

    def draw(n: int) -> Tensor:
        y = sampled_classes(context, n)
        if y is None:
            indices = torch.randint(len(images), (n,), device=context.device)
        else:
            indices = torch.empty_like(y)
            for label in y.unique():
                own, rows = images.of_class(int(label)), y == label
                indices[rows] = own[torch.randint(len(own), (int(rows.sum()),), device=y.device)]
        batches = [images.batch(part) for part in indices.split(BATCH)]
        parts = [view_for(context, batch.y).encode(batch.x).sample() for batch in batches]
        return torch.cat(parts).flatten(1)

    description = "aggregate: posterior samples of random training images, one each"
    if is_conditional(context):
        description += ", of the class of each sample"
    return CodeSource(
        "aggregate", "aggregate posterior", description, draw, by_class=is_conditional(context)
    )
