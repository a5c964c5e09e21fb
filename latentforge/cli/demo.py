"""`latentforge demo`: the main job on embedded digits, in well under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentforge.cli.output import Json, answer, forge_of, table

# One thread: for networks this small a second one gains little, and on a busy machine, where the
# threads wait for each other, it costs ten times what it gains.
RUNS: dict[str, dict[str, Any]] = {
    "ae": {"model": {"hidden": [128]}, "train": {"epochs": 60, "batch_size": 32, "threads": 1}},
    "cnn-classifier": {"train": {"epochs": 40, "batch_size": 32, "lr": 3e-3, "threads": 1}},
}


def demo(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder.  [default: runs/demo-<n>]")
    ] = None,
    json: Json = False,
) -> None:
    """Train an autoencoder and a classifier on 1,797 real digits, measure both, walk between two.

    Example: latentforge demo
    """
    from latentforge.run import create_folder

    forge = forge_of(ctx)
    folder = create_folder(out, Path("runs"), "demo")
    rows, metrics = [["run", "figure", "test"]], {}
    for model, options in RUNS.items():
        run = forge.train(model, data="digits", run=folder / model, **options)
        metrics[model] = run.evaluate()
        rows += [[str(run.path), name, f"{value:.4g}"] for name, value in metrics[model].items()]
    found = forge.explore("interpolate", folder / "ae", assignments=["classes=[3, 8]"])
    picture = next(file for file in found["files"] if file.endswith(".png"))
    answer(
        {"out": str(folder), "metrics": metrics, "picture": picture},
        json,
        [
            "",
            *table(rows),
            "",
            f"picture: {picture}",
            f"watch:   tensorboard --logdir {folder}",
        ],
    )
