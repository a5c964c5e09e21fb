"""Findings, the results of explorers: image grids, scatters, curves, tables and their validation.

Tensors may be on any device. `latentforge/rendering/` writes findings to files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FRAMES = 30
"""The maximum number of frames of an animation, which limits the size of a page."""

LISTS = {
    "column_titles": "strings",
    "row_titles": "strings",
    "captions": "lists of strings",
    "classes": "strings",
    "axes": "strings",
    "columns": "strings",
    "frames": "lists of panels",
    "frame_titles": "strings",
}
"""The list fields of all findings, and the type of their elements."""

RESERVED = ("findings.json", "projector_config.pbtxt")
"""File names that the core itself uses next to the files of findings."""


@dataclass(frozen=True)
class ImageGrid:
    """Rows of images, each row (n, C, H, W) with values in [0, 1]; C is 1 or 3 (RGB).

    `captions` contains a list of strings for each row, shown below its images. `colours="heat"`
    draws one channel as a heat map, for activations and differences; all images of a row share a
    scale, from the lowest to the highest value of the row. "grey" draws the values unchanged.
    """

    name: str  # the file name without a suffix
    title: str
    rows: Sequence[Tensor]
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()
    colours: Literal["grey", "heat"] = "grey"


@dataclass(frozen=True)
class Plane:
    """Decoded images at the points of a regular grid on a map: `images` (rows, columns, C, H, W)
    in [0, 1], the first row at the lowest y. `x` and `y` are the first and last coordinates."""

    images: Tensor
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Scatter:
    """A map of codes: `points` (N, 2), coloured by `labels`, int64 (N,) that index `classes`.

    `images` (N, C, H, W) appear under the pointer; `plane` contains decoded images for positions on
    the map. `paths` are curves on the map by name, (T, 2) each, from start to end. `codes` (N, D)
    are the codes before projection, for TensorBoard's projector.
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
    """Curves over a common `x` (n,): `series` are y values (n,) by name; NaN leaves a gap."""

    name: str
    title: str
    x: Tensor
    series: Mapping[str, Tensor]
    x_title: str
    y_title: str


@dataclass(frozen=True)
class Bars:
    """A group of bars for each label: `series` maps names to one height per label."""

    name: str
    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    y_title: str


@dataclass(frozen=True)
class Histogram:
    """Histograms: `panels` maps titles to values (n,); `normal` adds the fitted normal density."""

    name: str
    title: str
    panels: Mapping[str, Tensor]
    x_title: str
    normal: bool = False


@dataclass(frozen=True)
class Film:
    """An animation of at most FRAMES frames, each with the same kinds of panels side by side.

    It is written as a GIF, and as a PNG that shows the images of all frames in one strip.
    """

    name: str
    title: str
    frames: Sequence[Sequence[ImageGrid | Scatter | Bars]]
    frame_titles: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Rows of strings and numbers under `columns`."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class NamedArrays:
    """Tensors by name for further processing, written as one .npz file. Texts, such as names of
    files, are arrays of NumPy."""

    name: str
    arrays: Mapping[str, Tensor | np.ndarray[Any, Any]]


Arrays = NamedArrays  # the former name, for plugins; `contracts.Arrays` is a dataset split


@dataclass(frozen=True)
class Raw:
    """Any other file: `content` is written to `name` + `suffix`, where `suffix` is like ".svg"."""

    name: str
    suffix: str
    content: bytes


Finding = ImageGrid | Scatter | Lines | Bars | Histogram | Film | Table | NamedArrays | Raw


@dataclass(frozen=True)
class Findings:
    """What an explorer returns: the findings, and metrics by name, defined by the sentence
    `protocol`. `notes` are lines for the reader, for example about data that was left out. `roles`
    maps the name of a finding to a role if the finding shows the run of that role."""

    items: Sequence[Finding]
    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: str = ""
    notes: Sequence[str] = ()
    roles: Mapping[str, str] = field(default_factory=dict)


