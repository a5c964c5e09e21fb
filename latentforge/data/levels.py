"""The scale of stored values: which of them become 0 and 1 in the input of a model.

uint8 is stored as it is and divided by 255 on use. All other values become float32 when they are
read.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentforge.config.schema import IN_MEMORY, DataConfig
from latentforge.data.arrays import data_option, range_options
from latentforge.errors import UsageError
from latentforge.io.text import are, counted

log = logging.getLogger("latentforge")

ROUNDING = 1e-6  # scaled values this far outside [0, 1] are clamped: resizing gives 1.0000001
SAMPLE = 100_000  # values that are searched for marks of missing values
MARKS = 3  # maximum number of different marks
GAP = 20.0
NARROW, NARROW_LOW = 0.3, 0.4  # a smaller range, or a larger minimum, is reported as a wrong range
FULL_SCALE = {"uint16": 65535.0, "bool": 1.0}
IMAGES = 4  # the number of axes of images, (N, C, H, W)
NAMES = {"counts": "counts", "any": "real numbers"}
EXACT = ("uint8", "uint16", "int8", "int16", "bool", "float16", "bfloat16", "float32")
"""Types of which float32 represents every value."""


@dataclass(frozen=True)
class Levels:
    """How values of one numpy dtype become float32: `black` becomes 0, and `white` becomes 1. White
    is NaN if neither the type nor an option defines it, which is an error when values are read."""

    dtype: str
    black: float = 0.0
    white: float = 1.0

    @property
    def is_stored(self) -> bool:
        """Whether the values stay uint8."""
        return self.dtype == "uint8" and (self.black, self.white) == (0.0, 255.0)

    def scale(self, x: Tensor, where: str) -> Tensor:
        """Return float32 in [0, 1], or uint8 unchanged if it stays uint8. Raises UsageError for
        values outside of the levels, NaN and infinity, with levels that fit these values."""
        if self.is_stored or not x.numel():
            return x if self.is_stored else x.to(torch.float32)
        x = x.to(torch.float32 if self.dtype in EXACT else torch.float64)
        low, high = check_finite(x, where)
        if math.isinf(high - low):
            raise UsageError(
                f"{where}: x has values in [{low:.9g}, {high:.9g}], whose difference is too large",
                hint=f"x / {max(-low, high):.9g}",
            )
        if math.isnan(self.white) or not self.black <= low <= high <= self.white:
            self._check_range(x, low, high, where)
        return self.convert(x)

    def convert(self, x: Tensor) -> Tensor:
        """Scale values that are between black and white to float32 in [0, 1]."""
        if (self.black, self.white) != (0.0, 1.0):
            x = (x - self.black) / (self.white - self.black)
        return x.to(torch.float32).clamp(0.0, 1.0)

    def _check_range(self, x: Tensor, low: float, high: float, where: str) -> None:
        margin = ROUNDING * (self.white - self.black)
        if low >= self.black - margin and high <= self.white + margin:
            return
        hint = suggestion = self._suggest(x, low, high, where)
        span = f"x is {self.dtype} with values in [{low:.9g}, {high:.9g}]"
        sample = x.flatten()[:: max(1, x.numel() // SAMPLE)].double()
        clip = "numpy.clip(x, {:.6g}, {:.6g})"
        if not where.startswith(IN_MEMORY):
            clip = "store numpy.clip(x, {:.6g}, {:.6g})"
        if limits := find_marked_range(sample):
            valid = x[(x > limits[0]) & (x < limits[1])]  # the sample lacks some values
            usual = float(valid.min()), float(valid.max())
            others = x.numel() - len(valid)
            span += f", all but {others} of {x.numel()} in [{{:.6g}}, {{:.6g}}]".format(*usual)
            hint = f"{clip}, if the others mark missing values".format(*usual)
            if usual[0] < self.black or not usual[1] <= self.white:
                hint += f", with {self._suggest(valid, *usual, where)}"
            if high - low < GAP * (usual[1] - usual[0]):
                hint += f", or else {self._suggest(x, low, high, where, is_marked=True)}"
        elif wide := find_usual_range(sample, low, high):
            span += ", of which 99 % are in [{:.6g}, {:.6g}]".format(*wide)
            hint = f"{clip}, if the others are invalid, or ".format(*wide)
            hint += suggestion
        if math.isnan(self.white):
            raise UsageError(f"{where}: {span}, and no value is known to be white", hint=hint)
        allowed = f"[{self.black:.9g}, {self.white:.9g}]"
        raise UsageError(f"{where}: {span}, but values must be in {allowed}", hint=hint)

    def _suggest(
        self, x: Tensor, low: float, high: float, where: str, *, is_marked: bool = False
    ) -> str:
        """Return the options for values `x` in [low, high]: levels for images, and before them the
        ranges that vectors, signals and numbers that are unusual for images may have, or after them
        for whole numbers below 0, which scanners give. `is_marked`: the values include those that
        seem to mark missing ones."""
        levels = suggest_levels(low, high)
        ranges = range_options(where)
        is_whole = bool((x == x.round()).all())
        if low < 0 or not is_whole:
            ranges.pop("counts", None)
        if x.ndim == IMAGES:
            depth = math.log2(levels["white"] + 1) if levels["white"] > 0 else 0.0
            is_integer = self.dtype.startswith("int") or self.dtype in ("uint32", "uint64")
            is_usual = low >= -1 and not (is_integer and depth % 1)  # 255 and 4095 are white
            ranges = {} if is_usual or is_marked else ranges
        if self.black and "black" not in levels:
            levels = {"black": 0.0, **levels}
        own = [data_option(where, **levels)]
        others = [f"{text} for {NAMES[values]}" for values, text in ranges.items()]
        levels_first = x.ndim == IMAGES and low < 0 and is_whole
        return ", or ".join(own + others if levels_first else others + own)

    def warn_if_dark(self, x: Tensor, where: str, *, is_whole: bool) -> None:
        """Warn if values of uint8 or uint16 use only a small part of its full scale, as those of a
        camera with 12 bits do, also if the largest value marks missing ones. If `x` is only a
        sample, other images may be brighter."""
        if not self.is_stored and (self.dtype, self.white) != ("uint16", FULL_SCALE["uint16"]):
            return
        top, dark = (255.0, self.white / 10) if self.is_stored else (1.0, self.white / 4)

        def largest(values: Tensor) -> float:
            return float(round(float(values.max()) * self.white / top))

        high = largest(x)
        if is_whole and high == self.white:
            usual = largest(torch.where(x == top, 0, x))
            if 0 < usual <= dark:
                message = (
                    "%s: %s %s %.0f and the others go up to %.0f; if %.0f marks missing "
                    "values, replace it, with x[x == %.0f] = 0"
                )
                count = int((x == top).sum())
                found = counted(count, "value"), are(count)
                log.warning(message, where, *found, high, usual, high, high)
        if 0 < high <= dark and (is_whole or not self.is_stored):
            levels = suggest_levels(0.0, high)
            if self.is_stored:
                levels = {"white": high}
            elif not is_whole:
                levels = {"white": 2.0 ** int(high).bit_length() - 1}
            message = "%s: the values go up to %.0f of %.0f, so all images are dark; try %s"
            log.warning(message, where, high, self.white, data_option(where, **levels))


def check_finite(x: Tensor, where: str) -> tuple[float, float]:
    """Return the smallest and the largest value. Raises UsageError for NaN and infinity."""
    low, high = (float(value) for value in x.aminmax())  # nan if x contains one
    if not (math.isfinite(low) and math.isfinite(high)):
        count = x.numel() - int(x.isfinite().sum())
        raise UsageError(
            f"{where}: {count} of {x.numel()} values of x {are(count)} NaN or infinite",
            hint="replace these values, or remove their examples",
        )
    return low, high


def find_marked_range(sample: Tensor) -> tuple[float, float] | None:
    """Return limits between valid values and those that mark missing ones, such as -9999: values
    that are further away than the range of the others, if they are all equal and not 0, or else
    `GAP` times as far. None if there are none."""
    values = sample.sort().values
    low, high = -math.inf, math.inf
    for _ in range(MARKS):
        if len(values) < 2:
            break
        gap, i = (float(part) for part in values.diff().max(0))
        below, above = values[: int(i) + 1], values[int(i) + 1 :]
        is_below = len(below) <= len(above)  # whether the marks are
        if (below[0] == below[-1]) != (above[0] == above[-1]):
            is_below = bool(below[0] == below[-1])  # marks may be the most frequent value
        marks, others = (below, above) if is_below else (above, below)
        is_mark = bool(marks[0] == marks[-1]) and float(marks[0]) != 0
        span = float(others[-1] - others[0])
        if (
            bool(((others == others[0]) | (others == others[-1])).all())
            or gap < (1 if is_mark else GAP) * span
        ):
            break
        values, middle = others, float(below[-1]) + gap / 2
        low, high = (middle, high) if is_below else (low, middle)
    if len(values) == len(sample):
        return None
    span = float(values[-1] - values[0])  # the limits exclude marks that are not in the sample
    return max(low, float(values[0]) - 2 * span), min(high, float(values[-1]) + 2 * span)


def find_usual_range(sample: Tensor, low: float, high: float) -> tuple[float, float] | None:
    """Return the range of 99 % of the values that are not 0, if it is a small part of the range of
    all values, as with single values that are wrong. None otherwise."""
    sample = sample[sample != 0]
    if not len(sample):
        return None
    usual = torch.quantile(sample, torch.tensor([0.005, 0.995]).double()).tolist()
    is_small = usual[1] - usual[0] < 0.05 * (high - low)
    return (usual[0], usual[1]) if is_small and usual[0] < usual[1] else None


def find_kind(dtype: str, where: str) -> str:
    """Return a numpy dtype without its size, such as uint. Raises UsageError if its values are not
    real numbers."""
    kind = dtype.rstrip("0123456789")
    if kind not in ("uint", "int", "float", "bfloat", "bool"):
        raise UsageError(
            f"{where}: x has values of type {dtype}, which are not real numbers",
            hint="data=list(x), if each is an image or an array" if dtype == "object" else "",
        )
    return kind


def find_levels(dtype: str, config: DataConfig, where: str) -> Levels:
    """Return the levels for values of a numpy dtype: those of data.black and data.white, or the
    full scale of the type, or for floats the range that a model sees. Raises UsageError if the
    values are no real numbers or if black is not below white."""
    kind = find_kind(dtype, where)
    black, white = config.black, config.white
    if black is None and config.range == "signed" and kind in ("float", "bfloat"):
        black = -1.0
    if white is None and dtype == "uint8":
        white = 255.0
    elif white is None:
        white = 1.0 if kind in ("float", "bfloat") else FULL_SCALE.get(dtype, math.nan)
    black = 0.0 if black is None else black
    if black >= white:
        raise UsageError(f"data.black ({black:g}) must be below data.white ({white:g})")
    return Levels(dtype, black, white)


def uses_range(low: float, high: float) -> bool:
    """Whether values in [low, high] use enough of [0, 1] to leave black at 0."""
    return 0 <= low < NARROW_LOW and high <= 1 and high - low >= NARROW


def suggest_levels(low: float, high: float) -> dict[str, float]:
    """Return values of data.black and data.white, with few digits, that contain [low, high]."""
    if low >= 0 and low == int(low) and high == int(high) and 1 < high <= 65535:
        full = next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
        white = full if 2 * high > full else high
        if uses_range(low / white, high / white):
            return {"white": white}
    if uses_range(low / 255, high / 255) and high > 127:
        return {"white": 255.0}
    if -1 <= low <= -0.5 and 0.5 <= high <= 1:
        return {"black": -1.0, "white": 1.0}
    step = 10.0 ** (math.floor(math.log10(max(high - low, abs(high) * 1e-12, 1e-300))) - 2)
    black, white = math.floor(low / step) * step, math.ceil(high / step) * step
    if white <= black:  # all values are equal
        white = black + step
    if 0 <= low < 0.1 * high:
        black = 0.0
    digits = max(0, -math.floor(math.log10(step)))
    levels = {"black": round(black, digits), "white": round(white, digits)}
    return levels if black else {"white": levels["white"]}
