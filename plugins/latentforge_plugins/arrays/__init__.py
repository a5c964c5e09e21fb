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

    An .npz file contains images (`x` or `images`) and optionally labels (`y` or `labels`) and names
    of classes (`classes`), or the same for each official split: `x_train`, `y_train`, `x_test` or
    `train_images`, `train_labels`, `test_images`. Images are (N, H, W), (N, C, H, W), (N, H, W, C)
    or (N, D). Arrays named `factor_NAME`, or `factor_NAME_train` and `factor_NAME_test`, are
    factors: numbers, or strings for a categorical one.
    """

    path: Path | None = None
    labels: Path | None = None


def load(config: ArraysConfig, split: str) -> Arrays:
    """Read the stored arrays of a split. Raises a UsageError that names the file and the invalid
    key."""
    path = check_path(config)
    from .files import read_npy, read_npz

    return read_npy(path, config.labels) if path.suffix == ".npy" else read_npz(path, split)


def splits(config: ArraysConfig) -> tuple[str, ...]:
    """Return the splits that the file contains."""
    path = check_path(config)
    if path.suffix == ".npy":
        return ("train",)
    from .files import list_splits

    return list_splits(path)


def check_path(config: ArraysConfig) -> Path:
    if config.path is None:
        raise UsageError(
            "data.path is not given: dataset arrays reads an .npz or an .npy file",
            hint="--set data.path=FILE.npz, made by numpy.savez('FILE.npz', x=images, y=labels)",
        )
    if config.labels is not None and config.path.suffix != ".npy":
        raise UsageError(
            f"data.labels can only be used with an .npy file, but data.path is {config.path}",
            hint="store the labels in the .npz file under the key y",
        )
    return config.path.absolute()


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="arrays",
        summary="Your own arrays: images and optional labels in an .npz or .npy file",
        load=load,
        config=ArraysConfig,
        splits=splits,
    )
