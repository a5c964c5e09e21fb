"""The image files of a folder as a map-style dataset that decodes each image on access."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from latentforge import Arrays
from latentforge.io.text import are, counted

from .config import FolderConfig
from .listing import Listing
from .reader import (
    Frame,
    Pixels,
    decoding,
    list_frames,
    mixed_images_error,
    read,
    try_decode,
    unreadable_error,
)

log = logging.getLogger("latentforge")

FEW = 10_000  # files that are all read to report which of them are bad


class Pictures:
    """A dataset whose item i is the image in `files[i]`, (1 or 3, H, W), with its label if there
    are labels. Access to an item and `whole` raise UsageError for a file that cannot be read, and
    for an image whose size, type or number of channels differs from the first image."""

    def __init__(self, listing: Listing, config: FolderConfig) -> None:
        self.config, self.classes = config, listing.classes
        self.frames = list_frames(listing.files, config)
        labels = listing.labels
        self.targets = None
        if labels is not None:
            label_of = dict(zip(listing.files, labels, strict=True))
            self.targets = [label_of[frame.path] for frame in self.frames]
        place = {file: i for i, file in enumerate(listing.files)}
        self.factors = {
            name: [values[place[frame.path]] for frame in self.frames]
            for name, values in listing.factors.items()
        }
        self.files = [frame.name(listing.top or listing.root) for frame in self.frames]
        self.announced = False
        self.further: dict[Frame, int] = {}  # the number of frames that are not read, by file

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> tuple[Pixels, Any] | Pixels:
        image = self.decode(i)
        if (image.shape, image.dtype) != (self.first.shape, self.first.dtype):
            raise mixed_images_error(self.frames[0], self.first, self.frames[i], image)
        return image if self.targets is None else (image, self.targets[i])

    def whole(self) -> Arrays:
        """Decode all images with several threads."""
        x = read(self.frames, self.config, self.further)
        if self.further:
            count, files = sum(self.further.values()), len(self.further)
            message = "%s of %s %s not read (data.frames=all reads them)"
            frames = counted(count, "further frame"), counted(files, "file")
            log.warning(message, *frames, are(count))
        return Arrays(x, self.targets, self.classes, self.files, factors=self.factors)

    @cached_property
    def first(self) -> Pixels:
        """The first image, whose shape and type all other images must have."""
        return self.decode(0)

    def decode(self, i: int) -> Pixels:
        with decoding():
            image = try_decode(self.frames[i], self.config, self.further)
        if isinstance(image, Exception):
            if not i and len(self.frames) <= FEW:  # nothing is read yet: name all bad files
                read(self.frames, self.config, self.further)
            raise unreadable_error([(self.frames[i], image)])
        if self.further and i and not self.announced:  # the first is read before `whole`, too
            self.announced = True
            message = "%s: further frames of files are not read (data.frames=all reads them)"
            log.warning(message, self.files[i])
        return image
