"""Network of `deconv-vae`: three strided convolutions, the code, three transposed convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.errors import UsageError
from latentforge.latent import DiagonalGaussian, to_range
from latentforge_plugins.networks import GaussianHead, image_shape, network_input

from .config import DeconvVaeConfig

DOWN = (4, 4, 3)  # kernel sizes of the convolutions
UP = (4, 6, 6)  # kernel sizes of the transposed convolutions; all have stride 2 and no padding
SMALLEST = 28  # the output size for a grid of one cell


def encoded_side(side: int) -> int:
    """Return the output size of the convolutions for an input size, such as 2 for 28."""
    for kernel in DOWN:
        side = (side - kernel) // 2 + 1
    return side


def seed_grid(side: int) -> tuple[int, tuple[int, int, int]]:
    """Return the input size of the transposed convolutions and their output paddings (p, q, r) for
    the output size `side`. A layer turns n cells into 2 (n - 1) + kernel + padding cells, so g
    cells become 8 g + 20 + 4 p + 2 q + r cells."""
    cells, rest = divmod(side - 20, 8)
    return cells, (rest >> 2, rest >> 1 & 1, rest & 1)


class FromCells(nn.ConvTranspose2d):
    """A transposed convolution that processes a 1x1 input as a matrix product, which takes a third
    of the time on a CPU without AVX-512."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.shape[2:] != (1, 1) or any(self.output_padding):
            return super().forward(x, output_size)
        weight = self.weight.movedim(1, -1)  # (A, k, k, B), as channels_last stores it
        output = (x.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        return (output + self.bias).movedim(-1, 1)  # (batch, B, k, k)


class DeconvVae(nn.Module):
    def __init__(self, config: DeconvVaeConfig, data: DataSpec) -> None:
        super().__init__()
        channels, height, width = image_shape("deconv-vae", data, "vae")
        if min(height, width) < SMALLEST:
            raise UsageError(
                f"deconv-vae requires images of size {SMALLEST}x{SMALLEST} or larger, "
                f"not {height}x{width}",
                hint="the model conv-vae, which supports images of any size",
            )
        self.range = data.range
        self.latent = LatentSpec(shape=(config.latent_dim,), prior="normal")
        a, b, c = config.encoder
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, a, DOWN[0], stride=2), nn.ReLU()),
            *(nn.Conv2d(a, b, DOWN[1], stride=2), nn.ReLU()),
            *(nn.Conv2d(b, c, DOWN[2], stride=2), nn.ReLU()),
            nn.Flatten(),
        )
        features = c * encoded_side(height) * encoded_side(width)
        self.head = GaussianHead(features, config.latent_dim, config.latent_activation)
        (rows, more_h), (columns, more_w) = seed_grid(height), seed_grid(width)
        p, q, r = zip(more_h, more_w, strict=True)
        a, b, c = config.decoder
        self.decoder = nn.Sequential(
            *(nn.Linear(config.latent_dim, a * rows * columns), nn.ReLU()),
            nn.Unflatten(1, (a, rows, columns)),  # (B, 1024, 1, 1) for MNIST
            *(FromCells(a, b, UP[0], stride=2, output_padding=p), nn.ReLU()),
            *(nn.ConvTranspose2d(b, c, UP[1], stride=2, output_padding=q), nn.ReLU()),
            nn.ConvTranspose2d(c, channels, UP[2], stride=2, output_padding=r),
        )

    def encode(self, x: Tensor) -> DiagonalGaussian:
        return self.head(self.encoder(network_input(x, self.range)))

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)
