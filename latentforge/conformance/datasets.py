"""Contract checks for datasets. A dataset whose files are missing is not checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from latentforge.config.resolve import resolve_dataset
from latentforge.conformance.assertions import run_with_seeds
from latentforge.conformance.examples import DEFAULT
from latentforge.conformance.fixtures import make_roles
from latentforge.conformance.global_state import require_no_global_change
from latentforge.conformance.subject import CheckFailed, NotChecked, Subject, require
from latentforge.conformance.training_roles import (
    require_declared_needs,
    require_unmodified_roles,
)
from latentforge.data.loading import load_splits
from latentforge.errors import MissingError, UsageError

IMAGES_CHECKED = 200  # per split


def it_loads_as_images_or_vectors(subject: Subject) -> None:
    """The core checks shapes, range and labels while it prepares the data."""
    splits = _splits_of(subject)
    for name in splits.splits:
        images = splits.split(name)
        x = images.batch_at(list(range(min(IMAGES_CHECKED, len(images))))).x
        low = float(x.min())
        saw = f"all pixels of the first images of {name} are {low:.3g}"
        hint = "inspect one of them; uint8 must be in 0..255, float in 0..1"
        require(float(x.max()) > low, saw, hint)


def two_loads_give_the_same_data(subject: Subject) -> None:
    """The data must not depend on the seed, because a run must be able to reload the data that it
    was trained on."""
    one, other = run_with_seeds((0, 1), lambda: _load(subject).fingerprint)
    hint = "use a separate generator with a fixed seed: numpy.random.default_rng(0)"
    require(one == other, "the images of two loads differ", hint)


def global_state_is_unchanged(subject: Subject) -> None:
    with require_no_global_change("loading it", first=lambda: _splits_of(subject)):
        _load(subject)


def it_uses_only_declared_capabilities_of_its_roles(subject: Subject) -> None:
    require_declared_needs(subject, DEFAULT.spec, lambda: _load(subject))


def the_runs_in_its_roles_are_not_modified(subject: Subject) -> None:
    require_unmodified_roles(subject, DEFAULT.spec, lambda: _load(subject))


def _load(subject: Subject) -> Any:
    """Load the splits of the dataset. Raises NotChecked if files or options are missing."""
    registry, spec = subject.forge.registry, subject.entry.spec
    dataset, data_config = resolve_dataset(registry, subject.entry.reference, subject.options)
    roles = make_roles(subject, subject.entry, DEFAULT.spec)
    dataset = replace(dataset, roles=roles[0] if roles else {})
    try:
        is_fixed = not callable(spec.splits)
        splits = spec.splits if is_fixed else spec.splits(dataset.options, *roles)
        spec.load(dataset.options, splits[0], *roles)
    except MissingError as error:
        raise NotChecked(f"its files are missing: {error.message}; {error.hint}") from None
    except UsageError as error:
        why = f"it needs options: {error.message}"
        raise NotChecked(f"{why}; give --set COMPONENT.KEY=VALUE") from None
    try:
        return load_splits(dataset, data_config)
    except UsageError as error:  # from the core, which checks what was loaded
        raise CheckFailed(str(error), "see docs/contracts.md, Datasets") from None


def _splits_of(subject: Subject) -> Any:
    return subject.once("splits", lambda: _load(subject))
