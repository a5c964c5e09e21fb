"""Prepares vectors and signals for panels of curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from latentforge.contracts import DataSpec

CHANNELS = 6  # maximum number of channels that are drawn


class CurveRows(NamedTuple):
    """Examples as curves. `channels` says which channels they are if some are left out, and
    `values` in brackets that the values are standardized; both may be empty."""

    rows: list[Tensor]  # (n, C, L) each
    channels: str
    values: str
    x_title: str


def select_curves(
    data: DataSpec, rows: Sequence[Tensor], *, panel_per_channel: bool = False
) -> CurveRows:
    """Return rows of vectors or signals (n, *data.shape) as curves of at most CHANNELS channels, in
    the units of the data. Values of a vector, and channels that share a panel, have different units
    and stay standardized if they are."""
    one_unit = data.shape[0] == 1 or (data.kind == "signal" and panel_per_channel)
    standardized = data.scaling is not None and not one_unit
    if not standardized:
        rows = [data.restore(row) for row in rows]
    rows = [row if row.ndim == 3 else row.unsqueeze(1) for row in rows]
    channels = rows[0].shape[1]
    return CurveRows(
        [row[:, :CHANNELS] for row in rows],
        f"the first {CHANNELS} of {channels} channels" if channels > CHANNELS else "",
        " (standardized values)" if standardized else "",
        "position" if data.kind == "signal" else "index",
    )
