"""How much memory this process and its device can still take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")


def in_words(size: int) -> str:
    """Bytes as people say them: 47 MB, 10.5 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def device_memory(device: torch.device) -> int:
    """Bytes that are free on a CUDA device, or kept by torch of what it has freed."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def host_memory() -> int:
    """Bytes that this process can still take: the least of what the machine, its cgroup (the limit
    of a container or a scheduler) and its own limits leave."""
    machine: int = psutil.virtual_memory().available
    return max(0, min([machine, *_cgroup(), *_own_limits()]))


def _cgroup() -> list[int]:
    """Version 2 at the process's own place, or what a container sees as the root; version 1."""
    found = []
    own = ""
    with suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text().strip().split("::")[1].split("\n")[0]
    for folder, limit, used in (
        (CGROUP / own.lstrip("/"), "memory.max", "memory.current"),
        (CGROUP, "memory.max", "memory.current"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such limit, or "max"
            most = int((folder / limit).read_text())
            cached = _statistic(folder / "memory.stat")  # which gives way
            found.append(most - int((folder / used).read_text()) + cached)
    return found


def _statistic(path: Path) -> int:
    """The bytes of files that a cgroup keeps in memory."""
    names = {"file", "total_cache"}
    with suppress(OSError, ValueError):
        pairs = (line.split() for line in path.read_text().splitlines())
        return max((int(value) for name, value in pairs if name in names), default=0)
    return 0


def _own_limits() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    taken = psutil.Process().memory_info()
    used = {resource.RLIMIT_AS: taken.vms, resource.RLIMIT_DATA: getattr(taken, "data", 0)}
    limits = {kind: resource.getrlimit(kind)[0] for kind in used}
    return [most - used[kind] for kind, most in limits.items() if most != resource.RLIM_INFINITY]
