"""Shared parts of the built-in measures: likelihood, choice of images, codes, moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext, Images
from latentforge.latent import Bernoulli, Gaussian, Likelihood
from latentforge.seeding import generator

BATCH = 1000  # images per batch when a measure iterates over a split itself


def likelihood_of(context: EvaluateContext) -> Likelihood:
    """The loss's likelihood; if it has none, Bernoulli, or Gaussian for a model without logits."""
    likelihood: Likelihood | None = getattr(context.loss, "likelihood", None)
    if likelihood is not None:
        return likelihood
    return Bernoulli() if hasattr(context.model, "decode_logits") else Gaussian(1.0)


def describe_likelihood(likelihood: Likelihood) -> str:
    """The text for a protocol: `Bernoulli from logits`, `Gaussian of sigma 0.5`."""
    if isinstance(likelihood, Bernoulli):
        return "Bernoulli from logits"
    if isinstance(likelihood, Gaussian):
        return f"Gaussian of sigma {float(likelihood.sigma):.4g}"
    return type(likelihood).__name__


def select_random(count: int, total: int, device: torch.device) -> Tensor:
    """Selects `count` of `total` images for a measure: bool (total,), the same for every run.

    The selection is random because splits have an order: some are sorted by class. MNIST's training
    images alternate between two groups of writers, of which a regular stride takes only one.
    """
    order = torch.randperm(total, generator=generator("cpu", "some images"))
    selected = torch.zeros(total, dtype=torch.bool)
    selected[order[:count]] = True
    return selected.to(device)


def codes_of(model: Any, images: Images) -> Tensor:
    """The posterior modes of a whole split in its order, (N, D) on the CPU."""
    parts = [model.encode(batch.x).mode().flatten(1).cpu() for batch in images.batches(BATCH)]
    return torch.cat(parts)


class Moments:
    """Mean and scatter of rows that arrive in batches (Chan, Golub and LeVeque 1983), in float64.

    `scatter` is the sum over the rows of the squared deviations from the mean. `square` defines the
    square: `squares` of each feature, (F,), or `products` of each pair of features, (F, F).
    """

    def __init__(self, square: Callable[[Tensor], Tensor]) -> None:
        self.square = square
        self.count = 0
        self.mean = self.scatter = torch.zeros((), dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Adds rows (B, F) of any dtype, on any device."""
        if not len(rows):
            return
        rows = rows.cpu().double()
        total = self.count + len(rows)
        mean = rows.mean(0)
        delta = mean - self.mean
        between = self.square(delta[None]) * (self.count * len(rows) / total)
        self.scatter = self.scatter + self.square(rows - mean) + between
        self.mean = self.mean + delta * (len(rows) / total)
        self.count = total


def squares(rows: Tensor) -> Tensor:
    """The sums over the rows (B, F) of the squares of each feature, (F,)."""
    return rows.square().sum(0)


def products(rows: Tensor) -> Tensor:
    """The sums over the rows (B, F) of the products of each pair of features, (F, F)."""
    return rows.T @ rows
