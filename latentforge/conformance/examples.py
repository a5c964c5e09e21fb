"""The data that components are checked with: random examples, or those of a dataset, and the search
for data that a component accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentforge.conformance.capabilities import accepted_roles
from latentforge.conformance.subject import NotChecked, Subject
from latentforge.contracts import RANGES, Arrays, Batch, DataSpec, Factor, RangeName
from latentforge.contracts.data import CLASS
from latentforge.data.images import ImageSplit
from latentforge.data.layout import kind_of
from latentforge.data.splits import DataSplits
from latentforge.errors import LatentForgeError
from latentforge.plugins.registry import Entry
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.seeding import mix

SHAPES = {
    "1x28x28": (1, 28, 28),
    "3x32x32": (3, 32, 32),
    "1x17x30": (1, 17, 30),
    "12 numbers": (12,),
}
LARGER = (3, 64, 64)  # for models that support none of these
TINY = (1, 16, 16)  # of runs
TRIED: tuple[RangeName, ...] = ("unit", "counts", "signed", "any")  # ranges, in this order
LIMITS = {"counts": (0.0, 20.0), "any": (-3.0, 3.0)}  # of random values in ranges without bounds
CLASSES = ("zero", "one", "two")
FACTORS = (Factor("level"), Factor("half", ("first", "second")))
GIVE_DATA = "state `example` in the ModelSpec, or give --shape C,H,W or --data NAME"


@dataclass(frozen=True)
class Examples:
    """Examples of `spec`: random ones, or those of `splits`."""

    spec: DataSpec
    splits: DataSplits | None = None

    def batch(self, count: int = 6, seed: int = 0, split: str = "train") -> Batch:
        """`count` examples, which cycle through the classes, as a function of the seed."""
        if self.splits is None:
            return make_batch(self.spec, count, seed)
        images = self.splits.split(split)
        found = images.batch_at(select_positions(images.y, len(images), count, seed))
        table = {name: found.factors[name] for name in images.table}
        return ImageSplit(found.x, found.y, self.spec, table=table).batch(torch.arange(count))

    def stored(self, count: int, seed: int, split: str) -> Tensor:
        """The values of the same examples as they are stored."""
        if self.splits is not None:
            images = self.splits.split(split)
            positions = select_positions(images.y, len(images), count, seed)
            return images.raw(torch.tensor(positions))
        x = make_batch(self.spec, count, seed).x
        return (x * 255).to(torch.uint8) if self.spec.range_name == "unit" else x

    def widened(self) -> DataSpec:
        """The same data with twice as many values: images of twice the width."""
        *outer, last = self.spec.shape
        return replace(self.spec, shape=(*outer, 2 * last))

    def __str__(self) -> str:
        values = "" if self.spec.range_name == "unit" else f" with {self.spec.describe_values()}"
        return f"{self.spec.shape}{values}"


def make_data_spec(
    shape: tuple[int, ...],
    values: RangeName = "unit",
    factors: tuple[Factor, ...] = FACTORS,
) -> DataSpec:
    return with_limits(DataSpec(shape, kind_of(shape), CLASSES, RANGES[values], factors))


def complete(spec: DataSpec) -> DataSpec:
    """The data of an example in a spec, with classes, factors and limits if it has none."""
    spec = replace(with_limits(spec), classes=spec.classes or CLASSES)
    return spec if len(spec.factors) > 1 else replace(spec, factors=FACTORS)


def with_limits(spec: DataSpec) -> DataSpec:
    """The same data with the limits of its values, which random values need if its range has no
    bounds."""
    return replace(spec, limits=spec.limits or LIMITS.get(spec.range_name))


def make_batch(spec: DataSpec, count: int = 6, seed: int = 0) -> Batch:
    """Random examples with labels and factors. The values of each class are larger than those of
    the previous one."""
    generator = torch.Generator().manual_seed(mix("conformance images", seed))
    classes = len(spec.classes or CLASSES)
    index = torch.arange(count)
    y = index % classes
    level = (0.2 + 0.5 / max(1, classes - 1) * y).reshape(-1, *[1] * len(spec.shape))
    noise = torch.rand(count, *spec.shape, generator=generator)
    x = with_limits(spec).from_unit((level + 0.3 * noise).clamp(0, 1))
    table = {
        factor.name: index * len(factor.names) // count if factor.names else level.flatten()
        for factor in spec.factors
        if factor.name != CLASS
    }
    return ImageSplit(x, y if spec.classes else None, spec, table=table).batch(index)


def select_positions(y: Tensor | None, size: int, count: int, seed: int) -> list[int]:
    """`count` positions of `size` examples, which cycle through the classes. Positions repeat if
    there are too few."""
    generator = torch.Generator().manual_seed(mix("conformance examples", seed))
    order = torch.randperm(size, generator=generator)
    groups = [order]
    if y is not None:
        labels = y.cpu()[order]
        groups = [order[labels == label] for label in sorted({*labels.tolist()})]
    rounds = ((groups[i % len(groups)], i // len(groups)) for i in range(count))
    return [int(group[turn % len(group)]) for group, turn in rounds]


def candidates(
    subject: Subject, model: Entry, shapes: Sequence[tuple[int, ...]] = (*SHAPES.values(), LARGER)
) -> Iterator[Examples]:
    """The data to check a model or a component that uses it with; the first that they support is
    used. It is the data or the shape that was given, the data of a given run, the example of the
    model, or random data of the default shapes."""
    if given := given_examples(subject):
        yield given
    elif subject.shape:
        yield from (Examples(make_data_spec(subject.shape, values)) for values in TRIED)
    elif example := model.spec.example:
        yield Examples(complete(example))
    else:
        for values in TRIED:
            for shape in shapes:
                yield Examples(make_data_spec(shape, values))


def given_examples(subject: Subject) -> Examples | None:
    """The examples of the given data, or of the first given run that the component uses."""
    accepted = accepted_roles(subject)
    roles = [role for role in subject.roles if role in accepted and accepted[role].same_data]
    if subject.data is None and (subject.shape or not roles):
        return None

    def load() -> Examples:
        if subject.data is not None:
            given = subject.data
            splits = given if isinstance(given, DataSplits) else subject.forge.load_data(given)
            return Examples(splits.spec, splits)
        from latentforge.workflows.load import load_data

        run = given_run(subject, roles[0])
        try:
            splits = load_data(run, resolve_stored_config(subject.forge.registry, run), None)
        except LatentForgeError as error:
            why = f"the data of {run.path} cannot be loaded: {error.message}"
            raise NotChecked(f"{why}; give it with --data NAME") from None
        return Examples(splits.spec, splits)

    return subject.once("given examples", load)


def given_run(subject: Subject, role: str) -> Any:
    """The run that was given for a role."""
    from latentforge.runs.folder import open_folder

    return open_folder(subject.roles[role])


DEFAULT = Examples(make_data_spec(TINY))
"""The data of tiny runs."""


def images(
    examples: Examples = DEFAULT,
    train: int = 60,
    test: int = 15,
    empty: int | None = None,
    labels: bool = True,
    factors: bool = False,
) -> dict[str, Any]:
    """Examples in the form of `Forge.train(data=...)`. The class `empty` has no images. With
    `labels=False` the data has no labels; with `factors` it has its other factors."""
    data: dict[str, Any] = {"validation": 0.2}
    spec = examples.spec
    if spec.range_name != "unit":
        data["range"] = spec.range_name
    if spec.shape != TINY and spec.kind == "image":
        data["layout"] = "NCHW"
    if spec.kind == "signal":
        data["layout"] = "NCL"
    if examples.splits:
        data["binarize"] = examples.splits.config.binarize
    for split, count, seed in (("train", train, 1), ("test", test, 2)):
        batch = examples.batch(count, seed, split)
        x, y = examples.stored(count, seed, split), batch.y
        kept = torch.ones(count, dtype=torch.bool)
        if y is not None and empty is not None:
            kept = y != empty
        y = y[kept] if y is not None and labels else None
        data[split] = x[kept] if y is None else (x[kept], y)
        others = {f.name: f.names or None for f in spec.factors if factors and f.name != CLASS}
        if others or (y is not None and spec.classes != CLASSES):
            named = {name: (batch.factors[name][kept], others[name]) for name in others}
            names = spec.classes if y is not None and spec.classes != CLASSES else ()
            data[split] = Arrays(x[kept], y, names, factors=named or None)
    return data
