"""A toy scorer of images and phrases, without a network: thickness, slant and brightness."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError

QUANTITIES = ("ink", "thickness", "slant", "upper")
PHRASES = {
    "bright upper half": ("upper", 1.5),  # in standard deviations from the mean training image
    "bright lower half": ("upper", -1.5),
    "leaning right": ("slant", 1.5),
    "leaning left": ("slant", -1.5),
    "thick": ("thickness", 1.5),
    "thin": ("thickness", -1.5),
    "bright": ("ink", 1.5),
    "faint": ("ink", -1.5),
}
VERY = 5 / 3  # with "very": 2.5 standard deviations
FOUND = re.compile(rf"\b(very )?({'|'.join(PHRASES)})\b")
IGNORED = re.compile(r"\b(a|an|and|with|digit|image)\b|[\s,.]")
SAMPLE = 1000  # training images that mean and std are computed from
SHARP = 0.2  # standard deviations: the width of the score's Gaussian
TINY = 1e-6


def moments(x: Tensor) -> Tensor:
    """Map images (B, C, H, W) to (B, 4), differentiably: the mean brightness, the ratio of the
    stroke's area to its outline in pixels, the stroke's shift to the right per pixel upwards, and
    the fraction of the brightness in the upper half."""
    grey = x.mean(1)  # (B, H, W)
    height, width = grey.shape[1:]
    up = torch.linspace(height - 1, 0, height, dtype=x.dtype, device=x.device)[:, None]
    right = torch.linspace(0, width - 1, width, dtype=x.dtype, device=x.device)
    total = grey.sum((1, 2)) + TINY
    share = grey / total[:, None, None]

    def mean(values: Tensor) -> Tensor:
        return (share * values).sum((1, 2), keepdim=True)  # (B, 1, 1)

    away_up, away_right = up - mean(up), right - mean(right)
    slant = (mean(away_up * away_right) / (mean(away_up.square()) + TINY)).flatten()
    down = grey[:, 1:, 1:] - grey[:, :-1, 1:]
    across = grey[:, 1:, 1:] - grey[:, 1:, :-1]
    outline = (down.square() + across.square() + TINY).sqrt().sum((1, 2))
    upper = share[:, : height // 2].sum((1, 2))
    return torch.stack([total / (height * width), total / outline, slant, upper], dim=1)


class MomentScorer:
    """Scores how well images match a text. `mean` and `std`, (4,) each, standardize the moments."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def of(cls, context: ExploreContext | None) -> MomentScorer:
        """Create a scorer with the mean and std of the run's training images. Raises UsageError
        without a run or if its data cannot be drawn."""
        if context is None or not context.data.drawable:
            raise UsageError("the objective text needs a run that is trained on images")
        train = context.images("train")
        seen = moments(train.batch_at(range(min(SAMPLE, len(train)))).x)
        return cls(seen.mean(0), seen.std(0) + TINY)

    def read(self, text: str) -> Tensor:
        """Return the requested deviation of each quantity, NaN for those not requested: (4,).

        Raises UsageError for unknown phrases, or if two phrases are about the same quantity.
        """
        wanted = torch.full((len(QUANTITIES),), torch.nan)
        rest = IGNORED.sub("", FOUND.sub("", text.lower()))
        found = FOUND.findall(text.lower())
        if rest or not found:
            raise UsageError(
                f"{text!r} is empty or contains phrases that this scorer does not know",
                remedy=f"use only: very, {', '.join(PHRASES)}",
            )
        for very, phrase in found:
            quantity, deviation = PHRASES[phrase]
            place = QUANTITIES.index(quantity)
            if not wanted[place].isnan():
                raise UsageError(f"{text!r} contains two requests about {quantity}")
            wanted[place] = deviation * (VERY if very else 1.0)
        return wanted

    def score(self, x: Tensor, read: Tensor) -> Tensor:
        """Return log N(seen; wanted, SHARP^2) of the requested quantities in nats, without the
        constant, so that 0 is a perfect match: (B,)."""
        seen = (moments(x) - self.mean.to(x.device)) / self.std.to(x.device)  # (B, 4)
        asked = ~read.isnan()
        away = torch.where(asked, seen - read.nan_to_num(), 0.0) / SHARP
        return -0.5 * away.square().sum(1)
