"""Checks of the plugin contracts: a named check for each requirement in docs/contracts.md.

`latentforge.testing` passes them to the tests of a plugin, and `latentforge plugins check` runs
them. Must not import pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

from latentforge.conformance.subject import Check, CheckFailed, CheckSkipped, NotChecked, Subject
from latentforge.errors import UsageError

__all__ = ["CHECKED", "Check", "CheckFailed", "CheckSkipped", "NotChecked", "checks_of"]

CHECKED = ("models", "losses", "datasets", "explorers", "objectives", "measures", "callbacks")
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
    data: Any = None,
    roles: Mapping[str, Any] | None = None,
    other_options: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> list[Check]:
    """Return the checks of a component, in order. No plugin is loaded before the first check is
    called.

    `options` replace defaults of the component that do not suit a test. `other_options` replace
    those of other components that the checks use, by kind and reference. `plugins` are passed to
    `Forge(plugins=...)`; if `forge` is given, it is used instead. `example` is a function that
    returns an input batch of shape (5, ...) for an objective that does not score images.

    The checks use random data of several shapes, or of the `example` in the spec. `shape` is
    another shape of one example, (C, H, W), (C, L) or (D,). `data` is a dataset's name, or data as
    in `Forge.load_data`. `roles` maps roles of the component to runs, which are used instead of
    tiny ones; their data is used unless `shape` or `data` is given.
    """
    if data is not None and shape:
        raise UsageError("data has a shape of its own", hint="give data or shape, not both")
    if kind not in CHECKED:
        hint = f"choose one of {', '.join(CHECKED)}"
        raise UsageError(f"there are no checks for {kind}", hint=hint)
    from latentforge.conformance.common import checks_for
    from latentforge.conformance.examples import SHAPES

    subject = Subject(
        kind,
        name,
        dict(options or {}),
        tuple(plugins),
        forge,
        example,
        shape,
        data,
        {role: _with_absolute_path(run) for role, run in (roles or {}).items()},
        dict(other_options or {}),
    )
    kind_checks = checks_in(kind)
    subject.first_check = check_name(kind_checks[0])
    checks: list[Check] = []
    for function in (*checks_for(kind), *kind_checks):
        if "case" in signature(function).parameters:
            checks += [
                Check(check_name(function, case), function, (subject, case))
                for case in (*SHAPES, "example")
            ]
        else:
            checks.append(Check(check_name(function), function, (subject,)))
    return checks


def checks_in(kind: str) -> list[Callable[..., None]]:
    """The checks of a kind: the public functions that its modules define, in order. If the first
    one fails, the others are skipped. A function with a parameter `case` becomes a check for each
    of the default shapes, and one for the example of the component."""
    from latentforge.conformance import (
        callbacks,
        codes,
        datasets,
        explorers,
        inference,
        losses,
        measures,
        models,
        objectives,
    )

    modules = {
        "models": (models, codes, inference),
        "losses": (losses,),
        "datasets": (datasets,),
        "explorers": (explorers,),
        "objectives": (objectives,),
        "measures": (measures,),
        "callbacks": (callbacks,),
    }
    functions = [(f, m) for m in modules[kind] for f in vars(m).values() if isfunction(f)]
    return [f for f, m in functions if f.__module__ == m.__name__ and f.__name__[0] != "_"]


def _with_absolute_path(run: Any) -> Any:
    """The same run or path. Some checks change the working folder."""
    if isinstance(run, str | Path):
        return Path(run).absolute()
    moved = copy(run)
    moved.path = run.path.absolute()
    return moved


def check_name(function: Callable[..., None], case: str = "") -> str:
    """The name of a check: the function's name with spaces, and the case in brackets."""
    text = function.__name__.replace("_", " ")
    return f"{text} [{case}]" if case else text
