"""What several folders of one explorer found, side by side: wide pictures take the whole width,
below each other, and what lies between them stands in two columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

COLUMNS = 2


@dataclass(frozen=True)
class Block:
    """A piece of the page; `key` is the same for what other folders have in its place."""

    key: str
    html: Markup
    wide: bool = False


@dataclass
class Part:
    """Blocks of one entry that stand together, and where; all of a column, or one wide one."""

    row: int
    column: int
    wide: bool = False
    blocks: list[Block] = field(default_factory=list)


def arranged(entries: Sequence[Any]) -> list[tuple[Any, list[Part]]]:
    """The parts of each entry: first one without blocks, for its heading, then the others.

    On a page wide enough they make a grid: the headings in columns, what follows in columns, then
    a row for the wide picture of each entry, then columns again. Read in order they are the entry.
    """
    keys = {block.key for entry in entries for block in entry.blocks if block.wide}
    lines = -(-len(entries) // COLUMNS)  # rows of columns
    band = lines + len(entries)  # and after them those of wide pictures
    return [(entry, _parts(entry, i, keys, lines, band)) for i, entry in enumerate(entries)]


def _parts(entry: Any, i: int, wide: set[str], lines: int, band: int) -> list[Part]:
    line, column = i // COLUMNS + 1, i % COLUMNS + 1
    parts = [Part(line, column)]
    for block in entry.blocks:
        above = lines + band * sum(part.wide for part in parts)
        if block.key in wide:
            parts.append(Part(above + lines + i + 1, 1, True))
        elif parts[-1].wide or len(parts) == 1:
            parts.append(Part(above + line, column))
        parts[-1].blocks.append(block)
    return parts
