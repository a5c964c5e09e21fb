"""Formats numbers and dates for the report, and reads JSON lines files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from latentforge.io.atomic import parse_json, read_lines


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


def read_objects(path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    """Read the objects of a JSON lines file. A damaged line is skipped and adds a warning."""
    try:
        texts = read_lines(path)
    except (OSError, ValueError) as error:
        warnings.append(f"{path} cannot be read: {error}")
        return []
    objects = []
    for i, text in enumerate(texts, 1):
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        if isinstance(line, dict):
            objects.append(line)
        else:
            warnings.append(f"{path}: line {i} is damaged and skipped")
    return objects
