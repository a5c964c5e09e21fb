"""Draws vectors and signals: converts the rows of image grids to panels of curves and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from latentforge.contracts import DataSpec
from latentforge.findings import CurveGrid, Finding, ImageGrid, Table
from latentforge.rendering.curve_rows import select_curves

SHORT = 16  # vectors of at most this length also have a table of their values
COLUMNS = 6  # maximum number of separate examples per row
Style = Literal["steps", "between", "pairs", "examples"]
"""How the examples of a row are drawn: as steps of a sequence in one panel, as steps between two
examples of the data, each over the row that follows, which reconstructs it, or in a panel each."""


def as_curves(
    grid: ImageGrid, data: DataSpec, style: Style = "steps"
) -> tuple[list[Finding], list[str]]:
    """Return an image grid whose rows are vectors or signals (n, *data.shape) as panels of curves,
    with a table of the values of short vectors, and notes on what is not drawn."""
    in_steps = style in ("steps", "between")
    curves = select_curves(data, grid.rows, panel_per_channel=in_steps)
    rows = curves.rows
    notes = [f"{grid.name}: {curves.channels} are drawn"] if curves.channels else []
    if in_steps:
        drawn = draw_steps(grid, rows, ends=style == "between")
        if len(drawn.rows) < len(rows):
            notes.append(f"{grid.name}: {len(drawn.rows)} of {len(rows)} rows are drawn")
    else:
        drawn = draw_pairs(grid, rows) if style == "pairs" else draw_examples(grid, rows)
        if (most := max(map(len, rows))) > COLUMNS:
            notes.append(f"{grid.name}: {COLUMNS} of {most} examples per row are drawn")
    drawn = replace(drawn, title=f"{drawn.title}{curves.values}", x_title=curves.x_title)
    if data.kind != "vector" or data.size > SHORT:
        return [drawn], notes
    restored = replace(grid, rows=[data.restore(row) for row in grid.rows])
    return [drawn, make_table(restored)], notes


def draw_steps(grid: ImageGrid, rows: Sequence[Tensor], *, ends: bool) -> CurveGrid:
    """One panel for each row and channel, with a curve for each column. With `ends`, the first and
    the last column are data. Of rows some of which have no title, only those with a title are
    drawn."""
    titles = list(grid.row_titles)
    shown = [i for i, title in enumerate(titles) if title] or range(len(rows))
    count = min(len(rows[i]) for i in shown)
    channels = rows[0].shape[1]
    return CurveGrid(
        grid.name,
        f"{grid.title}; dashed: the data" if ends else grid.title,
        rows=[list(rows[i][:count].split(1, dim=1)) for i in shown],
        curves=list(grid.column_titles)[:count] if len(grid.column_titles) >= count else (),
        sequence=True,
        ends=ends,
        column_titles=[f"channel {c}" for c in range(channels)] if channels > 1 else (),
        row_titles=[titles[i] for i in shown] if titles else (),
    )


def draw_pairs(grid: ImageGrid, rows: Sequence[Tensor]) -> CurveGrid:
    """One panel for each example of every other row, with its reconstruction from the next row."""
    first, second = rows[::2], rows[1::2]
    names, errors = grid.captions[::2], grid.captions[1::2]
    return CurveGrid(
        grid.name,
        grid.title,
        rows=[
            [torch.stack(pair) for pair in zip(x[:COLUMNS], recon[:COLUMNS], strict=True)]
            for x, recon in zip(first, second, strict=True)
        ],
        curves=("data", "reconstruction"),
        row_titles=list(grid.row_titles[::2]),
        captions=[
            [f"{name}\n{error}" for name, error in zip(a[:COLUMNS], b[:COLUMNS], strict=True)]
            for a, b in zip(names, errors, strict=True)
        ],
    )


def draw_examples(grid: ImageGrid, rows: Sequence[Tensor]) -> CurveGrid:
    """One panel for each example."""
    return CurveGrid(
        grid.name,
        grid.title,
        rows=[[x[None] for x in row[:COLUMNS]] for row in rows],
        column_titles=list(grid.column_titles[:COLUMNS]),
        row_titles=list(grid.row_titles),
        captions=[list(row[:COLUMNS]) for row in grid.captions],
    )


def make_table(grid: ImageGrid) -> Table:
    """A row for each vector of a grid, with its titles and captions before its values."""
    columns = [f"value {i}" for i in range(grid.rows[0].shape[1])]
    texts = {"row": grid.row_titles, "column": grid.column_titles, "caption": grid.captions}
    used = [name for name, given in texts.items() if given]
    rows: list[list[str | float]] = []
    group = ""
    for r, row in enumerate(grid.rows):
        group = grid.row_titles[r] if r < len(grid.row_titles) and grid.row_titles[r] else group
        captions = grid.captions[r] if r < len(grid.captions) else ()
        for c, values in enumerate(row.tolist()):
            titles = grid.column_titles
            cells = {
                "row": group,
                "column": titles[c] if c < len(titles) else "",
                "caption": captions[c] if c < len(captions) else "",
            }
            rows.append([*(cells[name] for name in used), *(round(v, 6) for v in values)])
    return Table(f"{grid.name}-values", f"Values: {grid.title}", [*used, *columns], rows)
