"""`latentforge config`: checks configuration files without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import Json, forge_of, print_result

app = typer.Typer(help="Check config files.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check")
def check(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file.")],
    json: Json = False,
) -> None:
    """Check a config file and print it with every default filled in.

    Example: latentforge config check my-run.toml
    """
    from latentforge.config.request import Draft
    from latentforge.config.resolve import resolve
    from latentforge.io.toml import format_toml

    forge = forge_of(ctx)
    draft = Draft()
    draft.read_file(file)
    resolved = resolve(draft, forge.registry).as_dict()
    lines = [f"# {file} is valid", "", format_toml(resolved)]
    print_result({"file": str(file), "config": resolved}, json, lines)
