"""Dataset `arrays`: images or vectors, and labels if there are any, from an .npz file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latentforge import Arrays, DatasetSpec, hookimpl
from latentforge.errors import UsageError


@dataclass(frozen=True)
class ArraysConfig:
    """`path`: an .npz file. Its key `x` is (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D), uint8
    or float in [0, 1]; of the second and the last of four numbers the smaller one counts the
    channels. `y`, if there: (N,) integers from 0. `classes`, if there: their names, strings."""

    path: Path | None = None


def load(config: ArraysConfig, split: str) -> Arrays:
    """The arrays as they are stored; UsageError names the file and the key that does not fit."""
    if config.path is None:
        raise UsageError(
            "data.path is not given: dataset arrays reads an .npz file",
            remedy="--set data.path=FILE.npz, made by numpy.savez('FILE.npz', x=images, y=labels)",
        )
    from .npz import read

    return read(config.path)


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="arrays",
        summary="Your own arrays: x, and y if there are labels, in an .npz file (data.path)",
        load=load,
        config=ArraysConfig,
        splits=("train",),
    )