def checked(findings: object) -> Findings:
    """Validate what an explorer returned. Raises TypeError or ValueError if it is invalid."""
    if not isinstance(findings, Findings):
        raise TypeError(f"an explorer must return Findings, not {type(findings).__name__}")
    _check_list("Findings", "items", findings.items, "findings")
    _check_list("Findings", "notes", findings.notes, "strings")
    _check_mapping("Findings", "metrics", findings.metrics)
    _check_mapping("Findings", "roles", findings.roles)
    for item in findings.items:
        if not isinstance(item, Finding):
            raise TypeError(f"{type(item).__name__} is not a finding")
    names = [item.name for item in findings.items]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):  # it becomes a file name
            raise ValueError(
                f"the name of a finding must consist of letters, digits, '-' and '_', not {name!r}"
            )
        if names.count(name) > 1:
            raise ValueError(f"two findings have the name {name!r}")
    for item in findings.items:
        _check(item)
    if unknown := sorted(set(findings.roles) - set(names)):
        raise ValueError(f"roles contains {unknown[0]!r}, but there is no such finding")
    metrics = {name: float(value) for name, value in findings.metrics.items()}
    return replace(findings, metrics=metrics, notes=tuple(findings.notes))


def _check(item: Finding) -> None:
    """Raise a TypeError or ValueError that names the finding if it cannot be drawn or written."""
    for key in ("title", "x_title", "y_title"):
        if not isinstance(getattr(item, key, ""), str):
            raise TypeError(f"{key} of {item.name!r} must be a string")
    for key, items in LISTS.items():
        value = getattr(item, key, ())
        _check_list(item.name, key, value, items)
        if items == "strings":
            _check_texts(item.name, value)
    for key in ("paths", "series", "panels", "arrays"):
        _check_mapping(item.name, key, getattr(item, key, {}))
    match item:
        case ImageGrid():
            _check_grid(item)
        case Scatter():
            _check_scatter(item)
        case Lines():
            _check_lines(item)
        case Bars():
            _check_bars(item)
        case Histogram():
            _check_tensors(item.name, item.panels)
            if not item.panels:
                raise ValueError(f"{item.name!r} must have at least one panel")
        case Film():
            _check_film(item)
        case Table():
            _check_table(item)
        case NamedArrays():
            texts = [key for key, value in item.arrays.items() if is_text(value)]
            _check_tensors(item.name, {k: v for k, v in item.arrays.items() if k not in texts})
        case Raw():
            _check_raw(item)


def _check_list(name: str, key: str, value: object, items: str) -> None:
    """Raise TypeError for a value that is not a list, such as a string or a tensor."""
    wrong = isinstance(value, str) or hasattr(value, "shape") or not isinstance(value, Collection)
    if wrong:
        raise TypeError(f"{key} of {name!r} must be a list of {items}, not {type(value).__name__}")


def _check_mapping(name: str, key: str, value: object) -> None:
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise TypeError(f"{key} of {name!r} must be a dict with names as keys, not {kind}")


def _check_grid(item: ImageGrid) -> None:
    _check_list(item.name, "rows", item.rows, "tensors (n, C, H, W)")
    _check_tensors(item.name, {f"row {i}": row for i, row in enumerate(item.rows)})
    if not (item.rows and all(map(_is_images, item.rows))):
        shapes = [tuple(row.shape) for row in item.rows]
        raise ValueError(f"rows of {item.name!r} must be (n, 1 or 3, H, W), not {shapes}")
    for row in item.captions:
        _check_list(item.name, "a row of captions", row, "strings")
        _check_texts(item.name, row)


def _check_scatter(item: Scatter) -> None:
    _check_tensors(item.name, {"points": item.points, **item.paths})
    count = len(item.points)
    if item.points.ndim != 2 or item.points.shape[1] != 2 or not count:
        raise ValueError(f"points of {item.name!r} must be (N, 2)")
    if item.labels is not None:
        _check_labels(item, item.labels)
    if item.images is not None:
        _check_tensors(item.name, {"images": item.images})
        if not (_is_images(item.images) and len(item.images) == count):
            raise ValueError(f"{item.name!r} must have one image (1 or 3, H, W) per point")
    if item.codes is not None:
        _check_tensors(item.name, {"codes": item.codes})
        if item.codes.ndim < 2 or len(item.codes) != count or not item.codes.numel():
            raise ValueError(f"{item.name!r} must have one code (D,) per point")
    if any(path.ndim != 2 or path.shape[1] != 2 for path in item.paths.values()):
        raise ValueError(f"paths of {item.name!r} must be (T, 2)")
    if item.plane is not None:
        if not isinstance(item.plane, Plane):
            kind = type(item.plane).__name__
            raise TypeError(f"plane of {item.name!r} must be a Plane, not {kind}")
        _check_tensors(item.name, {"plane": item.plane.images})
        if item.plane.images.ndim != 5 or not _is_images(item.plane.images.flatten(0, 1)):
            raise ValueError(f"plane of {item.name!r} must be (rows, columns, 1 or 3, H, W)")


