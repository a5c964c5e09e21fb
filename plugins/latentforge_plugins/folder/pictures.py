"""The image files of a folder as a map-style dataset that decodes each image on access."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from latentforge import Arrays

from .reader import HeightWidth, Pixels, mixed_images_error, read, try_decode, unreadable_error


class Pictures:
    """A dataset whose item i is the image in `files[i]`, uint8 (1 or 3, H, W), with its label if
    there are labels. Access to an item and `whole` raise UsageError for a file that cannot be read,
    and for an image whose size or number of channels differs from the first image."""

    def __init__(
        self,
        files: Sequence[Path],
        targets: Sequence[int] | None,
        classes: Sequence[str],
        size: HeightWidth | None,
        channels: str,
    ) -> None:
        self.files, self.targets, self.classes = files, targets, tuple(classes)
        self.size, self.channels = size, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Pixels, int] | Pixels:
        image = self.decode(i)
        if image.shape != self.shape:
            raise mixed_images_error(self.files[0], self.shape, self.files[i], image.shape)
        return image if self.targets is None else (image, self.targets[i])

    def whole(self) -> Arrays:
        """Decode all images with several threads."""
        return Arrays(read(self.files, self.size, self.channels), self.targets, self.classes)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first image, which all other images must have."""
        return self.decode(0).shape

    def decode(self, i: int) -> Pixels:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about unusual metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = try_decode(self.files[i], self.size, self.channels)
        if isinstance(image, Exception):
            raise unreadable_error([(self.files[i], image)], len(self.files))
        return image
