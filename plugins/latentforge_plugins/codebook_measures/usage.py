"""Counts of codebook entries over a whole split; neither measure is a mean over batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import Seen


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of the frequencies of entries, from their counts (K,)."""
    share = counts.double() / counts.sum()
    return float(torch.exp(-torch.xlogy(share, share).sum()))


class Counts:
    """The number of times that each entry occurs, int64 (K,) on the CPU."""

    def __init__(self) -> None:
        self.counts = torch.zeros((), dtype=torch.int64)

    def update(self, seen: Seen) -> None:
        posterior: Any = seen.posterior
        entries = len(seen.model.codebook)
        self.counts = self.counts + posterior.entry.flatten().cpu().bincount(minlength=entries)


class Usage(Counts):
    def compute(self) -> Mapping[str, float]:
        return {"codebook_usage": float((self.counts > 0).double().mean())}


class Perplexity(Counts):
    def compute(self) -> Mapping[str, float]:
        return {"perplexity": perplexity(self.counts)}
