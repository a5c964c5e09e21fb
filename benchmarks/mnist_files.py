"""Writes the first images of MNIST to files, for variants that run in separate processes.

    python benchmarks/mnist_files.py DIR IMAGES

This is a script because the process that measures peak memory must not include its memory.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import numpy as np
from latentforge_plugins.mnist.idx import images_and_labels, raw_folder

SPLITS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}  # file name prefix, images


def write(folder: Path, images: int) -> str:
    """Write `images` training images and a sixth as many test images to MNIST/raw in `folder`.
    The images are MNIST from LATENTFORGE_DATA, or random without it. Return what they are."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    real = bool(os.environ.get("LATENTFORGE_DATA"))
    for split, (name, count) in SPLITS.items():
        used = max(1, count * images // 60_000)
        if real:
            x, y = images_and_labels(raw_folder(None), split)
        else:
            rng = np.random.default_rng(0)
            x = rng.integers(0, 256, (used, 28, 28), np.uint8)
            y = rng.integers(0, 10, used, np.uint8)
        for values, kind in ((x[:used], "images"), (y[:used], "labels")):
            header = struct.pack(f">I{values.ndim}I", 0x800 | values.ndim, *values.shape)
            file = raw / f"{name}-{kind}-idx{values.ndim}-ubyte"
            file.write_bytes(header + values.tobytes())
    return "MNIST" if real else "random images"


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2])))
