"""Tries other values of the options of a component, for hints that name the option to set.

Must not import torch.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Literal


def vary_options(options: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the name and the value, as it is written with --set, of each other choice of an option
    that is a Literal or a bool, and the options with it. Choices that do not go with the other
    options are left out."""
    annotations = typing.get_type_hints(type(options))
    for field in fields(options):
        for choice in list_choices(annotations[field.name]):
            if choice == getattr(options, field.name):
                continue
            try:
                changed = replace(options, **{field.name: choice})
            except ValueError:  # it does not go with the other options
                continue
            text = str(choice)
            yield field.name, text.lower() if isinstance(choice, bool) else text, changed


def list_choices(annotation: Any) -> Sequence[Any]:
    """Return the values of a Literal, a bool, or a union that contains one."""
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in list_choices(part)]
    return (False, True) if annotation is bool else ()
