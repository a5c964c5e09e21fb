"""The types that checks use: Check, Subject, CheckFailed, CheckSkipped and NotChecked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from latentforge.errors import LatentForgeError, one_line, place_in
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
    """A check does not apply to this component or is not possible on this machine. The message
    gives the reason."""


class NotChecked(CheckSkipped):
    """A check applies to this component, but could not be tried, because an input is missing: data
    that the component accepts, a file, an option or another run. The message says what to give."""


def describe(error: LatentForgeError) -> str:
    """The message of an error with its details."""
    return "; ".join([error.message, *error.details])


def rejected_run(error: LatentForgeError) -> NotChecked:
    """The result for a component that refuses the tiny run of the checks."""
    why = f"it rejects the test run: {describe(error)}"
    return NotChecked(f"{why}; give --set COMPONENT.KEY=VALUE or --data NAME")


@dataclass(frozen=True)
class Check:
    """A requirement for one component. Calling it raises CheckFailed if the requirement is not met
    and CheckSkipped if there is nothing to check. Exceptions of the component pass through."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]  # the Subject, and the name of a case for some checks

    def __call__(self) -> None:
        """Run the check and restore the process-wide settings, so that the next check starts in the
        same state."""
        subject: Subject = self.arguments[0]
        if subject.first_check_outcome and self.name != subject.first_check:
            raise subject.first_check_outcome(f"see {subject.first_check!r}")
        # importing this module would load torch, which the checks of a whole plugin do not need
        state = sys.modules.get("latentforge.conformance.global_state")
        try:
            with state.restore_settings() if state else nullcontext():
                self.function(*self.arguments)
        except BaseException as error:
            if self.name == subject.first_check and type(error) is not CheckSkipped:
                missing = isinstance(error, NotChecked)
                subject.first_check_outcome = NotChecked if missing else CheckSkipped
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
    options: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[Any, ...] = ()
    user_forge: Forge | None = None
    example: Any = None  # returns the inputs of an objective that does not score images
    shape: tuple[int, ...] | None = None  # of one example of the data
    data: Any = None  # the data of the checks: a dataset's name, or data as in Forge.load_data
    roles: Mapping[str, Any] = field(default_factory=dict)  # given runs by role
    other_options: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    first_check: str = ""  # the check that all others depend on
    first_check_outcome: type[CheckSkipped] | None = None  # of the others if it did not pass
    cache: dict[str, Any] = field(default_factory=dict)  # results that checks share, by name

    @cached_property
    def forge(self) -> Forge:
        from latentforge.forge import Forge

        return self.user_forge or Forge(self.plugins)

    @cached_property
    def entry(self) -> Entry:
        """The component, with the capabilities that it has with the options of the checks."""
        entry = self.forge.registry.get(self.kind, self.name)
        depends = callable(getattr(entry.spec, "provides", None))
        return entry.with_options(self._check(entry)) if self.options and depends else entry

    @cached_property
    def config(self) -> Any:
        return self._check(self.entry)

    def _check(self, entry: Entry) -> Any:
        from latentforge.config.resolve import check_options

        return check_options(entry.spec.config, self.options, self.name)

    def options_of(self, entry: Entry) -> Mapping[str, Any]:
        """The options of this or of another component: those of the checks, or none."""
        if (entry.kind.plural, entry.reference) == (self.kind, self.entry.reference):
            return self.options
        return self.other_options.get((entry.kind.plural, entry.reference), {})

    def describe_error(self, error: Exception) -> str:
        """The message of an exception, and the innermost line of the plugin's code."""
        return one_line(error) + place_in(error, code_package(self.entry.plugin.module))

    def once(self, key: str, make: Callable[[], T]) -> T:
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value