def _check_labels(item: Scatter, labels: Tensor) -> None:
    _check_tensors(item.name, {"labels": labels})
    if labels.shape != (len(item.points),):
        raise ValueError(f"{item.name!r} must have one label per point")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels of {item.name!r} must be integers, not {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (item.classes and high >= len(item.classes)):
        expected = f"0 to {len(item.classes) - 1} for {len(item.classes)} classes"
        expected = expected if item.classes else "0 and above"
        raise ValueError(f"labels of {item.name!r} must be {expected}, not {low} to {high}")


def _check_lines(item: Lines) -> None:
    _check_tensors(item.name, {"x": item.x, **item.series})
    if item.x.ndim != 1:
        raise ValueError(f"x of {item.name!r} must be (n,), not {tuple(item.x.shape)}")
    if any(y.shape != item.x.shape for y in item.series.values()):
        raise ValueError(f"series of {item.name!r} must be as long as x")


def _check_bars(item: Bars) -> None:
    _check_list(item.name, "labels", item.labels, "strings")
    _check_texts(item.name, item.labels)
    for heights in item.series.values():
        if len(heights) != len(item.labels):
            raise ValueError(f"series of {item.name!r} must have one height per label")
        if not all(map(_is_number, heights)):
            raise TypeError(f"heights of {item.name!r} must be numbers, not {list(heights)}")


def _check_film(item: Film) -> None:
    if not 1 <= len(item.frames) <= FRAMES:
        raise ValueError(f"{item.name!r} must have 1 to {FRAMES} frames")
    for frame in item.frames:
        _check_list(item.name, "a frame", frame, "panels")
    if not item.frames[0]:
        raise ValueError(f"frames of {item.name!r} must have at least one panel")
    for frame in item.frames:
        if [type(panel) for panel in frame] != [type(panel) for panel in item.frames[0]]:
            raise ValueError(f"all frames of {item.name!r} must have the same kinds of panels")
        for panel in frame:
            if not isinstance(panel, ImageGrid | Scatter | Bars):
                raise TypeError(f"a frame of {item.name!r} cannot contain a {type(panel).__name__}")
            _check(panel)


def _check_table(item: Table) -> None:
    if any(len(row) != len(item.columns) for row in item.rows):
        raise ValueError(f"rows of {item.name!r} must be as long as its columns")
    for cell in (cell for row in item.rows for cell in row):
        if not isinstance(cell, str | Real):
            raise TypeError(f"cells of {item.name!r} must be strings or numbers, not {cell!r}")


def _check_raw(item: Raw) -> None:
    if not re.fullmatch(r"\.[a-z0-9]+", item.suffix):
        raise ValueError(f"the suffix of {item.name!r} must be like '.svg', not {item.suffix!r}")
    file = f"{item.name}{item.suffix}"
    if file.lower() in RESERVED:
        raise ValueError(f"{file} is a file that LatentForge writes; give another name")
    if not isinstance(item.content, bytes):
        raise TypeError(f"content of {item.name!r} must be bytes")


def _check_tensors(name: str, values: Mapping[str, object]) -> None:
    from torch import Tensor

    for key, value in values.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise TypeError(f"{key} of {name!r} must be a tensor, not {kind}")


def is_text(value: object) -> bool:
    """Whether a value is an array of NumPy that contains texts."""
    kind = getattr(value, "dtype", None)
    return getattr(kind, "kind", "") == "U"


def _check_texts(name: str, texts: Collection[object]) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"titles and labels of {name!r} must be strings, not {text!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or getattr(value, "ndim", None) == 0


def _is_images(x: Tensor) -> bool:
    return x.ndim == 4 and x.numel() > 0 and x.shape[1] in (1, 3)
