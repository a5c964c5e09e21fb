"""Answers to likely mistakes on the command line: an option of a component given as a flag, an
assignment without its section, and arguments in the wrong order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
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
            keys = [*find_keys(registry, flag.lstrip("-").replace("-", "_"), args)]
            value = value if equals else "".join(args[place + 1 : place + 2]) or "VALUE"
            if keys:
                hint = " or ".join(f"--set {quoted(f'{key}={value}')}" for key in keys)
                raise UsageError(f"no such option: {flag}", hint=hint)
        return super().parse_args(ctx, args)


def find_keys(registry: Registry, name: str, words: Sequence[str] = ()) -> Iterator[str]:
    """Yield the keys `section.name` of the options with this name: of [train], of [data], and of
    the components that `words` name or, if they name none, of any component of the kind."""
    from latentforge.config.schema import DataConfig, TrainConfig

    for section, config in (("train", TrainConfig), ("data", DataConfig)):
        if has_field(config, name):
            yield f"{section}.{name}"
    for section, kind in (("model", "models"), ("loss", "losses"), ("data", "datasets")):
        entries = registry.entries(kind)
        named = [entry for entry in entries if entry.name in words]
        if any(has_field(entry.spec.config, name) for entry in named or entries):
            yield f"{section}.{name}"


def has_field(config: Any, name: str) -> bool:
    return name in {field.name for field in fields(config)}


def check_order(command: str, first: str, run: Path) -> None:
    """Raise UsageError if `first`, which should be the name of a component, is a run folder and
    `run` is none."""
    if (Path(first) / "run.json").is_file() and not (run / "run.json").is_file():
        raise UsageError(
            f"{first} is a run, but `latentforge {command}` takes it as the second argument",
            hint=f"latentforge {command} {quoted(run)} {quoted(first)}",
        )
