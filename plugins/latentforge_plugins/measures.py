"""What several of the built-in measures share: which likelihood, which images, whose codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext
from latentforge.data import Images
from latentforge.latent import Bernoulli, Gaussian, Likelihood
from latentforge.seeding import generator

BATCH = 1000  # images at once, where a measure goes through a split of its own


def likelihood_of(context: EvaluateContext) -> Likelihood:
    """The loss's; where it names none, Bernoulli, and Gaussian for a model without logits."""
    likelihood: Likelihood | None = getattr(context.loss, "likelihood", None)
    if likelihood is not None:
        return likelihood
    return Bernoulli() if hasattr(context.model, "decode_logits") else Gaussian(1.0)


def in_words(likelihood: Likelihood) -> str:
    """For a protocol: `Bernoulli from logits`, `Gaussian of sigma 0.5`."""
    if isinstance(likelihood, Bernoulli):
        return "Bernoulli from logits"
    if isinstance(likelihood, Gaussian):
        return f"Gaussian of sigma {float(likelihood.sigma):.4g}"
    return type(likelihood).__name__


def some(count: int, total: int, device: torch.device) -> Tensor:
    """Which `count` of `total` images a measure takes, bool (total,): the same for every run.

    Drawn, because splits have an order: some by class, and MNIST's training images alternate
    between two groups of writers, of which a regular stride takes one.
    """
    order = torch.randperm(total, generator=generator("cpu", "some images"))
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.to(device)


def same(one: Images, other: Images) -> bool:
    """Whether two splits hold the same images, as those of data without splits of its own do."""
    return one.x is other.x or (one.x.shape == other.x.shape and torch.equal(one.x, other.x))


def codes_of(model: Any, images: Images) -> Tensor:
    """The posterior modes of a whole split, (N, D) on the CPU, in its order."""
    parts = [model.encode(batch.x).mode().flatten(1).cpu() for batch in images.batches(BATCH)]
    return torch.cat(parts)
