"""Writes findings to files: PNG, GIF, HTML, CSV, .npz, TensorBoard, and findings.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from matplotlib.figure import Figure

from latentforge.errors import UsageError
from latentforge.findings import (
    Bars,
    CurveGrid,
    Film,
    Finding,
    Findings,
    Histogram,
    ImageGrid,
    Lines,
    NamedArrays,
    Raw,
    Scatter,
    Table,
)
from latentforge.io.npz import write_whole
from latentforge.io.paths import as_cell, as_text
from latentforge.rendering.animation import draw_frames, gif
from latentforge.rendering.charts import draw_bars, draw_histogram, draw_lines
from latentforge.rendering.curve_grid import draw_curves
from latentforge.rendering.filmstrip import create_sheet, create_strip
from latentforge.rendering.findings_store import pack, write_summary
from latentforge.rendering.fonts import readable_text
from latentforge.rendering.image_grid import draw_grid
from latentforge.rendering.images import Array
from latentforge.rendering.scatter import draw_scatter
from latentforge.rendering.tensorboard_projector import projector_notes, write_projector


def write_findings(findings: Findings, folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write every finding into `folder`, findings.json with the metrics and `about`, and the files
    for TensorBoard. Returns the written files, except the files for TensorBoard. Raises OSError if
    the folder cannot be written."""
    from latentforge.rendering.tensorboard import write_board  # its import takes half a second

    findings = add_notes(findings)
    files = [
        write_finding(item, folder, describe_source(about, findings.roles.get(item.name, "")))
        for item in findings.items
    ]
    write_projector(findings, folder)
    write_board(findings, files, folder, str(about.get("explorer", folder.name)))
    summary = write_summary(folder, about, findings, files)
    return [*(file for item_files in files for file in item_files), summary]


def describe_source(about: dict[str, Any], role: str = "") -> str:
    """The run and the checkpoint that a finding is from, the class under which it was made, and the
    inference options that are not those of the run. With `role`, the run in this role, which has
    its own inference options, and its checkpoint."""
    run, checkpoint, sampler = about["run"], about.get("checkpoint"), about.get("other_sampler", {})
    if role in about.get("roles", {}):
        run, checkpoint = about["roles"][role], about.get("role_checkpoints", {}).get(role)
        sampler = {}
    given = [f"condition {about['condition']}"] if "condition" in about else []
    given += [f"sampler.{key}={value}" for key, value in sampler.items()]
    return as_text(", ".join(str(part) for part in (run, checkpoint, *given) if part))


def add_notes(findings: Findings) -> Findings:
    """Add a note, unless it exists, for each map that TensorBoard cannot show completely."""
    new_notes = [note for note in projector_notes(findings.items) if note not in findings.notes]
    return replace(findings, notes=[*findings.notes, *new_notes])


def write_finding(item: Finding, folder: Path, note: str) -> list[Path]:
    """Write the files of one finding, the main one first; `note` states the finding's source.
    Raises UsageError if a file already exists, OSError if one cannot be written."""
    with readable_text():
        files = [
            _write(folder / f"{item.name}{suffix}", content)
            for suffix, content in encode_files(item, note)
        ]
    if isinstance(item, Scatter):
        from latentforge.rendering.html.page import write_page  # plotly is slow to import

        page = folder / f"{item.name}.html"
        write_page(item, page, note)
        files.append(page)
    if arrays := pack(item)[1]:
        files.append(_write(folder / f"{item.name}.npz", npz(arrays)))
    return files


def encode_files(item: Finding, note: str) -> Iterator[tuple[str, bytes]]:
    """The viewable files of a finding: suffix and content."""
    match item:
        case NamedArrays():
            return
        case Raw():
            yield item.suffix, item.content
        case Table():
            text = io.StringIO(newline="")
            rows = [[as_cell(cell) for cell in row] for row in (item.columns, *item.rows)]
            csv.writer(text).writerows(rows)
            yield ".csv", text.getvalue().encode()
        case Film():
            frames = draw_frames(item, note)
            yield ".gif", gif(frames)
            grid = create_strip(item)
            yield ".png", png(grid, note) if grid else create_sheet(frames)
        case _:
            yield ".png", png(item, note)


def png(item: Drawable, note: str) -> bytes:
    buffer = io.BytesIO()
    draw(item, note).savefig(buffer, format="png")
    return buffer.getvalue()


def npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            write_whole(archive, key, array)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> Path:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise UsageError(
            f"{path} already exists and will not be overwritten", hint="choose another folder"
        ) from None
    return path


Drawable = ImageGrid | CurveGrid | Scatter | Lines | Bars | Histogram


def draw(item: Drawable, note: str = "") -> Figure:
    """Draw a finding as a figure with `note` at the bottom; `figure.savefig(path)` writes it."""
    match item:
        case ImageGrid():
            return draw_grid(item, note)
        case CurveGrid():
            return draw_curves(item, note)
        case Scatter():
            return draw_scatter(item, note)
        case Lines():
            return draw_lines(item, note)
        case Bars():
            return draw_bars(item, note)
        case Histogram():
            return draw_histogram(item, note)
