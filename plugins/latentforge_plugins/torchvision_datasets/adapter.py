"""Reads arrays from torchvision's dataset classes. H. Xiao et al., Fashion-MNIST, 2017;
T. Clanuwat et al., Deep Learning for Classical Japanese Literature, 2018; G. Cohen et al., EMNIST,
2017; A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; Y. Netzer et al.,
Reading Digits in Natural Images with Unsupervised Feature Learning, 2011."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from latentforge.contracts import Arrays
from latentforge.errors import MissingError, one_line
from latentforge_plugins.folders import data_folder
from latentforge_plugins.torchvision_import import import_torchvision

from .config import RootConfig

IDX = {"fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist": "EMNIST"}
DIGITS = tuple("0123456789")


def read(name: str, config: RootConfig, split: str) -> Arrays:
    """Read one split. Raises a MissingError that names the missing or damaged files."""
    sums = files(name, config, split)
    if missing := [path for path in sums if not path.is_file()]:
        raise MissingError(
            f"the {split} images of {name} are not in {data_folder(config.root)}",
            details=[f"looked for {path}" for path in missing],
            hint=f"{fetch_command(name, config)}; or set LATENTFORGE_DATA, or data.root, "
            "to the folder that contains them",
        )
    check_sums(name, config, sums)
    try:
        dataset = open_dataset(name, config, split)
    except MemoryError:
        raise
    except Exception as error:  # torchvision's asserts, lookups and reshapes raise many types
        raise damaged_error(name, config, list(sums), one_line(error)) from error
    x = dataset.data
    y = np.asarray(dataset.labels if name == "svhn" else dataset.targets)
    classes = DIGITS if name == "svhn" else tuple(dataset.classes)
    if name == "emnist":
        x = x.transpose(1, 2)  # stored column by column: github.com/pytorch/vision/issues/8783
        if config.variant == "letters":  # its labels begin at 1, and its class 0 is "N/A"
            y, classes = y - 1, classes[1:]
    if len(x) != len(y):
        raise damaged_error(name, config, list(sums), f"{len(x)} images and {len(y)} labels")
    return Arrays(x, y, classes)


def fetch_files(name: str, config: RootConfig) -> Path:
    """Download missing files, read both splits, and return the folder of the files."""
    for split in ("train", "test"):
        if not all(path.is_file() for path in files(name, config, split)):
            download(name, config, split)
        read(name, config, split)
    return next(iter(files(name, config, "train"))).parent


def open_dataset(name: str, config: RootConfig, split: str, download: bool = False) -> Any:
    """Return the dataset object of torchvision."""
    datasets = import_torchvision().datasets
    root, train = str(data_folder(config.root)), split == "train"
    if name == "svhn":
        return datasets.SVHN(root, split=split, download=download)
    if name == "cifar10":
        return datasets.CIFAR10(root, train=train, download=download)
    options = {"split": config.variant} if name == "emnist" else {}
    return getattr(datasets, IDX[name])(root, train=train, download=download, **options)


def files(name: str, config: RootConfig, split: str) -> dict[Path, str]:
    """Return the files that torchvision reads or checks for, each with its MD5 sum or an empty
    string."""
    datasets, root = import_torchvision().datasets, data_folder(config.root)
    if name == "svhn":
        _, file, md5 = datasets.SVHN.split_list[split]
        return {root / file: md5}
    if name == "cifar10":
        cifar = datasets.CIFAR10
        batches = [*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])]
        return {root / cifar.base_folder / file: md5 for file, md5 in batches}
    parts = [f"emnist-{config.variant}-{split}"] if name == "emnist" else ["train", "t10k"]
    raw = root / IDX[name] / "raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return {raw / f"{part}-{kind}": "" for part in parts for kind in kinds}


def check_sums(name: str, config: RootConfig, sums: dict[Path, str]) -> None:
    """Raise MissingError for files with wrong MD5 sums. CIFAR-10 is distributed as pickles.
    torchvision checks their MD5 sums before it opens them. The check is repeated here, because
    nothing else protects us from a third-party pickle."""
    check_integrity = import_torchvision().datasets.utils.check_integrity
    if wrong := [path for path, md5 in sums.items() if md5 and not check_integrity(path, md5)]:
        raise damaged_error(name, config, wrong, "the MD5 sum differs from the original")


def damaged_error(name: str, config: RootConfig, paths: list[Path], reason: str) -> MissingError:
    """Return the error for damaged files. The files are not deleted here, because they belong to
    the user and may be different files of the same name."""
    return MissingError(
        f"{name}: {', '.join(map(str, paths))}: "
        f"damaged, or a different file of the same name ({reason})",
        hint=f"delete the damaged files yourself, then: {fetch_command(name, config)}",
    )


def download(name: str, config: RootConfig, split: str) -> None:
    """Download the files with torchvision, which checks MD5 sums and creates the folders."""
    root = data_folder(config.root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr):  # older versions print; stdout is for results
            open_dataset(name, config, split, download=True)
    except MemoryError:
        raise
    except Exception as error:  # from the network, the archives or their contents
        raise MissingError(
            f"{name} could not be downloaded to {root}",
            details=[one_line(error)],
            hint="check the network, or copy the files there: "
            + ", ".join(str(path.relative_to(root)) for path in files(name, config, split)),
        ) from error


def fetch_command(name: str, config: RootConfig) -> str:
    command = ["latentforge", "data", "fetch", name]
    if config.root is not None:
        command += ["--set", f"root={config.root}"]
    if name == "emnist":
        command += ["--set", f"variant={config.variant}"]
    return shlex.join(command)
