"""Stores findings in a folder and reads them back.

Text and small numbers are stored in findings.json, tensors in an .npz file per finding. Image
grids, animations and raw files are not read back as findings; only their files are listed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentforge.errors import MissingError, UsageError, one_line
from latentforge.findings import (
    Bars,
    Finding,
    Findings,
    Histogram,
    Lines,
    NamedArrays,
    Plane,
    Scatter,
    Table,
    checked,
)
from latentforge.io.atomic import is_outside, read_json
from latentforge.io.checksum import KEY, add_checksum, is_edited
from latentforge.io.npz import list_keys, open_archive, read_member
from latentforge.io.paths import write_json
from latentforge.rendering.images import Array, to_numpy, to_uint8

SUMMARY = "findings.json"
RESERVED = ("metrics", "protocol", "notes", "files", "items", KEY)  # the others are `about`
KINDS = {".png": "ImageGrid", ".npz": "NamedArrays"}  # for older folders, which store no kinds
RESTORED = ("Lines", "Histogram", "Bars", "Table", "Scatter")

log = logging.getLogger("latentforge")


@dataclass(frozen=True)
class StoredItem:
    """A stored finding and its files, the main one first. `finding` is set for the kinds that are
    read back: Lines, Bars, Histogram, Table and Scatter."""

    kind: str
    name: str
    title: str
    files: list[Path]
    finding: Finding | None = None


@dataclass(frozen=True)
class StoredFindings:
    """Stored findings of an explorer. `about` contains its options, run, roles and checkpoint."""

    about: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
    notes: list[str] = field(default_factory=list)
    items: list[StoredItem] = field(default_factory=list)


def pack(item: Finding) -> tuple[dict[str, Any], dict[str, Array]]:
    """Split the content of a finding, except its name and title, into JSON values and arrays."""
    values: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    match item:
        case NamedArrays():
            arrays = {
                k: v if isinstance(v, np.ndarray) else to_numpy(v) for k, v in item.arrays.items()
            }
        case Lines():
            values = {"series": list(item.series), "x_title": item.x_title, "y_title": item.y_title}
            arrays = {"x": to_numpy(item.x), **_number_tensors("y", item.series)}
        case Histogram():
            values = {"panels": list(item.panels), "x_title": item.x_title, "normal": item.normal}
            arrays = _number_tensors("values", item.panels)
        case Bars():
            series = {name: [float(y) for y in heights] for name, heights in item.series.items()}
            values = {"labels": list(item.labels), "series": series, "y_title": item.y_title}
        case Table():
            rows = [[_to_json_value(cell) for cell in row] for row in item.rows]
            values = {"columns": list(item.columns), "rows": rows}
        case Scatter():
            arrays = {"points": to_numpy(item.points), **_number_tensors("path", item.paths)}
            for key in ("labels", "codes", "values"):
                if (tensor := getattr(item, key)) is not None:
                    arrays[key] = to_numpy(tensor)
            values = {key: list(getattr(item, key)) for key in ("classes", "axes", "paths")}
            values |= {"values_title": item.values_title} if item.values is not None else {}
            if item.images is not None:
                arrays["images"] = to_uint8(item.images)
            if item.plane is not None:
                arrays["plane"] = to_uint8(item.plane.images)
                values["plane"] = [list(item.plane.x), list(item.plane.y)]
    return values, arrays


def _number_tensors(key: str, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Store tensors under numbered keys, because their names may contain any characters."""
    return {f"{key}_{i}": to_numpy(tensor) for i, tensor in enumerate(tensors.values())}


def _to_json_value(value: Any) -> str | int | float:
    if isinstance(value, str | int):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def write_summary(
    folder: Path, about: Mapping[str, Any], findings: Findings, files: Sequence[Sequence[Path]]
) -> Path:
    """Write findings.json; `files` are the files of each finding."""
    items = [
        {
            "kind": "Arrays" if isinstance(item, NamedArrays) else type(item).__name__,  # as stored
            "name": item.name,
            "title": getattr(item, "title", ""),
            "files": [file.name for file in item_files],
            **pack(item)[0],
        }
        for item, item_files in zip(findings.items, files, strict=True)
    ]
    content = {
        **about,
        "metrics": dict(findings.metrics),
        "protocol": findings.protocol,
        "notes": list(findings.notes),
        "files": [file.name for item_files in files for file in item_files],
        "items": items,
    }
    write_json(folder / SUMMARY, add_checksum(content))
    return folder / SUMMARY


