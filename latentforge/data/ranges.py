"""Values of other ranges than [0, 1]: signed levels, counts, and real numbers that are kept.

They are float32 in memory, as a model sees them; only data in [0, 1] is stored as bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentforge.config.schema import DataConfig, find_range_fault
from latentforge.contracts import RANGES, Arrays, DataSpec, RangeName
from latentforge.data.arrays import data_option
from latentforge.data.images import ImageSplit
from latentforge.data.levels import EXACT, Levels, check_finite, find_kind, find_levels
from latentforge.errors import UsageError
from latentforge.io.text import are

LARGEST_COUNT = 2**24  # float32 represents all whole numbers up to this one
POSITIVE = "%s: data.range is signed, and x goes from %g to %g; if 0 is black, try %s"
SAMPLE = 1000  # training examples whose smallest and largest values are the limits of drawings

log = logging.getLogger("latentforge")


@dataclass(frozen=True)
class SignedLevels(Levels):
    """Levels that become -1 (black) to 1 (white)."""

    @property
    def is_stored(self) -> bool:
        return False

    def convert(self, x: Tensor) -> Tensor:
        if (self.black, self.white) == (-1.0, 1.0):  # exact
            return x.to(torch.float32).clamp(-1.0, 1.0)
        return 2 * super().convert(x) - 1

    def warn_if_dark(self, x: Tensor, where: str, *, is_whole: bool) -> None:
        super().warn_if_dark((x + 1) / 2, where, is_whole=is_whole)
        if (self.black, self.white) == (-1.0, 1.0) and 0 <= float(x.min()) < float(x.max()):
            option = data_option(where, black=0.0, white=1.0)
            log.warning(POSITIVE, where, float(x.min()), float(x.max()), option)


@dataclass(frozen=True)
class KeptValues(Levels):
    """Values that are kept: `counts`, which must be whole numbers from 0, or real numbers."""

    black: float | None = None  # type: ignore[assignment]
    white: float | None = None  # type: ignore[assignment]
    counts: bool = False

    @property
    def is_stored(self) -> bool:
        return False

    def scale(self, x: Tensor, where: str) -> Tensor:
        """Return the values as float32. Raises UsageError for NaN, infinity and values that float32
        cannot represent, and for counts that are not whole numbers from 0."""
        if not x.numel():
            return x.to(torch.float32)
        x = x.to(torch.float32 if self.dtype in EXACT else torch.float64)
        low, high = check_finite(x, where)
        largest = torch.finfo(torch.float32).max
        if not -largest <= low <= high <= largest:
            raise UsageError(
                f"{where}: x has values in [{low:.9g}, {high:.9g}], which float32 cannot represent",
                hint=f"x / {max(-low, high):.3g}",
            )
        if self.counts:
            self._check_counts(x, high, where)
        return x.to(torch.float32)

    def _check_counts(self, x: Tensor, high: float, where: str) -> None:
        option = data_option(where, range="any")
        other = (
            f"train on real numbers: {option}, with --set loss.likelihood=gaussian if the loss has "
            "a likelihood"
        )
        wrong = (x < 0) | (x != x.round())
        if count := int(wrong.sum()):
            example = float(x[wrong][0])
            raise UsageError(
                f"{where}: {count} of {x.numel()} values of x {are(count)} not whole numbers from "
                f"0, such as {example:.9g}, but data.range is counts",
                hint=f"correct these values, or {other}",
            )
        if high > LARGEST_COUNT:
            raise UsageError(
                f"{where}: x has counts up to {high:.0f}, but float32 represents all whole numbers "
                f"only up to {LARGEST_COUNT}",
                hint=other,
            )

    def warn_if_dark(self, x: Tensor, where: str, *, is_whole: bool) -> None:
        """Values that are kept have no full scale."""


def find_scale(dtype: str, config: DataConfig, where: str) -> Levels:
    """Return how values of a numpy dtype become the input of a model, as `config.range` says.
    Raises UsageError if they are not real numbers or if black is not below white."""
    if config.range in ("counts", "any"):
        find_kind(dtype, where)
        return KeptValues(dtype, counts=config.range == "counts")
    levels = find_levels(dtype, config, where)
    return SignedLevels(**vars(levels)) if config.range == "signed" else levels


def choose_range(loaded: Mapping[str, Any], config: DataConfig, name: str) -> DataConfig:
    """Return `config` with the range of the values: that of data.range, or else the one that the
    dataset declares, or else unit. Raises UsageError if the splits declare different ranges, or if
    other options have no meaning for it."""
    declared = {data.range for data in loaded.values() if isinstance(data, Arrays)} - {None}
    if unknown := declared - RANGES.keys():
        raise UsageError(f"{name}: range is {unknown.pop()!r}", hint=f"one of {', '.join(RANGES)}")
    if config.requested_range is None and len(declared) > 1:
        raise UsageError(
            f"{name}: its splits declare the ranges {' and '.join(sorted(map(str, declared)))}",
            hint="give all splits one range",
        )
    values: RangeName = config.requested_range or next(iter(declared), None) or "unit"
    if fault := find_range_fault(config, values):
        raise UsageError(f"{name}: {fault}", hint=data_option(name, range="unit"))
    return replace(config, range=values)


def find_limits(images: ImageSplit) -> tuple[float, float]:
    """Return the smallest and the largest value of a sample of the images."""
    count = min(SAMPLE, len(images))
    places = torch.arange(count, device=images.device) * len(images) // count
    extremes = [part.aminmax() for part in map(images.raw, torch.split(places, 64))]
    return min(float(e.min) for e in extremes), max(float(e.max) for e in extremes)


def find_spec(values: RangeName, spec: DataSpec, train: ImageSplit) -> DataSpec:
    """Return the spec of data with the range `values`, whose training images are `train`."""
    limits = find_limits(train) if values in ("counts", "any") else None
    return replace(spec, range=RANGES[values], limits=limits)
