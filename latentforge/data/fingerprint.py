"""The fingerprint of prepared data: a SHA-256 of its values, labels and factors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from latentforge.contracts import DataSpec
from latentforge.data import readers
from latentforge.data.arrays import dtype_name
from latentforge.data.factors import other_factors
from latentforge.seeding import generator

SAMPLE = 256  # images of each split that the fingerprint of streamed data includes
SAMPLE_BATCH = 16  # images of the sample that are in memory at the same time


class RawSplit(Protocol):
    """One official split: its images, labels and other factors."""

    @property
    def x(self) -> Tensor | readers.Source: ...
    @property
    def y(self) -> Tensor | None: ...
    @property
    def table(self) -> Mapping[str, Tensor]: ...


def fingerprint_all(sources: Mapping[str, RawSplit], spec: DataSpec) -> str:
    """The fingerprint of images in memory: SHA-256 of every value, label and class name."""
    digest = hashlib.sha256(repr(spec.classes).encode())
    for split in sorted(sources):
        for key, values in (("x", sources[split].x), ("y", sources[split].y)):
            if isinstance(values, Tensor):  # there may be no labels
                digest.update(f"{split} {key} {dtype_name(values)} {tuple(values.shape)}".encode())
                digest.update(values.numpy().data)
    return add_factors(digest.hexdigest(), sources, spec)


def fingerprint_sample(sources: Mapping[str, RawSplit], spec: DataSpec) -> str:
    """The fingerprint of streamed images, which are too large to read at the start: the SHA-256 of
    class names, shapes, dtypes, every label, and `SAMPLE` images of each split, always the same.

    It does not include file times, which a copy to another machine does not preserve.
    """
    digest = hashlib.sha256(repr(spec.classes).encode())
    for split in sorted(sources):
        x, y = sources[split].x, sources[split].y
        digest.update(f"{split} {dtype_name(x)} {tuple(x.shape)}".encode())
        if y is not None:
            digest.update(y.numpy().data)
        order = torch.randperm(len(x), generator=generator("cpu", "fingerprint"))
        for indices in torch.split(order[:SAMPLE].sort().values, SAMPLE_BATCH):
            images = x[indices] if isinstance(x, Tensor) else x.read(indices.tolist())
            digest.update(images.numpy().data)
    return f"sample-{add_factors(digest.hexdigest(), sources, spec)}"


def add_factors(fingerprint: str, sources: Mapping[str, RawSplit], spec: DataSpec) -> str:
    """Return a fingerprint that also covers every value and name of the factors other than the
    class. Without such factors it is unchanged."""
    factors = other_factors(spec)
    if not factors:
        return fingerprint
    digest = hashlib.sha256(f"{fingerprint} {[(f.name, f.names) for f in factors]}".encode())
    for split in sorted(sources):
        for name, values in sorted(sources[split].table.items()):
            digest.update(f"{split} {name}".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()
