"""Baselines that complete the hidden part without a search: class mean, nearest image, and the mean
of the nearest images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext
from latentforge.neighbours import topk
from latentforge_plugins.measures import BATCH

NEIGHBOURS = 20


@dataclass(frozen=True)
class Baselines:
    """Whole images (N, D) in [0, 1], one per target, and the `indices` of the nearest images,
    (N, k), nearest first."""

    class_mean: Tensor
    nearest: Tensor
    neighbours: Tensor  # mean of the nearest images
    indices: Tensor


def compute_baselines(
    context: ExploreContext, targets: Batch, known: Tensor, split: str
) -> Baselines:
    """Compute all baselines in one pass over the training images. `known` is bool (D,).

    The class mean is the mean of the training images of the target's true class, or of all training
    images if there are no labels. The nearest images have the smallest distances on the known
    values; if the targets are training images themselves, a target is not one of its own.
    """
    train = context.images("train")
    own = targets.index if context.images(split).same_as(train) else None
    target_values = targets.x.flatten(1)[:, known]  # (N, known)
    classes = max(1, len(context.data.classes)) if train.y is not None else 1
    sums = torch.zeros(classes, len(known), device=target_values.device)
    counts = torch.zeros(classes, device=target_values.device)

    def rows() -> Iterator[Tensor]:
        for batch in train.batches(BATCH):
            x = batch.x.flatten(1)  # (B, D)
            labels = torch.zeros_like(batch.index) if batch.y is None else batch.y
            sums.index_add_(0, labels, x)
            counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))
            yield x[:, known]

    count = min(NEIGHBOURS, len(train) - (own is not None))
    indices = topk(target_values, rows(), count, own=own)[1]  # (N, k)
    overall = sums.sum(0) / counts.sum()
    means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), overall)
    labelled = targets.y is not None and train.y is not None
    class_mean = means[targets.y] if labelled else overall.expand(len(target_values), -1)
    found = train.batch(indices.flatten()).x.flatten(1).unflatten(0, indices.shape)  # (N, k, D)
    return Baselines(class_mean, found[:, 0], found.mean(1), indices)
