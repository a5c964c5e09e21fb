"""`latentforge data`: shows or downloads a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import Json, Sets, forge_of, print_result, table
from latentforge.errors import LatentForgeError, UsageError

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
    with about_data(ctx, name):
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
    with about_data(ctx, name):
        folder = forge_of(ctx).fetch_data(name, set_ or ())
    print_result({"dataset": name, "folder": str(folder)}, json, [f"{name} is in {folder}"])


@contextmanager
def about_data(ctx: typer.Context, name: str) -> Iterator[None]:
    """Refuse a run instead of a dataset's name, and write hints about another dataset as a command,
    because the commands of this module have no option --data."""
    if (Path(name) / "run.json").is_file():
        from latentforge.config.data_command import data_command
        from latentforge.runs.compatibility import resolve_stored_config

        forge = forge_of(ctx)
        config = resolve_stored_config(forge.registry, forge.open_run(name))
        hint = data_command(config.dataset, config.data) if config.dataset else ""
        raise UsageError(f"{name} is a run, not a dataset", hint=hint)
    try:
        yield
    except LatentForgeError as error:
        texts = [
            re.sub(r"--data (\S+)", r"latentforge data show \1", text)
            for text in (error.hint, *error.details)
        ]
        error.hint, error.details = texts[0], tuple(texts[1:])
        raise


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inner(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _inner(value: object) -> str:
    """The number of images of a split, or those of its classes in parentheses; the limits of a
    numeric factor, or the names of a categorical one."""
    if isinstance(value, list):
        if not isinstance(value[0], str):
            return " to ".join(f"{limit:.4g}" for limit in value)
        value = dict.fromkeys(value, "")
    if not isinstance(value, dict):
        return str(value)
    counts = [f"{name} {count}".strip() for name, count in value.items()]
    more = [f"and {len(counts) - MAX_CLASSES} more"] if len(counts) > MAX_CLASSES else []
    return f"({', '.join(counts[:MAX_CLASSES] + more)})"
