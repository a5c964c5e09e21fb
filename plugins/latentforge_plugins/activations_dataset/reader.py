"""Computes the outputs of a layer for all images of a split."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentforge import Arrays
from latentforge.contracts import OtherRun, at_once
from latentforge.errors import UsageError, did_you_mean
from latentforge_plugins.layers import last_with_weights, output_of

from .config import ActivationsConfig

BATCH = 1000  # images in a pass over a split


def read(config: ActivationsConfig, split: str, role: OtherRun) -> Arrays:
    layer, images = select_layer(role.model, config.layer), role.images(split)
    parts = []
    with torch.no_grad():
        for batch in images.batches(at_once(role.data, BATCH)):
            output = output_of(layer, role.model, batch.x)
            parts.append(to_vectors(output, config.positions).cpu())
    y = None if images.y is None else images.y.cpu()
    where = f"activations of {role.name}"
    return Arrays(torch.cat(parts), y, role.data.classes, where=where, range="any")


def select_layer(model: Any, requested: str) -> str:
    """Return the requested layer, or the layer before the last one with weights. Raises UsageError
    if there is no such layer."""
    known = list(model.layers())
    if requested and requested not in known:
        raise UsageError(
            f"the model has no layer {requested!r}",
            hint=did_you_mean(requested, known) or f"choose from {', '.join(known)}",
        )
    last = last_with_weights(model)
    if not requested and (last is None or known.index(last) == 0):
        raise UsageError(
            "the model has no layer before its last one with weights",
            hint=f"--set data.layer={known[0]}" if known else "use a run of cnn-classifier",
        )
    return requested or known[known.index(str(last)) - 1]


def to_vectors(output: Tensor, positions: str) -> Tensor:
    """Map outputs (B, C, ...) to vectors, (B, C) or (B, C * ...)."""
    output = output.flatten(2) if output.ndim > 2 else output
    if output.ndim > 2 and positions == "mean":
        return output.mean(2)
    return output.flatten(1)
