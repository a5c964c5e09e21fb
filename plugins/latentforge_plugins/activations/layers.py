"""Selects the layers whose outputs are shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from latentforge.errors import UsageError, did_you_mean
from latentforge_plugins.layers import last_with_weights

POOLING = (
    *(nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)


ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh)


def select_layers(model: Any, requested: Sequence[str]) -> list[str]:
    """Return the requested layers. The default is all pooling layers, or the activation that
    follows one, or all convolutions if the model has no pooling layer."""
    known = list(model.layers())
    for name in requested:
        if name not in known:
            raise UsageError(
                f"layers: the model has no layer {name!r}",
                hint=did_you_mean(name, known) or f"choose from {', '.join(known)}",
            )
    if requested:
        return list(dict.fromkeys(requested))
    following = dict(pairwise(known))
    pooled = layers_of_type(model, POOLING)
    active = layers_of_type(model, ACTIVATIONS)
    chosen = [following[p] if following.get(p) in active else p for p in pooled]
    return chosen or layers_of_type(model, (nn.Conv2d,))


def describe_layer(model: Any, name: str) -> str:
    """Return the type of a layer, after that of the pooling layer that it follows directly."""
    known = list(model.layers())
    kinds = [type(model.get_submodule(name)).__name__]
    previous = known[known.index(name) - 1] if known.index(name) else None
    if previous in layers_of_type(model, POOLING) and name in layers_of_type(model, ACTIVATIONS):
        kinds.insert(0, type(model.get_submodule(previous)).__name__)
    return ", ".join(kinds)


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
