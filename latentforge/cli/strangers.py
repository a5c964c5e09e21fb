"""Commands of plugins: entry points of the group `latentforge.commands`, listed in the help by what
their metadata say, and imported when they are called."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperCommand

from latentforge.discovery import from_environment, origin_of, points_of
from latentforge.errors import LatentForgeError, PluginError, one_line, place_in
from latentforge.registry import same

GROUP = "latentforge.commands"


class Stranger(TyperCommand):
    """A command whose code is not loaded yet."""

    def __init__(self, point: EntryPoint, others: list[EntryPoint]) -> None:
        super().__init__(point.name, callback=None, short_help=f"A command of {origin(point)}.")
        self.point, self.others = point, others

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Of the command itself, which is loaded here."""
        return self.load().make_context(info_name, args, parent=parent, **extra)

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
        except LatentForgeError:
            raise
        except (Exception, SystemExit) as error:
            raise self.fault("cannot be loaded", error) from error
        invoke = found.invoke

        def guarded(ctx: Any) -> Any:
            try:
                return invoke(ctx)
            except Exception as error:
                ours = (LatentForgeError, typer.Abort, BrokenPipeError)
                if isinstance(error, ours) or hasattr(error, "exit_code"):
                    raise  # words for the user, ours or click's own, or for whoever called us
                raise self.fault("failed", error) from error

        found.invoke = guarded
        return found

    def fault(self, how: str, error: BaseException) -> PluginError:
        place = place_in(error, re.split(r"[.:\s]", self.point.value)[0])
        return PluginError(
            f"command {self.name!r} of {origin(self.point)} {how}: {one_line(error)}{place}",
            remedy=f"pip install --upgrade {named(self.point)}",
        )


def command_of(target: Any, name: str) -> Any:
    """A Typer app, a click command or a function as the command `name`."""
    if isinstance(target, typer.Typer):
        found = typer.main.get_command(target)
    elif hasattr(target, "make_context"):
        found = target
    elif callable(target):
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(name)(target)
        found = typer.main.get_command(app)
    else:
        raise TypeError(f"{target!r} is no Typer app, no command and no function")
    found.name = name
    return found


@cache
def commands() -> dict[str, Stranger]:
    """Those of all installed plugins, by name; of LATENTFORGE_PLUGINS where that is set."""
    only = from_environment()
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(points_of(GROUP)[0], key=lambda p: (p.name, named(p))):
        if only is None or any(same(name, named(point)) or name == point.name for name in only):
            known = found.setdefault(point.name, [])
            if all(other.value != point.value for other in known):  # a stale second dist-info
                known.append(point)
    return {name: Stranger(first, others) for name, (first, *others) in found.items()}


def named(point: EntryPoint) -> str:
    return origin_of(point.dist)[0]


def origin(point: EntryPoint) -> str:
    return " ".join(origin_of(point.dist)).strip()
