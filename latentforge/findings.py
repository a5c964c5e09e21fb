"""The vocabulary of findings: what an explorer saw, for the core to draw and to write.

Tensors may lie on any device. `latentforge/drawing/` turns findings into files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = 30
"""Frames of a film at the most: a page with several films must stay small."""


@dataclass(frozen=True)
class ImageGrid:
    """Rows of images, each row (n, C, H, W) with values in [0, 1]; C is 1 or 3 (RGB).

    `captions` stand under the images, a row of texts for each row. `colours="heat"` draws one
    channel as a heat map, for activations and differences, with one scale for all images of a row,
    from its lowest to its highest value; "grey" as it is.
    """

    name: str  # the file's name, without a suffix
    title: str
    rows: Sequence[Tensor]
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()
    colours: Literal["grey", "heat"] = "grey"


@dataclass(frozen=True)
class Plane:
    """Decoded images at the knots of a regular grid over a map: `images` (rows, columns, C, H, W)
    in [0, 1], the first row at the lowest y; `x` and `y` are the first and the last knot."""

    images: Tensor
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Scatter:
    """A map of codes: `points` (N, 2), coloured by `labels`, int64 (N,) that index `classes`.

    `images` (N, C, H, W) are shown when one points at a point, `plane` what the place decodes to.
    `paths` are walks over the map, (T, 2) each, from start to end. `codes` (N, D) are the points in
    their own space, for TensorBoard's projector.
    """

    name: str
    title: str
    points: Tensor
    labels: Tensor | None = None
    classes: Sequence[str] = ()
    images: Tensor | None = None
    plane: Plane | None = None
    paths: Mapping[str, Tensor] = field(default_factory=dict)
    codes: Tensor | None = None
    axes: tuple[str, str] = ("z0", "z1")


@dataclass(frozen=True)
class Lines:
    """Curves over one x: `x` (n,), and by name y (n,), where NaN leaves a gap."""

    name: str
    title: str
    x: Tensor
    series: Mapping[str, Tensor]
    x_title: str
    y_title: str


@dataclass(frozen=True)
class Bars:
    """A group of bars for each label: by name one height a label."""

    name: str
    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    y_title: str


@dataclass(frozen=True)
class Histogram:
    """Small panels, by title the values (n,) of each; `normal` draws the fitted normal density."""

    name: str
    title: str
    panels: Mapping[str, Tensor]
    x_title: str
    normal: bool = False


@dataclass(frozen=True)
class Film:
    """At most FRAMES frames; a frame is panels side by side, of the same kinds in every frame.

    It becomes a GIF, and a PNG with the images of all frames as a strip.
    """

    name: str
    title: str
    frames: Sequence[Sequence[ImageGrid | Scatter | Bars]]
    frame_titles: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers under `columns`."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class Arrays:
    """Numbers for further work, written as one .npz."""

    name: str
    arrays: Mapping[str, Tensor]


@dataclass(frozen=True)
class Raw:
    """A file as it is, for what the vocabulary lacks: `name` + `suffix`, such as ".svg"."""

    name: str
    suffix: str
    content: bytes


Finding = ImageGrid | Scatter | Lines | Bars | Histogram | Film | Table | Arrays | Raw


@dataclass(frozen=True)
class Findings:
    """What an explorer returns: things to draw, and figures by name with the sentence that says
    what they are. `notes` are lines for people, such as what was left out."""

    items: Sequence[Finding]
    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: str = ""
    notes: Sequence[str] = ()


def checked(findings: object) -> Findings:
    """What an explorer returned, if it can be drawn and written; else TypeError or ValueError."""
    if not isinstance(findings, Findings):
        raise TypeError(f"an explorer must return Findings, not {type(findings).__name__}")
    for item in findings.items:
        if not isinstance(item, Finding):
            raise TypeError(f"{type(item).__name__} is no finding")
    names = [item.name for item in findings.items]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):  # it becomes a file's name
            raise ValueError(f"a finding's name has letters, digits, '-' and '_', not {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"two findings are called {name!r}")
    for item in findings.items:
        _check(item)
    metrics = {name: float(value) for name, value in findings.metrics.items()}
    return Findings(findings.items, metrics, findings.protocol, tuple(findings.notes))


def _check(item: Finding) -> None:
    if isinstance(item, ImageGrid) and not (item.rows and all(map(_is_images, item.rows))):
        shapes = [tuple(row.shape) for row in item.rows]
        raise ValueError(f"rows of {item.name!r} must be (n, 1 or 3, H, W), not {shapes}")
    if isinstance(item, Scatter):
        count = len(item.points)
        if item.points.ndim != 2 or item.points.shape[1] != 2 or not count:
            raise ValueError(f"points of {item.name!r} must be (N, 2)")
        if item.labels is not None and item.labels.shape != (count,):
            raise ValueError(f"{item.name!r} must have one label a point")
        if item.images is not None and (len(item.images) != count or not _is_images(item.images)):
            raise ValueError(f"{item.name!r} must have one image (1 or 3, H, W) a point")
        if any(path.ndim != 2 or path.shape[1] != 2 for path in item.paths.values()):
            raise ValueError(f"paths of {item.name!r} must be (T, 2)")
    if isinstance(item, Lines) and any(y.shape != item.x.shape for y in item.series.values()):
        raise ValueError(f"series of {item.name!r} must be as long as x")
    if isinstance(item, Bars) and any(len(y) != len(item.labels) for y in item.series.values()):
        raise ValueError(f"series of {item.name!r} must have one height a label")
    if isinstance(item, Table) and any(len(row) != len(item.columns) for row in item.rows):
        raise ValueError(f"rows of {item.name!r} must be as long as its columns")
    if isinstance(item, Raw) and not re.fullmatch(r"\.[a-z0-9]+", item.suffix):
        raise ValueError(f"the suffix of {item.name!r} must be like '.svg', not {item.suffix!r}")
    if isinstance(item, Film):
        if not 1 <= len(item.frames) <= FRAMES:
            raise ValueError(f"{item.name!r} must have 1 to {FRAMES} frames")
        for frame in item.frames:
            if [type(panel) for panel in frame] != [type(panel) for panel in item.frames[0]]:
                raise ValueError(f"all frames of {item.name!r} must have the same panels")
            for panel in frame:
                _check(panel)


def _is_images(x: Tensor) -> bool:
    return x.ndim == 4 and len(x) > 0 and x.shape[1] in (1, 3)
