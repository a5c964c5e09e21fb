"""`latentforge decode`: decodes codes into images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentforge.cli.output import Device, Json, Sets, Weights, data_of, forge_of, print_result
from latentforge.io.text import counted


def decode(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    codes: Annotated[Path, typer.Argument(help="An .npz or .parquet file with z (N, D).")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    condition: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The class of a conditional model.  [default: the labels in the file]",
        ),
    ] = None,
    checkpoint: Weights = "last",
    set_: Sets = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Decode codes to images.

    Writes decoded.npz, the first 1,000 images as PNG files, and a contact sheet. --set
    sampler.KEY=VALUE sets an inference option of the model.

    Example: latentforge decode runs/ae-mnist-1 codes.npz --out decoded
    """
    request: Any = {"condition": condition, "checkpoint": checkpoint, "device": device}
    result = forge_of(ctx).decode(run, codes, out, **request, sampler=set_ or ())
    examples = data_of(ctx, run).adapt(counted(result["images"], "image"))
    drawn = f"{examples}, {result['pictures']} of them as PNG"
    print_result(result, json, [drawn, *result["files"]])
