"""MSE, PSNR and SSIM between two batches of images, one value per image.

PSNR and SSIM are computed for the values that are drawn, from 0 (black) to 1 (white)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latentforge import DataSpec
from latentforge.contracts import Seen
from latentforge.errors import UsageError
from latentforge.metrics import MeanPerImage
from latentforge_plugins.networks import describe_examples

NO_ERROR = 1e-10  # psnr limits the squared error to this minimum, which gives 100 dB
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 with the data range L = 1
CHUNK = 2**20  # values per chunk: five float64 maps of this size take 40 MB


def mse(recon: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared difference over the values of each image, (B, ...) to (B,)."""
    return (recon - x).square().flatten(1).mean(1)


def psnr(recon: Tensor, x: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB for the data range 1: (B, ...) to (B,). It is
    limited to 100, because a perfect image would make the mean over images infinite."""
    return -10 * mse(recon, x).clamp(min=NO_ERROR).log10()


class Ssim(MeanPerImage):
    """Mean structural similarity of the reconstructions. Raises UsageError for vectors."""

    def __init__(self, data: DataSpec) -> None:
        if data.kind != "image":
            raise UsageError(
                f"ssim supports images, not {describe_examples(data)}",
                hint="use psnr or mse_per_pixel, which support other data too",
            )
        super().__init__("ssim", self.compute_batch)
        self.to_unit, (low, high) = data.to_unit, data.extent
        self.window = window(data)
        size = len(self.window)
        self.protocol = (
            f"structural similarity (Wang et al. 2004), {size}x{size} Gaussian window of sigma "
            f"{SIGMA}{'' if size == WINDOW else ', the largest that fits'}, data range "
            f"{high - low:.6g}, mean "
            "over its whole positions, channels and images, z the posterior mode"
        )

    def compute_batch(self, seen: Seen) -> Tensor:
        rows = max(1, CHUNK // seen.batch.x[0].numel())
        recon, x = self.to_unit(seen.recon), self.to_unit(seen.batch.x)
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
