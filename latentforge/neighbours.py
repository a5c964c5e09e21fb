"""Exact nearest-neighbour search by Euclidean distance, with bounded memory, and majority votes.

For measures and explorers. torch is imported only when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DISTANCES = 2**22  # the number of distances in memory at once; 32 MB in float64


def topk(
    queries: Tensor,
    rows: Tensor | Iterable[Tensor],
    k: int,
    *,
    own: Tensor | None = None,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return distances and positions of the `k` nearest rows of each query, (Q, k), nearest first.

    `queries`: (Q, D). `rows`: (N, D), or consecutive parts of it. Ties are in the order of the
    rows. `own`: int64 (Q,), the row to exclude for each query, because it is the query itself.
    Distances are computed with a matrix product, which is inaccurate for distances far below the
    norm of the rows. `exact` computes them from differences, up to ten times more slowly.
    """
    import torch

    if own is None:
        own = torch.full((len(queries),), -1, device=queries.device)
    if isinstance(rows, torch.Tensor):
        size = max(1, DISTANCES // len(rows))
        pairs = zip(torch.split(queries, size), torch.split(own, size), strict=True)
        found = [topk(part_queries, [rows], k, own=at, exact=exact) for part_queries, at in pairs]
        distances, indices = zip(*found, strict=True)
        return torch.cat(distances), torch.cat(indices)
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist_if_necessary"
    nearest = queries.new_empty(len(queries), 0)
    positions = own.new_empty(len(queries), 0)
    start = 0
    for part in rows:
        distance = torch.cdist(queries, part, compute_mode=mode)  # (Q, B)
        inside = ((own >= start) & (own < start + len(part))).nonzero().squeeze(1)
        distance[inside, own[inside] - start] = torch.inf
        near, at = _smallest(distance, k)
        nearest, selected = _smallest(torch.cat([nearest, near], 1), k)
        positions = torch.cat([positions, at + start], 1).gather(1, selected)
        start += len(part)
    return nearest, positions


def _smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` smallest values of each row and their columns; ties are in column order."""
    found, columns = values.topk(min(k + 1, values.shape[1]), largest=False)
    if found.shape[1] > k:
        tied = found[:, k] == found[:, k - 1]  # topk returns arbitrary ones of the tied values
        columns[tied] = values[tied].sort(dim=1, stable=True).indices[:, : k + 1]
    columns = columns[:, :k].sort(1).values
    found, order = values.gather(1, columns).sort(dim=1, stable=True)
    return found, columns.gather(1, order)


def majority(labels: Tensor, classes: int) -> Tensor:
    """Return the most frequent label of each row (Q, k), or in a tie the smallest of them: (Q,)."""
    from torch.nn.functional import one_hot

    return one_hot(labels, classes).sum(1).argmax(1)
