"""MSE, PSNR and SSIM between two batches of images, one value per image.

PSNR and SSIM are computed for values that are divided by their data range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentforge import DataSpec
from latentforge.contracts import RANGES, EvaluateContext, Images, Seen, at_once
from latentforge.errors import UsageError
from latentforge.metrics import MeanPerImage
from latentforge_plugins.measures import select_evenly
from latentforge_plugins.networks import describe_examples

NO_ERROR = 1e-10  # psnr limits the squared error to this minimum, which gives 100 dB
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 with the data range L = 1
CHUNK = 2**20  # values per chunk: five float64 maps of this size take 40 MB
SAMPLE = 1000  # training examples whose smallest and largest values are the range of a channel


@dataclass(frozen=True)
class DataRange:
    """`scale` maps examples (B, *shape) to values of the data range 1. `text` and `square` describe
    the range and its square in a protocol."""

    scale: Callable[[Tensor], Tensor]
    text: str
    square: str


def find_data_range(context: EvaluateContext) -> DataRange:
    """Return the data range of PSNR and SSIM. If data.range has no bounds, each channel of images
    and signals has its own, because channels may have different units. Channels that are constant
    in the training split have no range and are left out."""
    data = context.data
    low, high = data.extent
    one = f"{high - low:.6g}"
    shared = DataRange(data.to_unit, f"data range {one}", "1" if one == "1" else f"{one}^2")
    bounded = data.range in (RANGES["unit"], RANGES["signed"])
    if bounded or data.kind == "vector" or data.shape[0] == 1:
        return shared
    lows, highs, count = find_channel_limits(context.images("train"))
    used = (highs > lows).nonzero().squeeze(1)
    if not len(used):
        return shared
    spans = (highs - lows)[used]
    # (C, 1, 1) of images, (C, 1) of signals
    start, span = (v.view(-1, *[1] * (len(data.shape) - 1)) for v in (lows[used], spans))

    def scale(x: Tensor) -> Tensor:
        return (data.restore(x)[:, used] - start) / span

    text = (
        "each channel divided by its own data range, from the smallest to the largest value of "
        f"{count} training images"
    )
    if constant := data.shape[0] - len(used):
        text += f", without {constant} of {data.shape[0]} channels, which are constant in them"
    return DataRange(scale, text, "1")


def find_channel_limits(images: Images) -> tuple[Tensor, Tensor, int]:
    """Return the smallest and the largest value of each channel, (C,) each, in the units of the
    data, and the number of examples that were read: evenly spaced ones, at most SAMPLE."""
    places = select_evenly(images, SAMPLE)
    extremes = []
    for part in places.split(at_once(images.spec, SAMPLE)):
        x = images.spec.restore(images.batch(part).x)
        extremes.append(x.transpose(0, 1).flatten(1).aminmax(dim=1))
    lows, highs = (torch.stack(values) for values in zip(*extremes, strict=True))
    return lows.amin(0), highs.amax(0), len(places)


def mse(recon: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared difference over the values of each image, (B, ...) to (B,)."""
    return (recon - x).square().flatten(1).mean(1)


def psnr(recon: Tensor, x: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB for the data range 1: (B, ...) to (B,). It is
    limited to 100, because a perfect image would make the mean over images infinite."""
    return -10 * mse(recon, x).clamp(min=NO_ERROR).log10()


class Ssim(MeanPerImage):
    """Mean structural similarity of the reconstructions. Raises UsageError for vectors."""

    def __init__(self, context: EvaluateContext) -> None:
        data = context.data
        if data.kind != "image":
            raise UsageError(
                f"ssim supports images, not {describe_examples(data)}",
                hint="use psnr or mse_per_pixel, which support other data too",
            )
        super().__init__("ssim", self.compute_batch)
        used = find_data_range(context)
        self.scale = used.scale
        self.window = window(data)
        size = len(self.window)
        self.protocol = (
            f"structural similarity (Wang et al. 2004), {size}x{size} Gaussian window of sigma "
            f"{SIGMA}{'' if size == WINDOW else ', the largest that fits'}, {used.text}, mean "
            "over its whole positions, channels and images, z the posterior mode"
        )

    def compute_batch(self, seen: Seen) -> Tensor:
        rows = max(1, CHUNK // seen.batch.x[0].numel())
        recon, x = self.scale(seen.recon), self.scale(seen.batch.x)
        pairs = zip(recon.split(rows), x.split(rows), strict=True)
        return torch.cat([ssim(recon, x, self.window) for recon, x in pairs])


def window(data: DataSpec) -> Tensor:
    """Return 11 Gaussian weights that sum to 1, or the largest odd number of weights that fits."""
    side = min(WINDOW, *data.shape[1:])
    size = side if side % 2 else side - 1
    distance = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-distance.square() / (2 * SIGMA**2))
    return weights / weights.sum()


def ssim(recon: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Compute the structural similarity, (B, C, H, W) to (B,), in float64 on the CPU. It is eq. 13
    of Wang, Bovik, Sheikh and Simoncelli 2004 for windows completely inside the image. float32
    would lose the variance of flat regions, which is small relative to their squared mean."""
    a, b = recon.cpu().double(), x.cpu().double()
    down, across = (window_means(weights, side) for side in x.shape[2:])  # (H', H), (W', W)
    means = down @ torch.stack([a, b, a * a, b * b, a * b]) @ across.T  # (5, B, C, H', W')
    mean_a, mean_b, aa, bb, ab = means
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * cov + C2) / (var_a + var_b + C2)
    return (luminance * structure).flatten(1).mean(1)


def window_means(weights: Tensor, side: int) -> Tensor:
    """Return the matrix (positions, side) that computes a row's weighted mean at each position."""
    positions = side - len(weights) + 1
    return torch.stack([F.pad(weights, (i, positions - 1 - i)) for i in range(positions)])
