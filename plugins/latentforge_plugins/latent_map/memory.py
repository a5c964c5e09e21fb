"""How much memory there is, and how many points a projection can take with it."""

from __future__ import annotations

import os
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMITS = (  # of a container: what it may use, what it does use
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
SHARE = 0.8  # of the free memory that a projection may take
FIXED = 64 * 2**20  # the grid of the Fourier transform, and libraries
PER_NEIGHBOUR = 60  # bytes: its place and distance, twice in a sparse matrix, and copies
PER_POINT = 1000  # bytes: the trees in which neighbours are looked up


def available() -> int:
    """Bytes that can be had without swapping; half of the whole memory where Linux is not there to
    say more."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.M)
    except OSError:
        found = None
    free = int(found[1]) * 1024 if found else _whole() // 2
    containers = [_left(limit, used) for limit, used in LIMITS]
    return min([free, *(left for left in containers if left is not None)])


def _whole() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left(limit: Path, used: Path) -> int | None:
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return None


def most_points(dimensions: int, perplexity: float, free: int) -> int:
    """The points that t-SNE or PaCMAP can take with `free` bytes."""
    each = PER_POINT + 3 * perplexity * PER_NEIGHBOUR + 4 * 8 * dimensions
    return max(0, int((SHARE * free - FIXED) / each))
