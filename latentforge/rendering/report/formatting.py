"""Formats numbers and dates for the report, and reads JSON lines files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from latentforge.io.atomic import count_lines, iterate_lines, parse_json
from latentforge.io.checksum import KEY, is_edited
from latentforge.io.text import are, counted, were

MAX_WARNINGS = 20  # maximum number of damaged and edited lines that are named


def format_number(value: Any) -> str:
    """Format a number with five significant digits or as an integer; other values with str()."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.5g}"


def format_date(text: Any) -> str:
    """Format an ISO date as `20 Nov 2026, 14:50 UTC`."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%-d %b %Y, %H:%M UTC")
    except ValueError:
        return str(text)


def read_objects(path: Path, warnings: list[str], most: int = 0) -> list[dict[str, Any]]:
    """Read the objects of a JSON lines file, or about `most` of them, evenly spaced and with the
    last one. A damaged line is skipped and adds a warning, as does an edited line."""
    objects: list[dict[str, Any]] = []
    faults = 0

    def add_fault(number: int, what: str) -> None:
        nonlocal faults
        faults += 1
        if faults <= MAX_WARNINGS:
            warnings.append(f"{path}: line {number} {what}")

    try:
        count = count_lines(path)
        every = max(1, count // most) if most else 1
        for i, text in enumerate(iterate_lines(path), 1):
            if i % every and i < count:
                continue
            try:
                line = parse_json(text)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                add_fault(i, "is damaged and skipped")
                continue
            if is_edited(line):
                add_fault(i, "was edited after it was written")
            objects.append({key: value for key, value in line.items() if key != KEY})
    except (OSError, ValueError) as error:
        warnings.append(f"{path} cannot be read: {error}")
    if faults > MAX_WARNINGS:
        more = faults - MAX_WARNINGS
        lines = f"{counted(more, 'more line')} {are(more)}"
        warnings.append(f"{path}: {lines} damaged and skipped, or {were(more)} edited")
    return objects
