"""`latentforge data`: shows or downloads a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import Json, Sets, forge_of, print_result, table

MAX_CLASSES = 20  # maximum number of classes whose images are counted in a line

app = typer.Typer(
    help="Show datasets and download them.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("show")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="See `latentforge list datasets`.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="The image file.  [default: data-<name>-<n>.png]"),
    ] = None,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Show a dataset's sizes, classes and range, with samples.

    Example: latentforge data show digits
    """
    result = forge_of(ctx).describe_data(name, set_ or (), out=out)
    rows = [[f"{key}:", _text(value)] for key, value in result.items()]
    print_result(result, json, table(rows))


@app.command("fetch")
def fetch(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="See `latentforge list datasets`.")],
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Download a dataset.

    Example: latentforge data fetch mnist
    """
    folder = forge_of(ctx).fetch_data(name, set_ or ())
    print_result({"dataset": name, "folder": str(folder)}, json, [f"{name} is in {folder}"])


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inner(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _inner(value: object) -> str:
    """The number of images of a split, or those of its classes in parentheses."""
    if not isinstance(value, dict):
        return str(value)
    counts = [f"{name} {count}" for name, count in value.items()]
    more = [f"and {len(counts) - MAX_CLASSES} more"] if len(counts) > MAX_CLASSES else []
    return f"({', '.join(counts[:MAX_CLASSES] + more)})"
