"""Conditional models: labels that they need, and the option `condition`, the number of a class.

Must not import torch: faults of a request are reported before torch loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentforge.config.validation import Faults
from latentforge.errors import UsageError, did_you_mean
from latentforge.plugins.registry import Entry
from latentforge.specs import Role

CONDITIONAL = "conditional"
WITHOUT_LABELS = frozenset({"classify", "layers"})
"""The capabilities of a conditional model that do not depend on labels."""
MAX_LISTED = 12  # classes in a message


def check_labels(model: Entry, classes: Sequence[str], data: str) -> None:
    """Raise UsageError if a conditional model is to be used on data without labels."""
    if CONDITIONAL in model.provides and not classes:
        raise UsageError(
            f"model {model.name!r} is conditional and needs labels; {data} has none",
            hint="give data with labels, or train a model that needs none, such as vae",
        )


def read_condition(value: Any, classes: Sequence[str], path: str, faults: Faults) -> int | None:
    """Return the number of a class, or None without one. Adds a fault, with the key `path`, if no
    class has this number."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
        return value
    message = f"must be the number of a class, {describe_classes(classes)}; got {value!r}"
    if isinstance(value, str):
        if value in classes:
            message += f"; {value!r} is {classes.index(value)}"
        elif close := did_you_mean(value, classes):
            message += f"; {close}"
    faults.add(path, message)
    return None


def describe_classes(classes: Sequence[str]) -> str:
    """List the numbers of the classes, with the names that differ from them."""
    if not classes:
        return "but the data has no classes"
    if list(classes) == [str(number) for number in range(len(classes))]:
        return f"from 0 to {len(classes) - 1}"
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(classes[:MAX_LISTED]))
    return listed if len(classes) <= MAX_LISTED else f"{listed}, ... {len(classes) - 1}"


def check_condition(
    condition: int | None,
    explorer: Entry,
    model: Entry,
    models: Mapping[str, Entry],
    roles: Mapping[str, Role],
    classes: Sequence[str],
) -> None:
    """Raise UsageError if a conditional model needs a class and none is given, or if a class is
    given and no model is conditional. `models` are those of the other runs, by role."""
    conditional, others = CONDITIONAL in model.provides, conditional_roles(models, roles)
    for role in others:
        if not roles[role].same_data:
            raise UsageError(
                f"role {role!r}: model {models[role].name!r} is conditional, but its classes may "
                "not be those of the run",
                hint=f"--with {role}=RUN, where RUN is a run of a model that is not conditional",
            )
    if condition is not None:
        if not conditional and not others:
            raise UsageError(
                f"condition={condition}: model {model.name!r} is not conditional",
                hint="remove condition, or explore a run of a conditional model, such as cvae",
            )
        return
    hint = f"--set condition=0, the number of a class, {describe_classes(classes)}"
    if conditional and not explorer.spec.conditional:
        raise UsageError(
            f"explorer {explorer.name!r} needs a class, because model {model.name!r} is "
            "conditional",
            hint=hint,
        )
    for role in others:
        raise UsageError(
            f"role {role!r} needs a class, because model {models[role].name!r} is conditional",
            hint=hint,
        )


def check_images(condition: int | None, explorer: str, options: Any) -> None:
    """Raise UsageError if the option `classes` of an explorer names classes of images that the
    condition excludes."""
    classes = getattr(options, "classes", None)
    if condition is None or not classes or set(classes) == {condition}:
        return
    raise UsageError(
        f"{explorer}.classes is {list(classes)}, but condition={condition} leaves only the images "
        f"of class {condition}",
        hint="leave out classes, which gives images of this class",
    )


def check_unconditional(models: Mapping[str, Entry], roles: Mapping[str, Role]) -> None:
    """Raise UsageError if a training or a measure would call a conditional model of another run,
    which it cannot give labels. `models` are those of the other runs, by role."""
    for role in conditional_roles(models, roles):
        raise UsageError(
            f"role {role!r}: model {models[role].name!r} is conditional, and only explorers can "
            "give the model of another run a class",
            hint=f"--with {role}=RUN, where RUN is a run of a model that is not conditional",
        )


def conditional_roles(models: Mapping[str, Entry], roles: Mapping[str, Role]) -> list[str]:
    """The roles whose models are conditional and are used for more than classification."""
    return [
        role
        for role, model in models.items()
        if CONDITIONAL in model.provides and roles[role] - WITHOUT_LABELS
    ]
