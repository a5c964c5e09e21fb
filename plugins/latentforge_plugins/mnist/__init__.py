"""Dataset `mnist`: 60,000 training and 10,000 test images of handwritten digits, 28x28.
Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998."""

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from latentforge import Arrays, DatasetSpec, hookimpl
from latentforge.errors import MissingError, one_line


@dataclass(frozen=True)
class MnistConfig:
    """`root` is the folder that contains MNIST/raw in torchvision's layout. The default is the
    folder in LATENTFORGE_DATA or, if it is not set, the user's cache."""

    root: Path | None = None


def load(config: MnistConfig, split: str) -> Arrays:
    """Return images, uint8 (N, 28, 28), and labels from 0 to 9."""
    from .idx import images_and_labels, raw_folder

    x, y = images_and_labels(raw_folder(config.root), split)
    return Arrays(x=x, y=y, classes=tuple("0123456789"))


def fetch(config: MnistConfig) -> Path:
    """Download the files unless they exist, read all of them, and return their folder."""
    from .idx import images_and_labels, is_complete, raw_folder

    raw = raw_folder(config.root)
    if not is_complete(raw):
        download(raw.parent.parent)
    for split in ("train", "test"):
        images_and_labels(raw, split)
    return raw


def download(root: Path) -> None:
    """Downloads with torchvision: from two mirrors, with MD5 sums, to MNIST/raw under `root`."""
    from latentforge_plugins.torchvision_import import import_torchvision

    torchvision = import_torchvision()
    try:
        with redirect_stdout(sys.stderr):  # it prints its attempts; stdout is for results
            torchvision.datasets.MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise MissingError(
            f"MNIST could not be downloaded to {root}",
            details=[one_line(error)],
            hint="check the network, or copy the four files into MNIST/raw there",
        ) from error


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="mnist",
        summary="MNIST: 60,000 + 10,000 handwritten digits, 28x28 (latentforge data fetch mnist)",
        load=load,
        config=MnistConfig,
        splits=("train", "test"),
        fetch=fetch,
    )
