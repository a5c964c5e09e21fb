"""Decides whether images are streamed or kept in memory (`data.stream`)."""

from __future__ import annotations

from latentforge.config.schema import DataConfig
from latentforge.runtime.memory import format_bytes

SHARE = 0.5
"""The share of the free memory that images may take. Cutting them into splits copies them once, so
twice as much is needed for a short time, and a model needs some too."""


def streaming_reason(config: DataConfig, size: int, available: int, memory: str) -> str:
    """The reason to stream images of `size` bytes, given the free bytes of `memory`; empty if there
    is none."""
    if config.stream == "always":
        return "data.stream is always"
    if config.stream == "never" or size <= SHARE * available:
        return ""
    return f"{format_bytes(size)} is more than half of {format_bytes(available)}, the free {memory}"
