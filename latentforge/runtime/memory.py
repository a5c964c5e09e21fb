"""Measures the memory that is available to this process, on the host and on a CUDA device."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")


def format_bytes(size: int) -> str:
    """Format a number of bytes: 47 MB, 10.5 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def device_memory(device: torch.device) -> int:
    """The available bytes on a CUDA device: free bytes, and bytes that torch has reserved but not
    allocated."""
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + reserved


def host_memory() -> int:
    """The bytes that this process can still allocate: the minimum over the machine, the process's
    cgroup (the limit of a container or a scheduler) and its resource limits."""
    machine: int = psutil.virtual_memory().available
    return max(0, min([machine, *_cgroup_memory(), *_resource_limits()]))


def _cgroup_memory() -> list[int]:
    """The bytes that are available in each cgroup with a limit: version 2 at the process's path,
    version 2 at the root (the path in a container), and version 1."""
    available = []
    group = ""
    with suppress(OSError, IndexError):
        group = Path("/proc/self/cgroup").read_text().strip().split("::")[1].split("\n")[0]
    for folder, limit, used in (
        (CGROUP / group.lstrip("/"), "memory.max", "memory.current"),
        (CGROUP, "memory.max", "memory.current"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such limit, or "max"
            maximum = int((folder / limit).read_text())
            cached = _page_cache(folder / "memory.stat")  # the kernel frees it when needed
            available.append(maximum - int((folder / used).read_text()) + cached)
    return available


def _page_cache(path: Path) -> int:
    """The bytes of the page cache of a cgroup."""
    names = {"file", "total_cache"}
    with suppress(OSError, ValueError):
        pairs = (line.split() for line in path.read_text().splitlines())
        return max((int(value) for name, value in pairs if name in names), default=0)
    return 0


def _resource_limits() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    memory = psutil.Process().memory_info()
    used = {resource.RLIMIT_AS: memory.vms, resource.RLIMIT_DATA: getattr(memory, "data", 0)}
    limits = [(resource.getrlimit(kind)[0], size) for kind, size in used.items()]
    return [limit - size for limit, size in limits if limit != resource.RLIM_INFINITY]
