"""The vocabulary of findings: what an explorer saw, for the core to draw and to write.

Tensors may lie on any device. `latentforge/drawing/` turns findings into files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageGrid:
    """Rows of images, each row (n, C, H, W) with values in [0, 1]; C is 1 (grey) or 3 (RGB)."""

    name: str  # the file's name, without a suffix
    title: str
    rows: Sequence[Tensor]
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()


@dataclass(frozen=True)
class Arrays:
    """Numbers for further work, written as one .npz."""

    name: str
    arrays: Mapping[str, Tensor]


Finding = ImageGrid | Arrays


@dataclass(frozen=True)
class Findings:
    """What an explorer returns: things to draw, and figures by name with the sentence that says
    what they are."""

    items: Sequence[Finding]
    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: str = ""


def checked(findings: object) -> Findings:
    """What an explorer returned, if it can be drawn and written; else TypeError or ValueError."""
    if not isinstance(findings, Findings):
        raise TypeError(f"an explorer must return Findings, not {type(findings).__name__}")
    names = [item.name for item in findings.items]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):  # it becomes a file's name
            raise ValueError(f"a finding's name has letters, digits, '-' and '_', not {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"two findings are called {name!r}")
    for item in findings.items:
        if isinstance(item, ImageGrid) and not (item.rows and all(map(_is_row, item.rows))):
            shapes = [tuple(row.shape) for row in item.rows]
            raise ValueError(f"rows of {item.name!r} must be (n, 1 or 3, H, W), not {shapes}")
        if not isinstance(item, ImageGrid | Arrays):
            raise TypeError(f"{type(item).__name__} is no finding")
    metrics = {name: float(value) for name, value in findings.metrics.items()}
    return Findings(findings.items, metrics, findings.protocol)


def _is_row(row: Tensor) -> bool:
    return row.ndim == 4 and len(row) > 0 and row.shape[1] in (1, 3)
