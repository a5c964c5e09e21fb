"""Selects the layers whose outputs are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from latentforge.errors import UsageError, did_you_mean
from latentforge_plugins.layers import last_with_weights

POOLING = (
    *(nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)


def select_layers(model: Any, requested: Sequence[str]) -> list[str]:
    """Return the requested layers. The default is all pooling layers, or all convolutions if the
    model has no pooling layer."""
    known = list(model.layers())
    for name in requested:
        if name not in known:
            raise UsageError(
                f"layers: the model has no layer {name!r}",
                hint=did_you_mean(name, known) or f"choose from {', '.join(known)}",
            )
    if requested:
        return list(dict.fromkeys(requested))
    return layers_of_type(model, POOLING) or layers_of_type(model, (nn.Conv2d,))


def layers_of_type(model: Any, types: tuple[type[nn.Module], ...]) -> list[str]:
    return [name for name in model.layers() if isinstance(model.get_submodule(name), types)]


def last_feature_layer(model: Any) -> str:
    """Return the name of the last convolution or, if there is none, the last layer with weights."""
    convolutions = layers_of_type(model, (nn.Conv2d,))
    name = convolutions[-1] if convolutions else last_with_weights(model)
    if name is None:
        raise UsageError(
            "the model's layers() returns no layer with weights, so there are no features"
        )
    return name


def pool(output: Tensor, grid: int) -> Tensor:
    """Average maps (B, C, H, W) to at most grid x grid cells, (B, C, h, w). Other outputs are
    flattened to (B, F)."""
    if output.ndim != 4:
        return output.flatten(1)
    return F.adaptive_avg_pool2d(output, [min(grid, side) for side in output.shape[2:]])
