"""Answers to likely mistakes on the command line: an option of a component given as a flag, an
assignment without its section, and arguments in the wrong order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from latentforge.errors import UsageError
from latentforge.io.paths import quoted

if TYPE_CHECKING:
    from latentforge.plugins.registry import Registry


class TrainCommand(TyperCommand):
    """A command that answers `--latent-dim 4` with `--set model.latent_dim=4`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {option for parameter in self.params for option in parameter.opts}
        for place, text in enumerate(args):
            flag, equals, value = text.partition("=")
            if flag == "--":
                break
            if not flag.startswith("--") or flag in known or flag == "--help":
                continue
            registry = ctx.obj.forge(warn=False).registry
            value = value if equals else "".join(args[place + 1 : place + 2]) or "VALUE"
            name = flag.lstrip("-").replace("-", "_")
            if hint := self.suggest(registry, name, value, args):
                raise UsageError(f"no such option: {flag}", hint=hint)
        return super().parse_args(ctx, args)

    def suggest(self, registry: Registry, name: str, value: str, words: Sequence[str]) -> str:
        from latentforge.config.suggestions import suggest_options

        return suggest_options(registry, name, value, words)


class ExploreCommand(TrainCommand):
    """A command that answers `--steps 5` with `--set steps=5`."""

    def suggest(self, registry: Registry, name: str, value: str, words: Sequence[str]) -> str:
        from latentforge.config.selection import suggest_explorer_option

        return suggest_explorer_option(registry, name, value, words)


def check_given(registry: Registry, explorer: str, run: Path | None) -> Path:
    """Return the run of `latentforge explore`. Raises UsageError if the run, or the name of the
    explorer, is missing."""
    if run is None and (Path(explorer) / "run.json").is_file():
        hint = f"`latentforge explore NAME {quoted(explorer)}`; `latentforge list explorers` lists"
        raise UsageError("the name of an explorer is missing", hint=f"{hint} the names")
    if run is None:
        name = registry.get("explorers", explorer).name
        hint = f"`latentforge explore {name} RUN`; `latentforge runs` lists the runs"
        raise UsageError("the run folder is missing", hint=hint)
    return run
