"""The types that checks use: Check, Subject, CheckFailed and CheckSkipped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from latentforge.errors import one_line, place_in
from latentforge.plugins.attribution import code_package
from latentforge.plugins.registry import Entry

if TYPE_CHECKING:
    from latentforge.forge import Forge

T = TypeVar("T")


class CheckFailed(AssertionError):
    """A requirement is not met. Contains what was observed, and how to fix it."""

    def __init__(self, saw: str, hint: str) -> None:
        super().__init__(f"{saw}; {hint}")
        self.saw, self.hint = saw, hint


class CheckSkipped(Exception):
    """A check does not apply to this component or is not possible here. The message gives the
    reason."""


@dataclass(frozen=True)
class Check:
    """A requirement for one component. Calling it raises CheckFailed if the requirement is not met
    and CheckSkipped if there is nothing to check. Exceptions of the component pass through."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]  # the Subject, and a shape for some checks

    def __call__(self) -> None:
        """Run the check and restore the process-wide settings, so that the next check starts in the
        same state."""
        subject: Subject = self.arguments[0]
        if subject.first_check_failed and self.name != subject.first_check:
            raise CheckSkipped(f"see {subject.first_check!r}")
        # importing this module would load torch, which the checks of a whole plugin do not need
        state = sys.modules.get("latentforge.conformance.global_state")
        try:
            with state.restore_settings() if state else nullcontext():
                self.function(*self.arguments)
        except BaseException as error:
            failed = not isinstance(error, CheckSkipped)
            subject.first_check_failed |= failed and self.name == subject.first_check
            raise

    def __str__(self) -> str:
        return self.name


def require(condition: Any, saw: str, hint: str) -> None:
    """Raise CheckFailed unless `condition` is true."""
    if not bool(condition):
        raise CheckFailed(saw, hint)


@dataclass(eq=False)
class Subject:
    """A component under test, given by kind and name. Checks share what is stored in `cache`."""

    kind: str
    name: str
    options: dict[str, Any]
    plugins: tuple[Any, ...]
    user_forge: Forge | None = None
    example: Any = None  # returns the inputs of an objective that does not score images
    shape: tuple[int, ...] | None = None  # the shape of images for a model or a loss
    first_check: str = ""  # the check that all others depend on
    first_check_failed: bool = False  # if it failed, the others are skipped
    cache: dict[str, Any] = field(default_factory=dict)  # results that checks share, by name

    @cached_property
    def forge(self) -> Forge:
        from latentforge.forge import Forge

        return self.user_forge or Forge(self.plugins)

    @cached_property
    def entry(self) -> Entry:
        """The component. The capabilities of a model are those that it has with the options."""
        entry = self.forge.registry.get(self.kind, self.name)
        if not self.options or self.kind != "models":
            return entry
        from latentforge.config.resolve import check_options

        return entry.with_options(check_options(entry.spec.config, self.options, self.name))

    def describe_error(self, error: Exception) -> str:
        """The message of an exception, and the innermost line of the plugin's code."""
        return one_line(error) + place_in(error, code_package(self.entry.plugin.module))

    @cached_property
    def config(self) -> Any:
        from latentforge.config.resolve import check_options

        return check_options(self.entry.spec.config, self.options, self.name)

    def once(self, key: str, make: Callable[[], T]) -> T:
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value
