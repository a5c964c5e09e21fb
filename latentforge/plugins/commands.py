"""Commands of plugins: entry points of the group `latentforge.commands`, listed in the help by what
their metadata say, and imported when they are called."""

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
    called,
    from_environment,
    installed,
    origin_of,
    points_of,
)
from latentforge.runtime.stdout import STDOUT

# Words for the user, our own or those that Typer finds for them, and what whoever called us waits
# for: of its click, which Typer keeps to itself, no other name is public.
OURS = (
    *(LatentForgeError, BrokenPipeError, SystemExit, KeyboardInterrupt, typer.Exit, typer.Abort),
    next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"),
)


class PluginCommand(TyperCommand):
    """A command whose code is not loaded yet."""

    def __init__(self, point: EntryPoint, others: list[EntryPoint]) -> None:
        self.distribution, version = origin_of(point.dist)
        whose = f"{self.distribution} {version}".strip()
        super().__init__(point.name, callback=None, short_help=f"A command of {whose}.")
        self.point, self.others = point, others

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Of the command itself, which is loaded here."""
        found = self.load()
        with self.guard():
            return found.make_context(info_name, args, parent=parent, **extra)

    def load(self) -> Any:
        """Raises PluginError where it cannot be loaded, or two distributions offer it."""
        if self.others:
            offered = " and ".join(map(origin, [self.point, *self.others]))
            raise PluginError(
                f"command {self.name!r} is offered by {offered}",
                remedy=f"pip uninstall {named(self.point)}, or the other one",
            )
        try:
            found = command_of(self.point.load(), str(self.name))
        except (LatentForgeError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise self.fault("cannot be loaded", error) from error
        invoke = found.invoke

        def guarded(ctx: Any) -> Any:
            # its answer is its own, with --json too
            with self.guard(), redirect_stdout(STDOUT[-1] if STDOUT else sys.stdout):
                return invoke(ctx)

        found.invoke = guarded
        return found

    @contextmanager
    def guard(self) -> Iterator[None]:
        """PluginError instead of what the command's own code raises."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, OURS):
                raise
            raise self.fault("failed", error) from error

    def fault(self, how: str, error: BaseException) -> PluginError:
        place = place_in(error, re.split(r"[.:\s]", self.point.value)[0])
        return PluginError(
            f"command {self.name!r} of {origin(self.point)} {how}: {one_line(error)}{place}",
            remedy=f"pip install --upgrade {named(self.point)}",
        )


def command_of(target: Any, name: str) -> Any:
    """A Typer app, a click command or a function as the command `name`."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    if isinstance(target, typer.Typer):
        found = typer.main.get_command(target)
    elif isinstance(target, TyperCommand | TyperGroup):
        found = target
    elif hasattr(target, "main"):  # click's, which Typer's own classes have nothing to do with

        def call(ctx: typer.Context) -> None:
            target.main(ctx.args, prog_name=f"latentforge {name}")

        whole = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(name, context_settings=whole, add_help_option=False)(call)
        found = typer.main.get_command(app)
    elif callable(target):
        app.command(name)(target)
        found = typer.main.get_command(app)
    else:
        raise TypeError(f"{target!r} is no Typer app, no command and no function")
    found.name = name
    return found


@cache
def commands(off: tuple[str, ...] = ()) -> dict[str, PluginCommand]:
    """Those of all installed plugins, by name, but for what LATENTFORGE_PLUGINS and `-p no:NAME`
    (`off`) leave out: the commands of a distribution go when all of its plugins do."""
    points = points_of(COMMANDS)[0]
    only = from_environment()
    if off or only is not None:
        every = installed()
        kept = every if only is None else [c for name in only for c in called(every, name)]
        gone = [c for name in off for c in called(every, name)]
        left = {c.plugin.distribution for c in kept if c not in gone}
        points = [point for point in points if named(point) in left]
    found: dict[str, list[EntryPoint]] = {}
    for point in points:
        known = found.setdefault(point.name, [])
        if all(other.value != point.value for other in known):  # a stale second dist-info
            known.append(point)
    # Only namesakes are told apart by their distributions: reading METADATA takes longer than all
    # else that the help does with a command.
    both = {name: sorted(same, key=named) if same[1:] else same for name, same in found.items()}
    return {name: PluginCommand(both[name][0], both[name][1:]) for name in sorted(both)}


def names_by_distribution() -> dict[str, list[str]]:
    """The names of all commands, by the distribution that offers them."""
    found: dict[str, list[str]] = {}
    for name, command in sorted(commands().items()):
        found.setdefault(command.distribution, []).append(name)
    return found


def named(point: EntryPoint) -> str:
    return origin_of(point.dist)[0]


def origin(point: EntryPoint) -> str:
    return " ".join(origin_of(point.dist)).strip()
