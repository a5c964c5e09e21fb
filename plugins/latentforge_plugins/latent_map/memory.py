"""The number of points that a projection can process in the free memory."""

from __future__ import annotations

SHARE = 0.8  # fraction of the free memory that a projection may use
FIXED = 64 * 2**20  # bytes for the grid of the Fourier transform and for libraries
PER_NEIGHBOUR = 60  # bytes for its index and distance, twice in a sparse matrix, and for copies
PER_POINT = 1000  # bytes for the trees of the neighbour search


def max_points(dimensions: int, perplexity: float, free: int) -> int:
    """Return the number of points that t-SNE or PaCMAP can process with `free` bytes."""
    per_point = PER_POINT + 3 * perplexity * PER_NEIGHBOUR + 4 * 8 * dimensions
    return max(0, int((SHARE * free - FIXED) / per_point))
