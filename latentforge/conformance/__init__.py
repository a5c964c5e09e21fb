"""Whether components keep their contracts: named checks, one for each promise of docs/contracts.md.

`latentforge.testing` gives them to the tests of a plugin, `latentforge plugins check` to everybody.
No pytest.
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
"""The kinds of components that there are checks for."""


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
    """The checks of a component, in order; no plugin is loaded before the first one is called.

    `options` are those of the component where its defaults will not do for a test. `plugins` are
    what `Forge(plugins=...)` takes; a `forge` that is given has loaded them. `example` makes the
    rows (5, ...) that an objective looks at where they are no images, and `shape` (C, H, W) or
    (D,) is that of the images for a model or a loss which takes none of the usual ones.
    """
    if kind not in CHECKED:
        raise UsageError(f"there are no checks for {kind}", remedy=f"one of {', '.join(CHECKED)}")
    from latentforge.conformance import callbacks, datasets, explorers, losses, models, objectives
    from latentforge.conformance.assertions import SHAPES
    from latentforge.conformance.common import checks_for

    subject = Subject(kind, name, dict(options or {}), tuple(plugins), forge, example, shape)
    modules = (models, losses, datasets, explorers, objectives, callbacks)
    own = checks_in(modules[CHECKED.index(kind)])
    subject.foremost = name_of(own[0])
    found: list[Check] = []
    for function in (*checks_for(kind), *own):
        if "shape" in signature(function).parameters:
            found += [Check(name_of(function, s), function, (subject, SHAPES[s])) for s in SHAPES]
        else:
            found.append(Check(name_of(function), function, (subject,)))
    return found


def checks_in(module: ModuleType) -> list[Callable[..., None]]:
    """The checks of a kind: the public functions that its module defines, in their order. If the
    first one fails, the others are skipped. One that takes a `shape` is a check for each of the
    usual shapes."""
    functions = [f for f in vars(module).values() if isfunction(f)]
    return [f for f in functions if f.__module__ == module.__name__ and f.__name__[0] != "_"]


def name_of(function: Callable[..., None], case: str = "") -> str:
    """`gradients_reach_every_parameter` as one reads it."""
    words = function.__name__.replace("_", " ")
    return f"{words} [{case}]" if case else words
