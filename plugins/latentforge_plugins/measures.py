"""Shared parts of the built-in measures: likelihood, selection of images, codes, moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext, Images
from latentforge.latent import Bernoulli, Gaussian, Likelihood, given
from latentforge.seeding import generator

BATCH = 1000  # images per batch when a measure iterates over a split itself


def likelihood_of(context: EvaluateContext) -> Likelihood:
    """Return the likelihood of the loss. The specs of measures that call this function have
    `likelihood=True`, so there is one."""
    loss: Any = context.loss
    likelihood: Likelihood = loss.likelihood
    return likelihood


def describe_likelihood(likelihood: Likelihood) -> str:
    """Describe a likelihood for a protocol, as in `Bernoulli from logits`."""
    if isinstance(likelihood, Bernoulli):
        return "Bernoulli from logits"
    if isinstance(likelihood, Gaussian):
        return f"Gaussian of sigma {float(likelihood.sigma):.4g}"
    if hasattr(likelihood, "describe"):
        return str(likelihood.describe())
    return type(likelihood).__name__


def select_evenly(images: Images, most: int) -> Tensor:
    """Return the indices of at most `most` images, evenly spaced, int64 (n,): a sample that need
    not be unbiased. See `select_random`."""
    count = min(most, len(images))
    return torch.arange(count, device=images.device) * len(images) // count


def select_random(count: int, total: int, device: torch.device, *, start: int = 0) -> Tensor:
    """Select `count` of `total` images at random: a mask, bool (total,), the same in every run.
    With `start=count`, others are selected. A regular stride could be biased, because splits have
    an order: some are sorted by class, and MNIST's training images alternate between two groups of
    writers."""
    order = torch.randperm(total, generator=generator("cpu", "some images"))
    selected = torch.zeros(total, dtype=torch.bool)
    selected[order[start : start + count]] = True
    return selected.to(device)


def codes_of(context: EvaluateContext, images: Images) -> Tensor:
    """Return the posterior modes of all images of a split in order, (N, D) on the CPU. A
    conditional model encodes each image under its label."""
    views = ((batch, view_for(context, batch.y)) for batch in images.batches(BATCH))
    return torch.cat([view.encode(batch.x).mode().flatten(1).cpu() for batch, view in views])


def view_for(context: EvaluateContext, y: Tensor | None) -> Any:
    """Return the model, under the labels `y` (B,) if it is conditional."""
    return given(context.model, y, context.provides)


class Moments:
    """Mean and scatter of rows that arrive in batches (Chan, Golub and LeVeque 1983), in float64.
    `scatter` is `square` of the rows' deviations from the mean. `square` is the function `squares`,
    which gives a sum per feature, (F,), or `products`, with a sum per pair of features, (F, F)."""

    def __init__(self, square: Callable[[Tensor], Tensor]) -> None:
        self.square = square
        self.count = 0
        self.mean = self.scatter = torch.zeros((), dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Add rows (B, F) of any dtype, on any device."""
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
    """Return the sum of squares over the rows (B, F) for each feature, (F,)."""
    return rows.square().sum(0)


def products(rows: Tensor) -> Tensor:
    """Return the sum of products over the rows (B, F) for each pair of features, (F, F)."""
    return rows.T @ rows
