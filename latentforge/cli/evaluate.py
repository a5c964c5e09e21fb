"""`latentforge evaluate`: computes the metrics of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import (
    Device,
    Json,
    Others,
    Weights,
    forge_of,
    format_metrics,
    format_weights,
    parse_roles,
    print_result,
    table,
)


def evaluate(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="train, validation or test.")] = "test",
    checkpoint: Weights = "last",
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A measure; repeatable.  [default: all that fit the model]"
        ),
    ] = None,
    with_: Others = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="MEASURE.KEY=VALUE", help="A measure's option; repeatable."),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compute the metrics of a run on a split of its data.

    Example: latentforge evaluate runs/ae-mnist-1 --measure bce_per_pixel
    """
    result = forge_of(ctx).evaluate(
        run,
        split,
        checkpoint=checkpoint,
        measures=measure or (),
        roles=parse_roles(with_),
        options=set_ or (),
        device=device,
    )
    by_protocol: dict[str, list[str]] = {}  # protocol -> its metrics
    for name, text in result["protocol"].items():
        by_protocol.setdefault(text, []).append(name)
    print_result(
        result,
        json,
        [
            f"{run}, {split} split, checkpoint {result['checkpoint']}",
            *format_weights(result),
            *table(format_metrics(result["metrics"]), "  "),
            *table([[f"{', '.join(names)}:", text] for text, names in by_protocol.items()], "  "),
        ],
    )
