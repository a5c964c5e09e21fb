"""Building blocks of the built-in networks, and the errors for data that they do not support."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from latentforge import DataSpec
from latentforge.contracts import RANGES
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge.latent import DiagonalGaussian

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def mlp(widths: Sequence[int], activation: str, *, activate_last: bool = False) -> nn.Sequential:
    """Build linear layers with these `widths` and activations between them. `activate_last` adds an
    activation after the last layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers if activate_last else layers[:-1])


def network_input(x: Tensor, data_range: tuple[float, float] | None) -> Tensor:
    """Return what a network reads of examples: log(1 + x) of counts, whose values may differ by
    orders of magnitude, and other data unchanged."""
    return x.log1p() if data_range == RANGES["counts"] else x


class GaussianHead(nn.Module):
    """Maps features (B, width) to a DiagonalGaussian whose mean and log_var are (B, latent_dim).
    `activation` is applied to the mean only: relu keeps it in [0, inf), tanh in (-1, 1)."""

    def __init__(self, width: int, latent_dim: int, activation: str) -> None:
        super().__init__()
        self.mean = nn.Linear(width, latent_dim)
        self.log_var = nn.Linear(width, latent_dim)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, h: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.activation(self.mean(h)), self.log_var(h))


def describe_examples(data: DataSpec) -> str:
    """Describe the kind and the size of the examples, as in "vectors of size 8"."""
    if data.kind == "signal":
        return f"signals with {counted(data.shape[0], 'channel')} of {data.shape[1]} values"
    return f"{data.kind}s of size {data.size}"


def image_shape(model: str, data: DataSpec, alternative: str) -> tuple[int, int, int]:
    """Return (channels, height, width). Raises UsageError for other data than images, with the hint
    to train the model `alternative` instead."""
    if data.kind != "image":
        raise UsageError(
            f"{model} supports images, not {describe_examples(data)}",
            hint=f"the model {alternative}, which supports images, vectors and signals of any size",
        )
    channels, height, width = data.shape
    return channels, height, width


def padding_to(multiple: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return (left, right, top, bottom) for F.pad, which pads evenly to multiples of `multiple`.
    Networks pad internally, so all runs on a dataset share one preprocessing."""
    more_h, more_w = -height % multiple, -width % multiple
    return more_w // 2, more_w - more_w // 2, more_h // 2, more_h - more_h // 2


def class_count(model: str, data: DataSpec) -> int:
    """Return the number of classes. Raises UsageError for data without labels."""
    if not data.classes:
        raise UsageError(
            f"{model} needs labels, but the data has none",
            hint="use data with labels, or a model that needs none: ae, vae",
        )
    return len(data.classes)
