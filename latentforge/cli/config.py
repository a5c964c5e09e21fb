"""`latentforge config`: configuration files, checked without training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from latentforge.cli.output import Json, answer, forge_of

app = typer.Typer(help="Check config files.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config() -> None:
    """Check config files."""


@app.command("check")
def check(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file.")],
    json: Json = False,
) -> None:
    """Check a config file and print it with every default filled in.

    Example: latentforge config check my-run.toml
    """
    from latentforge.config import Draft, resolve

    forge = forge_of(ctx)
    draft = Draft()
    draft.read_file(file)
    resolved = resolve(draft, forge.registry).as_dict()
    answer({"file": str(file), "config": resolved}, json, [f"# {file} is valid", *toml(resolved)])


def toml(config: dict[str, Any]) -> list[str]:
    """A resolved configuration as TOML lines; what is unset has no line."""
    lines: list[str] = []
    for section, values in config.items():
        tables = values if isinstance(values, list) else [values]
        heading = f"[[{section}]]" if isinstance(values, list) else f"[{section}]"
        for entries in tables:
            lines += ["", heading]
            lines += [
                f"{_key(key)} = {_toml(value)}"
                for key, value in entries.items()
                if value is not None
            ]
    return lines


def _toml(value: Any) -> str:
    import json

    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    # JSON's scalars and arrays are TOML's too, but for its surrogates and a bare DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
