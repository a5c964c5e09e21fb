"""Grey values as black and white: the option `data.binarize`, applied after the cuts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from latentforge.data.images import Binarize, ImageSplit
from latentforge.seeding import generator

CHUNK = 10_000  # images turned into floats at once


def binarized(images: ImageSplit, mode: Binarize, split: str, seed: int) -> ImageSplit:
    """The images with every value 0 or 1, stored as uint8 0 or 255.

    `threshold`: 1 from 0.5 upwards. `fixed`: each value drawn once with its grey value as the
    probability, a function of `seed` and the split (Salakhutdinov and Murray 2008). `dynamic`: the
    training images are drawn anew whenever they are shown; other splits are `fixed`.
    """
    if mode == "none":
        return images
    if type(images) is not ImageSplit:
        from latentforge.data.streamed import StreamedImages  # which knows the modes from here

        assert isinstance(images, StreamedImages)
        return images.binarized(mode, split, seed)
    if mode == "dynamic" and split == "train":
        return replace(images, dynamic=True)
    noise = generator("cpu", f"binarize {split}", seed)

    def white(x: Tensor) -> Tensor:
        return x >= 0.5 if mode == "threshold" else torch.bernoulli(x, generator=noise).bool()

    parts = [white(batch.x).to(torch.uint8) * 255 for batch in images.batches(CHUNK)]
    return replace(images, x=torch.cat(parts))
