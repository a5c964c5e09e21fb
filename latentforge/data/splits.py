"""DataSplits: the named splits of a dataset with one preprocessing and one fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from latentforge.config.schema import DataConfig
from latentforge.contracts import DataSpec, Factor
from latentforge.data.factors import match_factors, other_factors
from latentforge.data.images import ImageSplit
from latentforge.data.labels import count_classes, match_names
from latentforge.data.memory import streaming_reason
from latentforge.errors import UsageError, did_you_mean
from latentforge.runtime.memory import device_memory


@dataclass(frozen=True)
class DataSplits:
    """A prepared dataset: `splits` contains "train", "test" and, if there is one, "validation".

    `fingerprint` is the SHA-256 of the source data and class names, independent of how the data is
    split. `sample` is the hash of a sample of the data, which is also the fingerprint of streamed
    data. `preprocessing` describes, as JSON values, how stored numbers are converted to model
    input. `drawn` are the splits whose images were drawn from the training images.
    """

    spec: DataSpec
    splits: Mapping[str, ImageSplit]
    fingerprint: str
    preprocessing: dict[str, Any]
    sample: str = ""
    config: DataConfig = field(default_factory=DataConfig)
    drawn: Set[str] = frozenset()

    def split(self, name: str) -> ImageSplit:
        """The images of one split. Raises a UsageError that names the existing splits."""
        if name not in self.splits:
            names = list(self.splits)
            hint = did_you_mean(name, names) or f"choose from {', '.join(names)}"
            raise UsageError(f"no split {name!r}: there are {', '.join(names)}", hint=hint)
        return self.splits[name]

    @property
    def levels(self) -> tuple[float, float] | None:
        """The stored values of black and white, or None if values are kept as they are stored."""
        if self.preprocessing["black"] is None:
            return None
        return self.preprocessing["black"], self.preprocessing["white"]

    def class_counts(self) -> dict[str, dict[str, int]]:
        """The number of images of each class by split; empty without labels."""
        return {
            name: count_classes(images.y, self.spec.classes)
            for name, images in self.splits.items()
            if images.y is not None
        }

    def with_classes(self, classes: tuple[str, ...], owner: str) -> DataSplits:
        """Return the splits with labels that index `classes`, the classes of `owner`, by name.
        Raises UsageError for examples of other classes. Data without labels is unchanged, as is
        data of an owner without classes."""
        if not classes or not self.spec.classes or classes == self.spec.classes:
            return self
        spec = replace(self.spec, classes=classes)

        def relabel(images: ImageSplit, name: str) -> ImageSplit:
            y, where = images.y, f"the {name} split"
            if y is not None:
                y = match_names(y, self.spec.classes, classes, where, owner)
            return images.relabelled(y, spec)

        return self.map(relabel)

    def with_factors(self, factors: Sequence[Factor], owner: str) -> DataSplits:
        """Return the splits with categorical factors that index the names of the same factors of
        `owner`, by name, as `with_classes` does for labels."""
        wanted = {factor.name: factor for factor in factors}
        if all(wanted.get(f.name, f) == f for f in other_factors(self.spec)):
            return self
        return self.map(lambda s, name: match_factors(s, factors, f"the {name} split", owner))

    def with_limits(self, limits: tuple[float, float] | None) -> DataSplits:
        """Return the splits with the limits of a run's data, so that all are drawn alike."""
        if limits == self.spec.limits:
            return self
        spec = replace(self.spec, limits=limits)
        return self.map(lambda images, _: images.relabelled(images.y, spec))

    def map(self, change: Callable[[ImageSplit, str], ImageSplit]) -> DataSplits:
        """Return `change(images, name)` of each split. Images that several splits share are changed
        once and stay shared."""
        changed: dict[int, ImageSplit] = {}
        for name, images in self.splits.items():
            if id(images) not in changed:
                changed[id(images)] = change(images, name)
        splits = {name: changed[id(images)] for name, images in self.splits.items()}
        return replace(self, spec=next(iter(splits.values())).spec, splits=splits)

    def matches(self, description: Mapping[str, Any]) -> bool:
        """Whether this is the data that a run.json describes under `data`. Compares the hashes of
        all values, or of the samples if one of the two datasets is streamed."""
        fingerprint = description["fingerprint"]
        if fingerprint.startswith("sample-") or self.fingerprint == self.sample:
            return bool(self.sample == description.get("sample", fingerprint))
        return bool(self.fingerprint == fingerprint)

    def to(self, device: torch.device | str) -> DataSplits:
        """Move all splits to another device. Images that several splits share are moved once. If
        the images are too large for a GPU, they stay in the host's memory and are streamed."""
        device = torch.device(device)
        unique = {id(images): images for images in self.splits.values()}
        if device.type == "cuda":
            resident = [s for s in unique.values() if type(s) is ImageSplit and s.device != device]
            size, free = sum(images.x.nbytes for images in resident), device_memory(device)
            if reason := streaming_reason(self.config, size, free, "memory of the GPU"):
                from latentforge.data.streamed import stream_from_memory

                for images in resident:
                    unique[id(images)] = stream_from_memory(images, self.config.workers, reason)
        moved = {key: images.to(device) for key, images in unique.items()}
        splits = {name: moved[id(images)] for name, images in self.splits.items()}
        return replace(self, splits=splits)
