"""`latentforge encode`: encodes images into a file of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import Device, Json, Sets, Weights, data_of, forge_of, print_result


def encode(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new .parquet or .npz file.")],
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another dataset.  [default: the run's]")
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="train, validation, test, or all of them.")
    ] = "test",
    checkpoint: Weights = "last",
    set_: Sets = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write the codes of images, with labels, KL and thumbnails. --set sets options of the data, as
    in --set data.root=FOLDER, and inference options of the model, as in --set sampler.KEY=VALUE.

    Example: latentforge encode runs/ae-mnist-1 --split all --out codes.parquet

    Then: embedding-atlas codes.parquet --vector z --image image --umap-metric euclidean
    """
    result = forge_of(ctx).encode(
        run, out, data=data, options=set_ or (), split=split, checkpoint=checkpoint, device=device
    )
    counts = ", ".join(f"{name} {count}" for name, count in result["images"].items())
    columns = ", ".join(result["columns"])
    title = f"{data_of(ctx, run).adapt('images')}:"
    width = max(len(title), len("columns:"))
    lines = [f"{title:{width}} {counts}", f"{'columns:':{width}} {columns}"]
    print_result(result, json, [str(out), *lines])
