"""`latentforge explore`: runs an explorer on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli import output
from latentforge.cli.mistakes import check_given
from latentforge.cli.output import Device, Json, Others, Quiet, Sets, Weights


def explore(
    ctx: typer.Context,
    explorer: Annotated[str, typer.Argument(help="See `latentforge list explorers`.")],
    run: Annotated[Path | None, typer.Argument(help="A run folder.")] = None,
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
    """Explore a run's latent space.

    `latentforge list explorers` lists the explorers, and `latentforge show NAME` their options.
    --set sampler.KEY=VALUE sets an inference option of the model.

    Example: latentforge explore interpolate runs/ae-digits-1 --set 'classes=[3, 8]'
    """
    registry = output.forge_of(ctx).registry
    run = check_given(registry, explorer, run)
    result = output.forge_of(ctx).explore(
        explorer,
        run,
        checkpoint=checkpoint,
        roles=output.parse_roles(with_),
        out=out,
        assignments=set_ or (),
        preset=preset,
        quiet=quiet,
        device=device,
    )
    metrics = output.table(output.format_metrics(result["metrics"]))
    notes = result["notes"]  # one has the inference options, if they are not those of the run
    sampler = [s for s in output.format_sampler(result) if not any(n.startswith(s) for n in notes)]
    lines = [*output.format_weights(result), *sampler, *notes, *metrics, result["protocol"]]
    output.print_result(result, json, [line for line in [*lines, *result["files"]] if line])
