"""Whether components keep their contracts: named checks, one for each promise of docs/contracts.md.

`latentforge.testing` gives them to the tests of a plugin, `latentforge plugins check` to everybody.
No pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    from latentforge.conformance.common import checks_for

    modules: Any = (models, losses, datasets, explorers, objectives, callbacks)
    subject = Subject(kind, name, dict(options or {}), tuple(plugins), forge, example, shape)
    own = modules[CHECKED.index(kind)]
    subject.foremost = name_of(own.CHECKS[0])
    found: list[Check] = []
    for function in (*checks_for(kind), *own.CHECKS):
        cases: Mapping[str, Any] = getattr(function, "cases", {"": None})
        for case, value in cases.items():
            given = (subject,) if value is None else (subject, value)
            found.append(Check(name_of(function, case), function, given))
    return found


def name_of(function: Callable[..., None], case: str = "") -> str:
    """`gradients_reach_every_parameter` as one reads it."""
    words = function.__name__.replace("_", " ")
    return f"{words} [{case}]" if case else words
