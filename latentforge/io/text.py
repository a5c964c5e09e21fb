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


def counted(number: float, noun: str, plural: str = "") -> str:
    """Return `1 step` or `2 steps`. The plural ends in -s, or in -es after s and x, unless it is
    given."""
    text = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{text} {pluralized(number, noun, plural)}"


def pluralized(number: float, noun: str, plural: str = "") -> str:
    """Return a noun in the form that follows a number: `step` after 1, or else `steps`."""
    ending = "es" if noun.endswith(("s", "x")) else "s"
    return noun if number == 1 else plural or noun + ending


def are(number: float) -> str:
    return "is" if number == 1 else "are"


def were(number: float) -> str:
    return "was" if number == 1 else "were"
