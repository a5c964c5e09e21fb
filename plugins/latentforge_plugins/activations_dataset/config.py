"""Options of the dataset `activations`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ActivationsConfig:
    """`layer` is a name from the model's `layers()`; by default it is the layer before the last one
    with weights. `positions` says what becomes of the positions of a feature map: mean averages
    over them, and flatten keeps all of them as values of the vector."""

    layer: str = ""
    positions: Literal["mean", "flatten"] = "mean"
