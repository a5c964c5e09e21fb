"""What a dataset promises. One whose files are not there is not tried."""

from __future__ import annotations

from typing import Any

import torch

from latentforge.conformance.subject import CheckFailed, CheckSkipped, Subject, require
from latentforge.conformance.trying import nothing_global_changed, seeded
from latentforge.errors import MissingError, UsageError

LOOKED_AT = 200  # images of each split


def it_loads_as_images_or_vectors(subject: Subject) -> None:
    """Whose shape, range and labels the core checks as it lays them out."""
    splits = loaded(subject)
    for name in splits.splits:
        batch = first(splits.split(name))
        low, high = float(batch.x.min()), float(batch.x.max())
        require(
            batch.x.dtype == torch.float32 and low >= 0 and high <= 1,
            f"images of {name} are {batch.x.dtype} from {low:.3g} to {high:.3g}",
            "give uint8, or float in [0, 1]",
        )
        require(high > low, f"all pixels of the first images of {name} are {low:.3g}", "look at it")


def its_splits_are_those_it_names(subject: Subject) -> None:
    spec = subject.entry.spec
    splits = loaded(subject).splits
    missing = [name for name in spec.splits if name not in splits]
    require(not missing, f"split {', '.join(missing)} is not there", "mend `splits` or load")
    require("train" in spec.splits, "it has no split train", "name one split train")


def every_label_has_a_class(subject: Subject) -> None:
    splits = loaded(subject)
    classes = splits.spec.classes
    if not classes:
        raise CheckSkipped("it has no labels")
    for name in splits.splits:
        y = splits.split(name).y
        require(y is not None, f"split {name} has no labels, and others have", "label all, or none")
        low, high = int(y.min()), int(y.max())
        require(
            low >= 0 and high < len(classes),
            f"labels of {name} go from {low} to {high}, and there are {len(classes)} classes",
            "labels are integers from 0 that index `classes`",
        )


def it_is_the_same_each_time(subject: Subject) -> None:
    """Also under another seed: what a run was trained on must be found again."""
    found = []
    for seed in (0, 1):
        seeded(seed)
        found.append(load(subject).fingerprint)
    require(
        found[0] == found[1],
        "loaded twice, the images differ",
        "draw from a generator of your own with a fixed seed: numpy.random.default_rng(0)",
    )


def nothing_global_is_changed(subject: Subject) -> None:
    loaded(subject)
    with nothing_global_changed("loading it"):
        load(subject)


CHECKS = (
    it_loads_as_images_or_vectors,
    its_splits_are_those_it_names,
    every_label_has_a_class,
    it_is_the_same_each_time,
    nothing_global_is_changed,
)


def load(subject: Subject) -> Any:
    """The splits; CheckSkipped where files or options are wanted first."""
    try:
        subject.entry.spec.load(subject.config, subject.entry.spec.splits[0])
    except MissingError as error:
        raise CheckSkipped(f"its files are not here: {error.message}") from None
    except UsageError as error:
        raise CheckSkipped(f"it wants options: {error.message}") from None
    try:
        return subject.forge.load_data(subject.entry.reference, subject.options)
    except UsageError as error:  # of the core, which checks what it has loaded
        raise CheckFailed(str(error), "see docs/contracts.md, Datasets") from None


def loaded(subject: Subject) -> Any:
    return subject.once("splits", lambda: load(subject))


def first(images: Any) -> Any:
    return images.batch_at(list(range(min(LOOKED_AT, len(images)))))
