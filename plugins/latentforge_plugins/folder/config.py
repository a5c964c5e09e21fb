"""The options of the dataset `folder`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentforge import Size

# Pillow runs external programs for some other formats.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


@dataclass(frozen=True)
class FolderConfig:
    """`root` is a folder with a sub-folder of images for each class, or with images without labels,
    or with such folders named train, val and test. `labels` is a CSV file with the label of each
    image: `file_column` and `label_column` name its columns, which are found if this is clear, and
    `factors` other columns, which become factors: numeric if all their values are numbers.

    `size` is the [height, width] in pixels to which all images are resized, or one number for both;
    without it, their sizes must be equal. `fit` stretches them to this shape, or keeps their shape
    and crops or pads them. `channels` grey and rgb convert all images; auto keeps the channels of
    the files, which must be equal. `frames` reads the first or all images of a file with several.
    Images with more than `max_pixels` pixels are refused: decoding them may take all memory.
    """

    root: Path | None = None
    labels: Path | None = None
    file_column: str = ""
    label_column: str = ""
    factors: tuple[str, ...] = ()
    size: Size | tuple[Size, Size] | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    channels: Literal["auto", "grey", "rgb"] = "auto"
    frames: Literal["first", "all"] = "first"
    max_pixels: Size = 89_478_485

    def __post_init__(self) -> None:
        if self.fit != "stretch" and self.size is None:
            raise ValueError(f"fit={self.fit} needs size")
        if self.labels is None and (self.file_column or self.label_column):
            raise ValueError("file_column and label_column need labels, a CSV file")
        if self.labels is None and self.factors:
            raise ValueError("factors need labels, a CSV file with these columns")
