"""`latentforge explore`: runs an explorer on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import (
    Device,
    Json,
    Others,
    Quiet,
    Sets,
    Weights,
    forge_of,
    format_metrics,
    format_weights,
    parse_roles,
    print_result,
    table,
)


def explore(
    ctx: typer.Context,
    explorer: Annotated[str, typer.Argument(help="See `latentforge list explorers`.")],
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    with_: Others = None,
    checkpoint: Weights = "last",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder.  [default: RUN/explore/<explorer>]"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A named set of options; --set overrides it.")
    ] = None,
    set_: Sets = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Explore a run's latent space; `latentforge show explorer NAME` lists an explorer's options.

    Example: latentforge explore interpolate runs/ae-digits-1 --set 'classes=[3, 8]'
    """
    result = forge_of(ctx).explore(
        explorer,
        run,
        checkpoint=checkpoint,
        roles=parse_roles(with_),
        out=out,
        assignments=set_ or (),
        preset=preset,
        quiet=quiet,
        device=device,
    )
    rows = [*table(format_metrics(result["metrics"])), result["protocol"], *result["files"]]
    lines = [*format_weights(result), *result["notes"], *rows]
    print_result(result, json, [line for line in lines if line])
