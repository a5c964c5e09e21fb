"""Options of `cnn-classifier`."""

from dataclasses import dataclass

from latentforge import Fraction, Size


@dataclass(frozen=True)
class CnnClassifierConfig:
    """`channels` are the output channels of the three convolutions. `dropout` is the dropout rate
    before the last layer."""

    channels: tuple[Size, Size, Size] = (8, 16, 32)
    dropout: Fraction = 0.5
