"""Datasets `fashion-mnist`, `kmnist`, `emnist`, `cifar10`, `svhn`, read by torchvision. adapter.py
cites the source of each dataset."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from latentforge import Arrays, DatasetSpec, hookimpl

from .config import RootConfig


@dataclass(frozen=True)
class EmnistConfig(RootConfig):
    """`variant` is one of EMNIST's six sets: byclass has 62 classes, bymerge and balanced have 47,
    letters has 26, digits and mnist have 10. `root` is the folder that contains EMNIST/raw."""

    variant: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] = "balanced"


def load(name: str, config: RootConfig, split: str) -> Arrays:
    """Return images, uint8 (N, 28, 28), (N, 32, 32, 3) or (N, 3, 32, 32), and labels. Nothing is
    downloaded."""
    from .adapter import read

    return read(name, config, split)


def fetch(name: str, config: RootConfig) -> Path:
    """Download the files unless they exist, read all of them, and return their folder."""
    from .adapter import fetch_files

    return fetch_files(name, config)


SUMMARIES = {
    "fashion-mnist": "Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28",
    "kmnist": "Kuzushiji-MNIST: 60,000 + 10,000 cursive Japanese characters, 28x28",
    "emnist": "EMNIST: handwritten letters and digits, 28x28, upright (data.variant)",
    "cifar10": "CIFAR-10: 50,000 + 10,000 colour photos of ten things, 32x32",
    "svhn": "SVHN: 73,257 + 26,032 colour photos of house numbers, 32x32",
}


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    for name, summary in SUMMARIES.items():
        yield DatasetSpec(
            name=name,
            summary=f"{summary} (latentforge data fetch {name})",
            load=partial(load, name),
            config=EmnistConfig if name == "emnist" else RootConfig,
            fetch=partial(fetch, name),
        )
