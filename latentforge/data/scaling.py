"""Standardizes the values of data by their mean and deviation, as `data.normalize` requests."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from latentforge.contracts import DataSpec, Scaling, at_once
from latentforge.data.images import ImageSplit
from latentforge.data.readers import Source
from latentforge.data.splits import DataSplits
from latentforge.data.streamed import StreamedImages
from latentforge.io.text import are

BATCH = 1000  # examples that are read at once
CONSTANT = "%s: %d of %d %s %s constant in the training split, so %s only centred"
ROUNDED = (
    "%s: %d of %d %s %s by less than a millionth of the mean in the training split, which float32 "
    "rounds, so %s only centred; subtract a mean from the original values: x = x - x.mean(0)"
)

log = logging.getLogger("latentforge")


class ScaledSource(Source):
    """The examples of another source, standardized."""

    def __init__(self, source: Source, spec: DataSpec) -> None:
        self.source, self.spec, self.where = source, spec, source.where
        self.shape, self.dtype = source.shape, torch.float32

    def read(self, indices: Sequence[int]) -> Tensor:
        return self.spec.normalize(self.source.read(indices))


def read_values(images: ImageSplit) -> Iterator[Tensor]:
    """Yield all examples as float64 (B, *shape)."""
    for batch in images.batches(at_once(images.spec, BATCH)):
        yield batch.x.cpu().double()


def find_scaling(images: ImageSplit, name: str) -> Scaling:
    """Return the mean and the standard deviation of each channel of images and signals, or of each
    value of vectors. A deviation of 0 is replaced by 1 and announced."""
    shape = images.spec.shape
    per = (0, *range(2, 1 + len(shape)))  # the axes of the batch and of the values of a channel
    count = len(images) * math.prod(shape[1:])
    mean = torch.zeros(shape[0], dtype=torch.float64)
    for x in read_values(images):
        mean += x.sum(per) / count
    squares = torch.zeros_like(mean)
    low, high = torch.full_like(mean, math.inf), torch.full_like(mean, -math.inf)
    for x in read_values(images):
        squares += (x - mean.reshape(-1, *[1] * (len(shape) - 1))).square().sum(per)
        low, high = low.minimum(x.amin(per)), high.maximum(x.amax(per))
    deviation = (squares / count).sqrt()
    # values that float32 rounds have a tiny deviation, by which noise would be divided
    flat, constant = deviation <= 1e-6 * mean.abs(), low == high
    parts = "values" if images.spec.kind == "vector" else "channels"
    for message, found in ((CONSTANT, flat & constant), (ROUNDED, flat & ~constant)):
        if number := int(found.sum()):
            what = "it is" if number == 1 else "they are"
            verb = are(number) if message == CONSTANT else "varies" if number == 1 else "vary"
            log.warning(message, name, number, len(mean), parts, verb, what)
    deviation[flat] = 1.0
    return Scaling(*(tuple(values.float().tolist()) for values in (mean, deviation)))


def standardize(data: DataSplits, name: str, scaling: Scaling | None = None) -> DataSplits:
    """Return the data with standardized values: by `scaling`, that of a run, or else by the mean
    and the deviation of the training split. `name` names the data in messages."""
    scaling = scaling or find_scaling(data.split("train"), name)
    spec = replace(data.spec, scaling=scaling)
    preprocessing = {**data.preprocessing, "normalize": scaling.as_dict()}
    return replace(data.map(lambda images, _: scale(images, spec)), preprocessing=preprocessing)


def scale(images: ImageSplit, spec: DataSpec) -> ImageSplit:
    """Return the images with values that are standardized as `spec` says."""
    if isinstance(images, StreamedImages):
        return images.with_source(ScaledSource(images.source, spec), spec)
    return replace(images, x=spec.normalize(images.x), spec=spec)
