"""Text from files and other libraries: order and printable form of names."""

from __future__ import annotations

import re


def escape_unprintable(name: str) -> str:
    """Escape characters that are not printable. File names may contain bytes that are not text,
    which a figure cannot show, and control codes for a terminal. Escaped names remain distinct."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Return a sort key that puts 2 before 10: the name with numbers as integers, then the name."""
    parts = re.split(r"([0-9]+)", name.casefold())  # text and numbers alternate
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
