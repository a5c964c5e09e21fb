"""Options of `vq-vae`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from latentforge import Fraction, Size


@dataclass(frozen=True)
class VqVaeConfig:
    """The codebook has `entries` vectors of length `dim`, and an image a quarter as many rows and
    columns of them as of pixels. `width` is the number of channels of the first convolution; later
    layers have twice as many.

    An entry moves to the mean of the encoder's outputs that are nearest to it, averaged over steps
    with the `decay`. If its average share of all codes falls below `restart`/`entries`, it restarts
    at an output for the current batch. With `restart` 0, an unused entry stays where it is.
    """

    entries: Annotated[int, Ge(2)] = 256
    dim: Size = 16
    width: Size = 16
    decay: Fraction = 0.95
    restart: Fraction = 0.3
