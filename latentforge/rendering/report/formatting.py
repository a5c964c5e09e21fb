"""How the report writes numbers, dates and commands, and reads files of lines."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from latentforge.io.atomic import parse_json, read_lines


def number(value: Any) -> str:
    """Five digits; whole numbers whole; what is no number as it is."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.5g}"


def short_date(text: Any) -> str:
    """An ISO date as `20 Nov 2026, 14:50 UTC`."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%-d %b %Y, %H:%M UTC")
    except ValueError:
        return str(text)


def read_objects(path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; a broken line is left out, and said."""
    try:
        texts = read_lines(path)
    except (OSError, ValueError) as error:
        warnings.append(f"{path} cannot be read: {error}")
        return []
    found = []
    for i, text in enumerate(texts, 1):
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        if isinstance(line, dict):
            found.append(line)
        else:
            warnings.append(f"{path}: line {i} is broken and left out")
    return found
