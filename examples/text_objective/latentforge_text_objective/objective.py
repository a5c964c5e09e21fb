"""An objective for a latent search that works with any scorer of images and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from latentforge.findings import Findings, ImageGrid

if TYPE_CHECKING:
    from . import TextConfig


class Scorer(Protocol):
    """The interface of a scorer, which CLIP and similar models can provide."""

    def read(self, text: str) -> Tensor:
        """Return the representation of a text, (F,). It is computed once for each request."""

    def score(self, x: Tensor, read: Tensor) -> Tensor:
        """Return how well each image of x (B, C, H, W) matches its text, `read` (B, F): (B,),
        differentiable in x, higher is better. The unit must be nats, which logits also have,
        because a search adds the log of a prior."""


class TextObjective:
    def __init__(self, config: TextConfig, scorer: Scorer) -> None:
        self.requests = config.texts
        self.enough = config.enough
        self.scorer = scorer
        self.read = torch.stack([scorer.read(text) for text in config.texts])  # (N, F)

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        return self.scorer.score(x, self.read.to(x.device)[request])

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return self.score(x, request) >= self.enough

    def findings(self, x: Tensor) -> Findings:
        """Return a grid of at most ten images with their texts below, and the mean score."""
        scores = self.score(x, torch.arange(len(x), device=x.device))
        captions = [
            f"{text}: {score:.1f}"
            for text, score in zip(self.requests, scores.tolist(), strict=True)
        ]
        grid = ImageGrid("texts", "Images for texts", [x[:10]], captions=[captions[:10]])
        protocol = "text_score: mean over requests, in nats; 0 is a perfect fit"
        return Findings([grid], {"text_score": float(scores.mean())}, protocol)
