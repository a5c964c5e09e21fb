"""The order of the axes of stored images: recognised from the shape, or given by data.layout.

A layout has one letter per axis: N images, C channels, D depth, H height, W width. Slices (D) are
treated as channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from latentforge.data.arrays import data_option
from latentforge.errors import UsageError
from latentforge.io.text import are, counted

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
VECTORS = "ND"
"""Stands for examples without axes of their own, (N, D)."""


def find_layout(shape: Sequence[int], option: str, where: str, labels: int | None = None) -> str:
    """Return the layout of an array of this shape, such as NHWC. `option` is data.layout, and
    `labels` the number of labels.

    Channels-last is recognised only where the shape has no other plausible reading. Raises
    UsageError for a shape that can be read in two ways, with both readings and the option that
    decides, and for a shape that does not fit `option`.
    """
    shape = tuple(shape)
    if option != "auto":
        return check_layout(shape, option, where)
    if labels is not None and shape and shape[0] != labels == shape[-1]:
        last = {2: "x.T", 3: data_option(where, layout="HWN")}
        if len(shape) == 4:
            four = [name for name in ("HWCN", "CHWN") if shape[name.index("C")] in CHANNELS]
            options = [data_option(where, layout=name) for name in four or ("HWCN", "CHWN")]
            last[4] = " or ".join(options)
        raise UsageError(
            f"{where}: x has shape {shape} and there {are(labels)} {counted(labels, 'label')}, so "
            "that the last axis counts the images, not the first one",
            hint=last.get(len(shape), "x = numpy.moveaxis(x, -1, 0)"),
        )
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


def check_layout(shape: tuple[int, ...], layout: str, where: str) -> str:
    if len(shape) != len(layout):
        raise UsageError(
            f"{where}: x has shape {shape}, but data.layout={layout} names "
            f"{counted(len(layout), 'axis', 'axes')}",
            hint="name each axis of the shape by one letter: N, C or D, H, W",
        )
    return layout


def describe(shape: Sequence[int], layout: str) -> str:
    """Describe what an array contains according to a layout."""
    sizes = dict(zip(layout, shape, strict=True))
    images, channels = sizes.get("N"), sizes.get("C", sizes.get("D", 1))
    what = counted(images, "image") if images else "one image"
    of = f"{channels} channels" if channels != 1 else "one channel"
    return f"{what} of {sizes['H']}x{sizes['W']} pixels with {of} ({layout})"


def to_standard(x: Tensor, layout: str) -> Tensor:
    """Return images as a contiguous (N, C, H, W); vectors (N, D) are unchanged."""
    if layout != VECTORS:
        order = [letter for letter in ("N", "C", "D", "H", "W") if letter in layout]
        x = x.permute([layout.index(letter) for letter in order])
        if x.ndim == 3:
            x = x.unsqueeze(1)
    return x.contiguous()


def to_stored(x: Tensor, layout: str) -> Tensor:
    """Return (N, C, H, W) in the order of a layout: the inverse of `to_standard`."""
    if layout == VECTORS:
        return x
    order = [letter for letter in ("N", "C", "D", "H", "W") if letter in layout]
    x = x.squeeze(1) if len(order) == 3 else x
    return x.permute([order.index(letter) for letter in layout]).contiguous()
