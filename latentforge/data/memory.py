"""Decides whether images are streamed or kept in memory (`data.stream`, `data.workers`)."""

from __future__ import annotations

from latentforge.config.schema import DataConfig
from latentforge.runtime.memory import in_words

SHARE = 0.5
"""Of the memory that is there, what images may take: cutting them into splits copies them once, so
twice as much is needed for a moment, and a model wants some too."""


def why_streamed(config: DataConfig, size: int, room: int, memory: str) -> str:
    """Why images of `size` bytes are streamed, in words, where `room` bytes of `memory` are free;
    empty where they are not."""
    if config.stream == "always":
        return "data.stream is always"
    if config.stream == "never" or size <= SHARE * room:
        return ""
    return f"{in_words(size)} is more than half of {in_words(room)}, the free {memory}"
