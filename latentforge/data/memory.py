"""Decides whether images are streamed or kept in memory (`data.stream`, `data.workers`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from latentforge.runtime.memory import in_words

SHARE = 0.5
"""Of the memory that is there, what images may take: cutting them into splits copies them once, so
twice as much is needed for a moment, and a model wants some too."""


@dataclass(frozen=True)
class Streaming:
    """`mode`: auto streams what is larger than a share of the memory. `workers`: processes that
    read ahead."""

    mode: Literal["auto", "always", "never"] = "auto"
    workers: int = 0

    def why(self, size: int, room: int, memory: str) -> str:
        """Why images of `size` bytes are streamed, in words, where `room` bytes of `memory` are
        free; empty where they are not."""
        if self.mode == "never":
            return ""
        if self.mode == "always":
            return "data.stream is always"
        if size <= SHARE * room:
            return ""
        return f"{in_words(size)} is more than half of {in_words(room)}, the free {memory}"


AUTO = Streaming()
