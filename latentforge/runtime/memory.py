"""How much memory this process and its device can still take."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch


def in_words(size: int) -> str:
    """Bytes as people say them: 47 MB, 10.5 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def device_memory(device: torch.device) -> int:
    """Bytes that are free on a CUDA device, or kept by torch of what it has freed."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def host_memory() -> int:
    """Bytes that this process can still take: of the machine, of its cgroup (a container's or a
    scheduler's limit) and of its own limits, the least."""
    room = [*_machine(), *_cgroup(), *_own_limits()]
    return max(0, min(room, default=sys.maxsize))


def _machine() -> list[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return [int(line.split()[1]) * 1024]
    with suppress(OSError, ValueError, AttributeError):  # macOS does not say what is free
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return []


def _cgroup() -> list[int]:
    """Version 2 at the process's own place, or what a container sees as the root; version 1."""
    found = []
    own = ""
    with suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text().strip().split("::")[1].split("\n")[0]
    root = Path("/sys/fs/cgroup")
    for folder, limit, used in (
        (root / own.lstrip("/"), "memory.max", "memory.current"),
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
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
    found = []
    for kind, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        most = resource.getrlimit(kind)[0]
        if most == resource.RLIM_INFINITY:
            continue
        taken = 0
        with suppress(OSError, ValueError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    taken = int(line.split()[1]) * 1024
        found.append(most - taken)
    return found