def read_findings(folder: Path) -> StoredFindings:
    """Read the findings that `write_findings` wrote into a folder, with tensors on the CPU and
    images in [0, 1].

    Raises MissingError if findings.json or a file that it names is missing, and UsageError if one
    is damaged. Both errors name the file. Nothing is unpickled.
    """
    path = folder / SUMMARY
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist", hint="latentforge explore ...") from None
    except (OSError, ValueError) as error:
        raise _create_error(path, error) from None
    try:
        if is_edited(content):
            log.warning("%s was edited after it was written: its metrics may be wrong", path)
        return StoredFindings(
            about={key: value for key, value in content.items() if key not in RESERVED},
            metrics={name: _to_float(value) for name, value in content["metrics"].items()},
            protocol=str(content.get("protocol", "")),
            notes=[str(note) for note in content.get("notes", [])],
            items=[_read_item(folder, entry) for entry in _list_entries(content)],
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _create_error(path, error) from None


def _create_error(path: Path, error: BaseException) -> UsageError:
    return UsageError(
        f"{path} is truncated or damaged",
        details=[one_line(error)],
        hint="delete the folder and run `latentforge explore` again",
    )


def _list_entries(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of the findings. Older folders list only files, one per finding."""
    if "items" in content:
        return list(content["items"])
    return [
        {"kind": KINDS.get(p.suffix, "Raw"), "name": p.stem, "title": p.stem, "files": [p.name]}
        for p in map(Path, content.get("files", []))
    ]


def _read_item(folder: Path, entry: Mapping[str, Any]) -> StoredItem:
    files = [_check_file(folder, name) for name in entry["files"]]
    kind, name, title = (str(entry[key]) for key in ("kind", "name", "title"))
    finding = None
    if kind in RESTORED:
        finding = _unpack(kind, name, title, entry, _read_arrays(files))
        finding = checked(Findings([finding])).items[0]
    return StoredItem(kind, name, title, files, finding)


def _check_file(folder: Path, name: str) -> Path:
    """Return the path of an existing file in the folder. Raises ValueError if `name` is not a plain
    file name, UsageError if it is a link out of the folder, and MissingError if there is no such
    file."""
    if not name or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file in this folder")
    path = folder / name
    if is_outside(path, folder):
        raise UsageError(f"{path} is a link to a place outside the folder")
    if not path.is_file():
        raise MissingError(f"{path} does not exist", hint="run `latentforge explore` again")
    return path


def _read_arrays(files: Sequence[Path]) -> dict[str, Tensor]:
    for path in files:
        if path.suffix == ".npz":
            with open_archive(path, "findings") as archive:
                return {
                    key: torch.from_numpy(read_member(archive, path, key).values().copy())
                    for key in list_keys(archive)
                }
    return {}


def _to_float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _unpack(
    kind: str, name: str, title: str, entry: Mapping[str, Any], arrays: dict[str, Tensor]
) -> Finding:
    def numbered(key: str, names: Sequence[str]) -> dict[str, Tensor]:
        return {name: arrays[f"{key}_{i}"] for i, name in enumerate(names)}

    match kind:
        case "Lines":
            series = numbered("y", entry["series"])
            return Lines(name, title, arrays["x"], series, entry["x_title"], entry["y_title"])
        case "Histogram":
            panels = numbered("values", entry["panels"])
            return Histogram(name, title, panels, entry["x_title"], entry["normal"])
        case "Bars":
            bars = {key: [_to_float(y) for y in values] for key, values in entry["series"].items()}
            return Bars(name, title, entry["labels"], bars, entry["y_title"])
        case "Table":
            rows = [[_to_float(c) if c is None else c for c in row] for row in entry["rows"]]
            return Table(name, title, entry["columns"], rows)
    plane = None
    if "plane" in entry:
        x, y = ((float(first), float(last)) for first, last in entry["plane"])
        plane = Plane(arrays["plane"].float() / 255, x, y)
    first, second = entry["axes"]
    return Scatter(
        name,
        title,
        points=arrays["points"],
        labels=arrays.get("labels"),
        classes=entry["classes"],
        images=arrays["images"].float() / 255 if "images" in arrays else None,
        plane=plane,
        paths=numbered("path", entry["paths"]),
        codes=arrays.get("codes"),
        axes=(first, second),
        values=arrays.get("values"),
        values_title=entry.get("values_title", ""),
    )
