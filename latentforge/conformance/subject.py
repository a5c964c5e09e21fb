"""What a check is, what it is of, and how it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from latentforge.errors import one_line, place_in
from latentforge.plugins.attribution import home_of
from latentforge.plugins.registry import Entry

T = TypeVar("T")


class CheckFailed(AssertionError):
    """A promise that is not kept: what was seen, and what to mend."""

    def __init__(self, saw: str, mend: str) -> None:
        super().__init__(f"{saw}; {mend}")
        self.saw, self.mend = saw, mend


class CheckSkipped(Exception):
    """A check that does not concern this component, or cannot be made here; says why."""


@dataclass(frozen=True)
class Check:
    """One promise of one component. Called, it raises CheckFailed where that is not kept, and
    CheckSkipped where there is nothing to check; what the component raises passes through."""

    name: str
    function: Callable[..., None]
    given: tuple[Any, ...]  # the Subject, and for some a shape

    def __call__(self) -> None:
        """Whatever the component changes of the process, the next check begins as this one did."""
        subject: Subject = self.given[0]
        if subject.barred and self.name != subject.foremost:
            raise CheckSkipped(f"see {subject.foremost!r}")
        # its import would load torch, which the checks of a plugin as a whole do without
        state = sys.modules.get("latentforge.conformance.global_state")
        try:
            with state.as_it_was() if state else nullcontext():
                self.function(*self.given)
        except BaseException as error:
            failed = not isinstance(error, CheckSkipped)
            subject.barred |= failed and self.name == subject.foremost
            raise

    def __str__(self) -> str:
        return self.name


def require(kept: Any, saw: str, mend: str) -> None:
    """CheckFailed unless `kept`."""
    if not bool(kept):
        raise CheckFailed(saw, mend)


@dataclass(eq=False)
class Subject:
    """A component under test, by its kind and name. What is made of it is made once."""

    kind: str
    name: str
    options: dict[str, Any]
    plugins: tuple[Any, ...]
    given: Any = None  # a Forge
    example: Any = None  # a function that makes what an objective looks at, where it is no image
    shape: tuple[int, ...] | None = None  # of the images that a model or a loss is tried on
    foremost: str = ""  # the check whose demands the others build on
    barred: bool = False  # it has failed, so that the others would say the same again
    kept: dict[str, Any] = field(default_factory=dict)  # what checks share, by a name

    @cached_property
    def forge(self) -> Any:
        from latentforge.forge import Forge

        return self.given or Forge(self.plugins)

    @cached_property
    def entry(self) -> Entry:
        entry: Entry = self.forge.registry.get(self.kind, self.name)
        return entry

    def told(self, error: Exception) -> str:
        """What an exception says, and the innermost line of the plugin's own code."""
        return one_line(error) + place_in(error, home_of(self.entry.plugin.module))

    @cached_property
    def config(self) -> Any:
        from latentforge.config.resolve import check_options

        return check_options(self.entry.spec.config, self.options, self.name)

    def once(self, key: str, make: Callable[[], T]) -> T:
        if key not in self.kept:
            self.kept[key] = make()
        kept: T = self.kept[key]
        return kept
