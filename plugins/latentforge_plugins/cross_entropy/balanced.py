"""The measure `balanced_accuracy`: each class has the same weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from latentforge.contracts import Seen


class BalancedAccuracy:
    """The mean of the recall of each class, and the share of the most frequent class."""

    def __init__(self, classes: int) -> None:
        self.images = torch.zeros(classes, dtype=torch.float64)
        self.correct = torch.zeros(classes, dtype=torch.float64)

    def update(self, seen: Seen) -> None:
        y = seen.batch.y.cpu()
        right = (seen.logits.argmax(1).cpu() == y).double()
        self.images += torch.bincount(y, minlength=len(self.images))
        self.correct += torch.bincount(y, right, minlength=len(self.images))

    def compute(self) -> Mapping[str, float]:
        present = self.images > 0
        recall = self.correct[present] / self.images[present]
        majority = self.images.max() / self.images.sum()
        return {"balanced_accuracy": float(recall.mean()), "majority_baseline": float(majority)}
