"""Answers to likely mistakes on the command line: an option of a component given as a flag, an
assignment without its section, and arguments in the wrong order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from latentforge.errors import UsageError
from latentforge.io.paths import quoted


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
            from latentforge.config.resolve import find_keys

            registry = ctx.obj.forge(warn=False).registry
            keys = [*find_keys(registry, flag.lstrip("-").replace("-", "_"), args)]
            value = value if equals else "".join(args[place + 1 : place + 2]) or "VALUE"
            if keys:
                hint = " or ".join(f"--set {quoted(f'{key}={value}')}" for key in keys)
                raise UsageError(f"no such option: {flag}", hint=hint)
        return super().parse_args(ctx, args)


def check_order(command: str, first: str, run: Path) -> None:
    """Raise UsageError if `first`, which should be the name of a component, is a run folder and
    `run` is none."""
    if (Path(first) / "run.json").is_file() and not (run / "run.json").is_file():
        raise UsageError(
            f"{first} is a run, but `latentforge {command}` takes it as the second argument",
            hint=f"latentforge {command} {quoted(run)} {quoted(first)}",
        )
