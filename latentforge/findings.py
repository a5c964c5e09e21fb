"""The vocabulary of findings: what an explorer saw, for the core to draw and to write.

Tensors may lie on any device. `latentforge/drawing/` turns findings into files.
"""

from __future__ import annotations

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
    """What an explorer returns: things to draw, and figures by name."""

    items: Sequence[Finding]
    metrics: Mapping[str, float] = field(default_factory=dict)
