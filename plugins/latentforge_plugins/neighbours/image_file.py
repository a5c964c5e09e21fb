"""Reads an image file as an additional image of the run's data, with the same preprocessing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from latentforge.config.schema import DataConfig
from latentforge.contracts import ExploreContext, Images
from latentforge.data.arrays import as_tensor
from latentforge.data.images import ImageSplit
from latentforge.data.pictures import Values as Pixels
from latentforge.data.ranges import find_scale
from latentforge.errors import MissingError, UsageError, one_line

COLOUR = {1: "grey", 3: "colour"}


def read(file: Path, context: ExploreContext) -> Images:
    """Read a file as a split of one image without a label. Raises UsageError if its size or colour
    differs from the run's images, and MissingError if it does not exist."""
    from latentforge_plugins.folder.config import FolderConfig
    from latentforge_plugins.folder.reader import Frame, try_decode

    shape = context.data.shape
    if not context.data.drawable:
        raise UsageError(f"file is an image, but the data of this run has shape {shape}")
    if file.is_dir():
        raise UsageError(f"file: {file} is a folder", hint="--set file=IMAGE, one of its files")
    if not file.is_file():
        raise MissingError(f"file: {file} does not exist", hint="--set file=IMAGE")
    pixels = try_decode(Frame(file), FolderConfig(), {})  # (1 or 3, H, W)
    if isinstance(pixels, Exception):
        raise UsageError(f"file: {file} cannot be read: {one_line(pixels)}")
    if shape[0] == 1 and bool((pixels == pixels[:1]).all()):
        pixels = pixels[:1]  # a grey image stored as colour, as drawing programs do
    if pixels.shape[1:] != shape[1:]:
        raise UsageError(
            "file: {} is {} x {} (height x width), but the run's images are {} x {}".format(
                file, *pixels.shape[1:], *shape[1:]
            ),
            hint="use an image of that size that is framed like the run's images",
        )
    if len(pixels) != shape[0]:
        colours = COLOUR[len(pixels)], COLOUR[shape[0]]
        raise UsageError("file: {} is {}, but the run's images are {}".format(file, *colours))
    x = scale(pixels, f"file: {file}", context)
    images = ImageSplit(context.data.normalize(x[None]), None, context.data)
    mode = context.preprocessing.get("binarize", "none")
    return images.binarized(mode, "file", context.seed).to(context.device)


def scale(pixels: Pixels, where: str, context: ExploreContext) -> Tensor:
    """Convert values as those of the run's data if they have the same type, otherwise by the full
    scale of their type. uint8 is unchanged if it becomes [0, 1]."""
    stored = context.preprocessing
    same = pixels.dtype.name == stored.get("stored")
    given = {key: stored.get(key) for key in ("black", "white")} if same else {}
    config = DataConfig(**given, range=context.data.range_name)
    levels = find_scale(pixels.dtype.name, config, where)
    try:
        return levels.scale(as_tensor(pixels, where), where)
    except UsageError as error:  # its hint is an option of the run's data
        raise UsageError(error.message, hint="use an image with the range of the data") from None


def is_inverted(image: Images, train: Images) -> bool:
    """Return whether the negative of the image would be much closer to the mean training image."""
    mean_image = torch.cat([batch.x.mean(0, keepdim=True) for batch in train.batches(1000)]).mean(0)
    x = image.batch_at([0]).x[0]
    if image.spec.limits:  # there is no negative of values without bounds
        return False
    total = sum(image.spec.extent)  # of black and white
    return bool((total - x - mean_image).square().mean() < 0.5 * (x - mean_image).square().mean())
