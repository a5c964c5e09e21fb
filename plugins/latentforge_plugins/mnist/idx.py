"""Finds and reads MNIST's idx files with numpy (torchvision takes 1 s to import).

The format: two zero bytes, a type, the number of dimensions, each dimension as a big-endian uint32,
then the values. http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from latentforge.errors import MissingError, one_line
from latentforge_plugins.folders import data_folder

FETCH = "latentforge data fetch mnist"
UINT8 = 0x08  # the type code of idx files
PARTS = {"train": "train", "test": "t10k"}  # split -> start of the file names

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def raw_folder(root: Path | None) -> Path:
    """Return the only folder that is searched: MNIST/raw in `root`, which is by default the folder
    in LATENTFORGE_DATA or, if it is not set, the user's cache."""
    return data_folder(root) / "MNIST" / "raw"


def is_complete(raw: Path) -> bool:
    """Return whether all four files exist, gzipped or not."""
    return all(_find_file(path) for split in PARTS for path in _paths(raw, split))


def images_and_labels(raw: Path, split: str) -> tuple[Bytes, Bytes]:
    """Read the images of a split, uint8 (N, H, W), and its labels from 0 to 9, uint8 (N,). Raises a
    MissingError that names the missing or damaged files."""
    image_path, label_path = (_find_file(path) or path for path in _paths(raw, split))
    if missing := [path for path in (image_path, label_path) if not path.is_file()]:
        raise MissingError(
            f"the {split} images of MNIST are not in {raw}",
            details=[f"looked for {path} and {path.name}.gz" for path in missing],
            hint=f"{FETCH}; or set LATENTFORGE_DATA, or data.root, to the folder of MNIST/raw",
        )
    images, labels = read(image_path, dims=3), read(label_path, dims=1)
    if len(images) != len(labels):
        problem = f"{len(labels)} labels, but {image_path} has {len(images)} images"
        raise _damaged_error(label_path, problem)
    if len(labels) and labels.max() > 9:
        problem = f"it contains the label {labels.max()}; labels must be from 0 to 9"
        raise _damaged_error(label_path, problem)
    return images, labels


def read(path: Path, dims: int) -> Bytes:
    """Read the uint8 array of `dims` dimensions from an idx file, which may be gzipped."""
    data = _bytes(path)
    header = 4 + 4 * dims
    if len(data) < header:
        raise _damaged_error(path, f"{len(data)} bytes, but the header alone needs {header}")
    magic = int.from_bytes(data[:4].tobytes(), "big")
    if magic != (UINT8 << 8 | dims):
        raise _damaged_error(path, f"it begins with {magic:#010x}, not {UINT8 << 8 | dims:#010x}")
    shape = tuple(int(n) for n in data[4:header].view(">u4"))
    if len(data) != header + math.prod(shape):
        declared = f"{header} + {' x '.join(map(str, shape))}"
        raise _damaged_error(path, f"{len(data)} bytes, but the header declares {declared}")
    return data[header:].reshape(shape)


def _paths(raw: Path, split: str) -> tuple[Path, Path]:
    part = PARTS[split]
    return raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte"


def _find_file(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return path if path.is_file() else packed if packed.is_file() else None


def _bytes(path: Path) -> Bytes:
    try:
        if path.suffix != ".gz":
            return np.fromfile(path, np.uint8)
        with gzip.open(path) as file:
            return np.frombuffer(file.read(), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged_error(path, f"it cannot be read ({one_line(error)})") from error


def _damaged_error(path: Path, problem: str) -> MissingError:
    """Return the error for a damaged file. The file is not deleted here, because it belongs to the
    user and may be a different file of the same name."""
    return MissingError(
        f"MNIST file {path} is damaged: {problem}", hint=f"delete that file yourself, then: {FETCH}"
    )
