"""The options of the dataset `factor-digits`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentforge import Seed, Size

Limits = tuple[float, float]


@dataclass(frozen=True)
class FactorDigitsConfig:
    """`images` training and `test_images` test images of `size` x `size` pixels show handwritten
    digits of a `source`: those of scikit-learn, or MNIST, whose folder is `root`. The test images
    show other handwritten digits than the training images.

    Each factor is uniform between its two limits, independently of the others: `rotation` in
    degrees, anticlockwise; `scale`, the longer side of the digit as a fraction of the image's side;
    `shift` to the right and, independently, down, in pixels; `thickness` of the strokes in pixels.
    Parts outside of the image are cut off. `seed` determines all random choices.
    """

    images: Size = 10_000
    test_images: Size = 2_000
    size: Size = 28
    source: Literal["digits", "mnist"] = "digits"
    root: Path | None = None
    rotation: Limits = (-40.0, 40.0)
    scale: Limits = (0.4, 0.65)
    shift: Limits = (-2.0, 2.0)
    thickness: Limits = (1.5, 3.5)
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "shift", "thickness"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from a lower limit to a higher one")
        for name in ("scale", "thickness"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name} must be greater than 0")
        if self.root is not None and self.source != "mnist":
            raise ValueError("root is the folder of MNIST: it needs source=mnist")
