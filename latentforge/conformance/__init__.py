"""Checks of the plugin contracts: a named check for each requirement in docs/contracts.md.

`latentforge.testing` passes them to the tests of a plugin, and `latentforge plugins check` runs
them. Must not import pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import isfunction, signature
from types import ModuleType
from typing import Any

from latentforge.conformance.subject import Check, CheckFailed, CheckSkipped, Subject
from latentforge.errors import UsageError

__all__ = ["CHECKED", "Check", "CheckFailed", "CheckSkipped", "checks_of"]

CHECKED = ("models", "losses", "datasets", "explorers", "objectives", "callbacks")
"""The kinds of components that have checks."""


def checks_of(
    kind: str,
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    plugins: Sequence[Any] = (),
    forge: Any = None,
    example: Callable[[], Any] | None = None,
    shape: tuple[int, ...] | None = None,
) -> list[Check]:
    """Return the checks of a component, in order. No plugin is loaded before the first check is
    called.

    `options` replace defaults of the component that do not suit a test. `plugins` are passed to
    `Forge(plugins=...)`; if `forge` is given, it is used instead. `example` is a function that
    returns an input batch of shape (5, ...) for an objective that does not score images. `shape`,
    (C, H, W) or (D,), is the shape of the images for a model or a loss that supports none of the
    default shapes.
    """
    if kind not in CHECKED:
        hint = f"choose one of {', '.join(CHECKED)}"
        raise UsageError(f"there are no checks for {kind}", hint=hint)
    from latentforge.conformance import callbacks, datasets, explorers, losses, models, objectives
    from latentforge.conformance.assertions import SHAPES
    from latentforge.conformance.common import checks_for

    subject = Subject(kind, name, dict(options or {}), tuple(plugins), forge, example, shape)
    modules = (models, losses, datasets, explorers, objectives, callbacks)
    kind_checks = checks_in(modules[CHECKED.index(kind)])
    subject.first_check = check_name(kind_checks[0])
    checks: list[Check] = []
    for function in (*checks_for(kind), *kind_checks):
        if "shape" in signature(function).parameters:
            checks += [
                Check(check_name(function, shape_name), function, (subject, SHAPES[shape_name]))
                for shape_name in SHAPES
            ]
        else:
            checks.append(Check(check_name(function), function, (subject,)))
    return checks


def checks_in(module: ModuleType) -> list[Callable[..., None]]:
    """The checks of a kind: the public functions that its module defines, in order. If the first
    one fails, the others are skipped. A function with a parameter `shape` becomes a check for each
    of the default shapes."""
    functions = [f for f in vars(module).values() if isfunction(f)]
    return [f for f in functions if f.__module__ == module.__name__ and f.__name__[0] != "_"]


def check_name(function: Callable[..., None], case: str = "") -> str:
    """The name of a check: the function's name with spaces, and the case in brackets."""
    text = function.__name__.replace("_", " ")
    return f"{text} [{case}]" if case else text
