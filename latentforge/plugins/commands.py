"""Commands of plugins: entry points of the group `latentforge.commands`. `--help` lists them
from package metadata; a command is imported when it is called."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from latentforge.errors import LatentForgeError, PluginError, one_line, place_in
from latentforge.plugins.discovery import (
    COMMANDS,
    find_candidates,
    find_installed,
    from_environment,
    origin_of,
    points_of,
)
from latentforge.runtime.stdout import STDOUT, escape_controls

# Exceptions that are messages for the user, or exits. Typer does not export ClickException.
NO_FAULTS: tuple[type[BaseException], ...] = (
    *(LatentForgeError, BrokenPipeError, SystemExit, KeyboardInterrupt, typer.Exit, typer.Abort),
    next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"),
)


class PluginCommand(TyperCommand):
    """A command whose code is loaded when it is called. `others` are other entry points of the
    same name; if there are any, loading the command is an error."""

    def __init__(self, point: EntryPoint, others: list[EntryPoint]) -> None:
        self.distribution, version = origin_of(point.dist)
        self.origin = escape_controls(f"{self.distribution} {version}".strip(), keep="")
        super().__init__(point.name, callback=None, short_help=f"A command of {self.origin}.")
        self.point, self.others = point, others

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Load the command and create its context."""
        command = self.load()
        with self.guard():
            return command.make_context(info_name, args, parent=parent, **extra)

    def load(self) -> Any:
        """Load the command. Raises PluginError if it fails, or if two distributions provide it."""
        if self.others:
            others = (" ".join(origin_of(point.dist)).strip() for point in self.others)
            raise PluginError(
                f"command {self.name!r} is offered by {' and '.join([self.origin, *others])}",
                hint=f"pip uninstall {self.distribution}, or uninstall the other package",
            )
        try:
            command = command_of(self.point.load(), str(self.name))
        except (LatentForgeError, KeyboardInterrupt):
            raise
        except BaseException as error:  # also SystemExit
            raise self.plugin_error("cannot be loaded", error) from error
        invoke = command.invoke

        def guarded(ctx: Any) -> Any:
            # with --json print() writes to stderr, but this command's output belongs on stdout
            with self.guard(), redirect_stdout(STDOUT[-1] if STDOUT else sys.stdout):
                return invoke(ctx)

        command.invoke = guarded
        return command

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn an exception of the command's code into a PluginError."""
        try:
            yield
        except NO_FAULTS:
            raise
        except BaseException as error:
            raise self.plugin_error("failed", error) from error

    def plugin_error(self, problem: str, error: BaseException) -> PluginError:
        location = place_in(error, re.split(r"[.:\s]", self.point.value)[0])
        return PluginError(
            f"command {self.name!r} of {self.origin} {problem}: {one_line(error)}{location}",
            hint=f"pip install --upgrade {self.distribution}",
        )


def command_of(target: Any, name: str) -> Any:
    """Turn a Typer app, a click command or a function into the command `name`."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    elif isinstance(target, TyperCommand | TyperGroup):
        command = target
    elif hasattr(target, "main"):  # a click command: Typer's classes do not derive from click's

        def call(ctx: typer.Context) -> None:
            target.main(ctx.args, prog_name=f"latentforge {name}")

        all_arguments = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(name, context_settings=all_arguments, add_help_option=False)(call)
        command = typer.main.get_command(app)
    elif callable(target):
        app.command(name)(target)
        command = typer.main.get_command(app)
    else:
        raise TypeError(f"{target!r} is not a Typer app, a command or a function")
    command.name = name
    return command


@cache
def commands(off: tuple[str, ...] = ()) -> dict[str, PluginCommand]:
    """The commands of all installed plugins by name, except those that LATENTFORGE_PLUGINS and
    `-p no:NAME` (`off`) exclude. A distribution's commands are excluded if all its plugins are."""
    points = points_of(COMMANDS)[0]
    only = from_environment()
    if off or only is not None:
        enabled = find_installed()
        excluded = [c for name in off for c in find_candidates(enabled, name)]
        if only is not None:
            enabled = [c for name in only for c in find_candidates(enabled, name)]
        remaining = {c.plugin.distribution for c in enabled if c not in excluded}
        points = [point for point in points if origin_of(point.dist)[0] in remaining]
    points_by_name: dict[str, list[EntryPoint]] = {}
    for point in points:
        namesakes = points_by_name.setdefault(point.name, [])
        # an equal value comes from a stale second dist-info
        if all(other.value != point.value for other in namesakes):
            namesakes.append(point)
    for namesakes in points_by_name.values():
        if len(namesakes) > 1:  # sorted only if needed, as reading METADATA is slow
            namesakes.sort(key=lambda point: origin_of(point.dist)[0])
    return {
        name: PluginCommand(first, others)
        for name, (first, *others) in sorted(points_by_name.items())
    }


def names_by_distribution() -> dict[str, list[str]]:
    """The names of all commands, by the distribution that provides them."""
    names: dict[str, list[str]] = {}
    for name, command in commands().items():
        names.setdefault(command.distribution, []).append(name)
    return names
