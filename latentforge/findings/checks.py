"""Validation of findings, which names the finding and the field that is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING

from latentforge.findings.kinds import (
    FRAMES,
    Bars,
    CurveGrid,
    Film,
    Finding,
    Findings,
    Histogram,
    ImageGrid,
    Lines,
    NamedArrays,
    Plane,
    Raw,
    Scatter,
    Table,
)

if TYPE_CHECKING:
    from torch import Tensor

LISTS = {
    "column_titles": "strings",
    "row_titles": "strings",
    "captions": "lists of strings",
    "classes": "strings",
    "axes": "strings",
    "columns": "strings",
    "curves": "strings",
    "frames": "lists of panels",
    "frame_titles": "strings",
}
"""The list fields of all findings, and the type of their elements."""

RESERVED = ("findings.json", "projector_config.pbtxt")
"""File names that the core itself uses next to the files of findings."""


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
    for key in ("title", "x_title", "y_title", "values_title"):
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
        case CurveGrid():
            _check_curves(item)
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


def _check_curves(item: CurveGrid) -> None:
    _check_list(item.name, "rows", item.rows, "lists of tensors (n, C, L)")
    for row in item.rows:
        _check_list(item.name, "a row", row, "tensors (n, C, L)")
    for captions in item.captions:
        _check_list(item.name, "a row of captions", captions, "strings")
        _check_texts(item.name, captions)
    panels = [panel for row in item.rows for panel in row]
    _check_tensors(item.name, {f"panel {i}": panel for i, panel in enumerate(panels)})
    if not (all(item.rows) and panels and all(p.ndim == 3 and p.numel() for p in panels)):
        shapes = [tuple(panel.shape) for panel in panels]
        raise ValueError(f"panels of {item.name!r} must be (n, C, L), not {shapes}")
    if len({len(panel) for panel in panels}) > 1:
        raise ValueError(f"all panels of {item.name!r} must have the same number of curves")
    if item.ends and len(panels[0]) < 3:
        raise ValueError(f"panels of {item.name!r} with `ends` must have at least 3 curves")
    if item.curves and len(item.curves) != len(panels[0]):
        raise ValueError(f"{item.name!r} must have one name in `curves` per curve")


def _check_scatter(item: Scatter) -> None:
    _check_tensors(item.name, {"points": item.points, **item.paths})
    count = len(item.points)
    if item.points.ndim != 2 or item.points.shape[1] != 2 or not count:
        raise ValueError(f"points of {item.name!r} must be (N, 2)")
    if item.labels is not None:
        _check_labels(item, item.labels)
    if item.values is not None:
        _check_tensors(item.name, {"values": item.values})
        if item.values.shape != (count,) or not item.values.isfinite().all():
            raise ValueError(f"{item.name!r} must have one finite value per point")
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
