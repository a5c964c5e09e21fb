"""What a command has written."""

from __future__ import annotations

from pathlib import Path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def is_png(path: str | Path) -> bool:
    return Path(path).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
