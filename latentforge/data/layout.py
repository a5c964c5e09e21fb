"""The order of the axes of stored examples: recognised from the shape, or given by data.layout.

A layout has one letter per axis: N examples, C channels, D depth, H height, W width, L the length
of a signal. Slices (D) are treated as channels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from latentforge.config.schema import DataConfig
from latentforge.contracts import Arrays, Kind
from latentforge.data.arrays import data_option
from latentforge.errors import UsageError
from latentforge.io.text import are, counted

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
VECTORS = "ND"
"""Stands for examples without axes of their own, (N, D)."""
SIGNAL = "signal"
"""The value of data.layout for signals whose layout is recognised from the shape."""
AXES = "NCDHWL"
"""The letters of a layout, in the order of the axes that a model sees."""
ELONGATED = 8  # ratio of the sides of images that are probably signals
FEW_IMAGES = "%s: x is read as %s with %s; if it contains %s with %s, try %s"
LONG_ROWS = "%s: x is read as %d images of %dx%d pixels; if it contains %d images of %dx%d, try %s"
SIGNALS = "%s: x is read as images of %dx%d pixels; if it contains signals, try %s"

log = logging.getLogger("latentforge")


def kind_of(shape: Sequence[int]) -> Kind:
    """Return the kind of examples of this shape: (D,), (C, L) or (C, H, W)."""
    kinds: dict[int, Kind] = {1: "vector", 2: "signal", 3: "image"}
    return kinds[len(shape)]


def choose_kind(loaded: Mapping[str, Any], config: DataConfig, name: str) -> DataConfig:
    """Return `config` with the layout `signal` if the dataset declares signals and data.layout does
    not name their axes. Raises UsageError if only some splits declare signals."""
    kinds = {data.kind for data in loaded.values() if isinstance(data, Arrays)}
    if unknown := kinds - {None, SIGNAL}:
        raise UsageError(f"{name}: kind is {unknown.pop()!r}", hint="'signal' or None")
    if config.layout != "auto" or SIGNAL not in kinds:
        return config
    if len(kinds) > 1:
        raise UsageError(
            f"{name}: some of its splits declare signals, and others do not",
            hint="give all splits one kind",
        )
    return replace(config, layout=SIGNAL)


def find_layout(shape: Sequence[int], option: str, where: str, labels: int | None = None) -> str:
    """Return the layout of an array of this shape, such as NHWC. `option` is data.layout, and
    `labels` the number of labels.

    Channels-last is recognised only where the shape has no other plausible reading. Raises
    UsageError for a shape that can be read in two ways, with both readings and the option that
    decides, and for a shape that does not fit `option`.
    """
    shape = tuple(shape)
    if option not in ("auto", SIGNAL):
        return check_layout(shape, option, where)
    if labels is not None and shape and shape[0] != labels == shape[-1]:
        names = ("CLN", "LCN") if option == SIGNAL else ("HWN",)
        three = " or ".join(data_option(where, layout=name) for name in names)
        last = {2: "x.T", 3: three}
        if len(shape) == 4:
            four = [name for name in ("HWCN", "CHWN") if shape[name.index("C")] in CHANNELS]
            options = [data_option(where, layout=name) for name in four or ("HWCN", "CHWN")]
            last[4] = " or ".join(options)
        raise UsageError(
            f"{where}: x has shape {shape} and there {are(labels)} {counted(labels, 'label')}, so "
            "that the last axis counts the images, not the first one",
            hint=last.get(len(shape), "x = numpy.moveaxis(x, -1, 0)"),
        )
    if option == SIGNAL:
        return find_signal_layout(shape, where)
    if len(shape) == 2:
        return VECTORS
    # as MATLAB stores images, unless the labels show that the first axis counts them
    images_last = len(shape) > 2 and shape[0] == shape[1] and labels != shape[0]
    if len(shape) == 4:
        images_last = images_last and (shape[2] in CHANNELS or shape[0] != shape[-1])
    if len(shape) == 3 and not images_last and (shape[2] not in (3, 4) or shape[1] == shape[2]):
        return "NHW"
    if len(shape) == 4 and (layout := read_four(*shape[1:])):
        return layout
    if len(shape) not in (3, 4):
        raise UsageError(
            f"{where}: x has shape {shape}, and an example must be an image or a vector",
            hint="give (N, H, W), (N, C, H, W), (N, H, W, C) or (N, D)",
        )
    readings = ["NHW", "HWC"] if len(shape) == 3 else ["NCHW", "NHWC"]
    if images_last or (len(shape) == 4 and shape[2] in CHANNELS and shape[3] > 4 * max(shape[:2])):
        readings[1] = "HWN" if len(shape) == 3 else "HWCN"
    options = [data_option(where, layout=name) for name in readings if "N" in name]
    if "HWC" in readings:
        options.append("x[None] for the single image")
    raise UsageError(
        f"{where}: x has shape {shape}, which can be read in two ways: "
        f"{' or '.join(describe(shape, name) for name in readings)}",
        hint=" or ".join(options),
    )


def list_signal_layouts(shape: Sequence[int], layout: str) -> list[str]:
    """Return the values of data.layout with which examples of this shape, whose stored array was
    read with `layout`, are read as signals: "signal" if their axes have one reading, or the
    readings. Empty for stored arrays that do not have two or three axes."""
    if layout not in (VECTORS, "NHW"):
        return []
    _, *axes = shape if layout == "NHW" else (1, *shape)
    try:
        find_signal_layout((1, *axes), "")
    except UsageError:
        return ["NCL", "NLC"]
    return [SIGNAL]


def find_signal_layout(shape: tuple[int, ...], where: str) -> str:
    """Return NL, NCL or NLC for signals of this shape. Channels-first is recognised where a signal
    is at least twice as long as it has channels, or has one channel; the opposite has two readings,
    except that one value is no signal."""
    if len(shape) == 2:
        return "NL"
    if len(shape) != 3:
        raise UsageError(
            f"{where}: x has shape {shape}, and an example must be a signal",
            hint="give (N, L), (N, C, L) or (N, L, C)",
        )
    first, last = shape[1:]
    if last == 1 < first:
        return "NLC"
    if first == 1 or 2 * first <= last:
        return "NCL"
    readings = " or ".join(describe(shape, name) for name in ("NCL", "NLC"))
    raise UsageError(
        f"{where}: x has shape {shape}, which can be read in two ways: {readings}",
        hint=" or ".join(data_option(where, layout=name) for name in ("NCL", "NLC")),
    )


def read_four(first: int, second: int, last: int) -> str:
    """Return NCHW or NHWC for an image with these three axes; "" if both readings are plausible."""
    square = second == last != first or first == second == last == 1
    if first in CHANNELS and last not in CHANNELS:
        return "NCHW" if last > first or square else ""
    if first in CHANNELS:  # an image of height 1 is not plausible
        return "NCHW" if square or first == 1 else ""
    if last in CHANNELS:
        return "NHWC" if first > 2 and not square else ""
    return "NCHW" if square or 2 * first <= min(second, last) else ""


def warn_if_unusual(shape: Sequence[int], layout: str, where: str, *, is_array: bool) -> None:
    """Announce how a standard shape, (N, C, H, W) for images, was recognised if another reading is
    likely: signals, or in an array another axis that counts the images."""
    n, channels, *size = shape
    if is_array and layout == "NCHW" and n < channels:
        option = data_option(where, layout="CNHW")
        few = [counted(n, "image"), counted(channels, "channel")]
        many = [counted(channels, "image"), counted(n, "channel")]
        log.warning(FEW_IMAGES, where, *few, *many, option)
    if layout == "NHW" and max(size) >= ELONGATED * min(size):
        option = data_option(where, layout="NCL" if size[0] < size[1] else "NLC")
        log.warning(SIGNALS, where, *size, option)
    if is_array and layout == "NHW" and size[1] > 4 * max(n, size[0]):
        option = data_option(where, layout="HWN")
        log.warning(LONG_ROWS, where, n, *size, size[1], n, size[0], option)


def check_layout(shape: tuple[int, ...], layout: str, where: str) -> str:
    if len(shape) != len(layout):
        raise UsageError(
            f"{where}: x has shape {shape}, but data.layout={layout} names "
            f"{counted(len(layout), 'axis', 'axes')}",
            hint="name each axis of the shape by one letter: N, C or D, H, W; for signals N, C, L",
        )
    return layout


def describe(shape: Sequence[int], layout: str) -> str:
    """Describe what an array contains according to a layout."""
    sizes = dict(zip(layout, shape, strict=True))
    images, channels = sizes.get("N"), sizes.get("C", sizes.get("D", 1))
    of = f"{channels} channels" if channels != 1 else "one channel"
    if "L" in sizes:
        what = f"{counted(images or 1, 'signal')} of {counted(sizes['L'], 'value')}"
        return f"{what} with {of} ({layout})"
    what = counted(images, "image") if images else "one image"
    return f"{what} of {sizes['H']}x{sizes['W']} pixels with {of} ({layout})"


def to_standard(x: Tensor, layout: str) -> Tensor:
    """Return images as a contiguous (N, C, H, W), signals as (N, C, L); vectors (N, D) are
    unchanged."""
    if layout != VECTORS:
        x = x.permute([layout.index(letter) for letter in AXES if letter in layout])
        if has_one_channel(layout):
            x = x.unsqueeze(1)
    return x.contiguous()


def to_stored(x: Tensor, layout: str) -> Tensor:
    """Return (N, C, H, W) or (N, C, L) in the order of a layout: the inverse of `to_standard`."""
    if layout == VECTORS:
        return x
    order = [letter for letter in AXES if letter in layout]
    x = x.squeeze(1) if has_one_channel(layout) else x
    return x.permute([order.index(letter) for letter in layout]).contiguous()


def has_one_channel(layout: str) -> bool:
    """Whether the examples of a layout have one channel and no axis for it."""
    return layout != VECTORS and not {*"CD"} & {*layout}
