"""Dataset `digits`: 1,797 handwritten digits included in scikit-learn; no download.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998."""

from collections.abc import Iterable
from dataclasses import dataclass

from latentforge import Arrays, DatasetSpec, Size, hookimpl


@dataclass(frozen=True)
class DigitsConfig:
    """`size` is the height and width of the images in pixels; the source images are 8 x 8."""

    size: Size = 28


def load(config: DigitsConfig, split: str) -> Arrays:
    """Return images, uint8 (1797, 1, size, size), and labels from 0 to 9."""
    from .reader import read, resize

    x, y = read()
    return Arrays(x=resize(x, config.size), y=y)


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="digits",
        summary="1,797 real handwritten digits from scikit-learn, resized like MNIST; no download",
        load=load,
        config=DigitsConfig,
        splits=("train",),
    )
