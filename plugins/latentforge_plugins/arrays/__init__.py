"""Dataset `arrays`: images or vectors, with optional labels, from an .npz or .npy file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latentforge import Arrays, DatasetSpec, hookimpl
from latentforge.errors import UsageError


@dataclass(frozen=True)
class ArraysConfig:
    """`path` is an .npz file, or an .npy file of images, which can be larger than memory. `labels`
    is an .npy file with the labels for an .npy file of images.

    The images (key `x` of an .npz file) are (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D), uint8
    or float in [0, 1]. In a shape of four numbers, the smaller of the second and the last is C. The
    optional key `y` contains labels, (N,) integers from 0, and the optional key `classes` contains
    the names of the classes as strings.
    """

    path: Path | None = None
    labels: Path | None = None


def load(config: ArraysConfig, split: str) -> Arrays:
    """Read the stored arrays. Raises a UsageError that names the file and the invalid key."""
    if config.path is None:
        raise UsageError(
            "data.path is not given: dataset arrays reads an .npz or an .npy file",
            hint="--set data.path=FILE.npz, made by numpy.savez('FILE.npz', x=images, y=labels)",
        )
    from .npz import read, read_npy

    if config.path.suffix == ".npy":
        return read_npy(config.path, config.labels)
    if config.labels is not None:
        raise UsageError(
            f"data.labels can only be used with an .npy file, but data.path is {config.path}",
            hint="store the labels in the .npz file under the key y",
        )
    return read(config.path)


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="arrays",
        summary="Your own arrays: images and optional labels in an .npz or .npy file",
        load=load,
        config=ArraysConfig,
        splits=("train",),
    )
