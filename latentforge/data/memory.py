"""Decides whether images are streamed or kept in memory (`data.stream`)."""

from __future__ import annotations

from latentforge.config.schema import DataConfig
from latentforge.runtime.memory import format_bytes

MAX_FRACTION = 0.5
"""The fraction of the free memory that images may use. Splitting the dataset copies the images
once, which doubles their memory for a short time, and a model needs memory too."""


def streaming_reason(config: DataConfig, size: int, available: int, memory: str) -> str:
    """Return the reason to stream images of `size` bytes, or an empty string. `available` is the
    number of free bytes of `memory`."""
    if config.stream == "always":
        return "data.stream is always"
    if config.stream == "never" or size <= MAX_FRACTION * available:
        return ""
    return f"{format_bytes(size)} is more than half of {format_bytes(available)}, the free {memory}"
