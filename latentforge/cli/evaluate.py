"""`latentforge evaluate`: computes the metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from latentforge.cli import output
from latentforge.cli.output import Device, Json, Others, Weights
from latentforge.errors import LatentForgeError, UsageError


def evaluate(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another dataset.  [default: the run's]")
    ] = None,
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
        typer.Option(
            "--set",
            metavar="MEASURE.KEY=VALUE",
            help="An option of a measure, of the data (data.KEY=VALUE), or of inference "
            "(sampler.KEY=VALUE); repeatable.",
        ),
    ] = None,
    device: Device = "auto",
    protocol: Annotated[
        int | None, typer.Option(metavar="1|2", help="The evaluation protocol.  [default: 2]")
    ] = None,
    json: Json = False,
) -> None:
    """Compute the metrics of a run on a split of its data.

    Example: latentforge evaluate runs/ae-mnist-1 --measure bce_per_pixel
    """
    if commas := [name for name in measure or () if "," in name]:
        names = (f"--measure {name.strip()}" for name in commas[0].split(",") if name.strip())
        raise UsageError(f"--measure {commas[0]}: name one measure at a time", hint=" ".join(names))
    request: dict[str, Any] = {} if protocol is None else {"protocol": protocol}
    try:
        result = output.forge_of(ctx).evaluate(
            run,
            split,
            checkpoint=checkpoint,
            measures=measure or (),
            roles=output.parse_roles(with_),
            options=set_ or (),
            device=device,
            data=data,
            **request,
        )
    except LatentForgeError as error:
        if error.result and not json:  # the metrics of the measures that did not fail
            output.print_result(error.result, json, format_result(run, split, error.result))
        raise
    output.print_result(result, json, format_result(run, split, result))


def format_result(run: Path, split: str, result: Mapping[str, Any]) -> list[str]:
    """Return the lines that show the metrics of an evaluation with their protocol."""
    by_protocol: dict[str, list[str]] = {}  # protocol -> its metrics
    for name, text in result["protocol"].items():
        by_protocol.setdefault(text, []).append(name)
    protocol_rows = [[f"{', '.join(names)}:", text] for text, names in by_protocol.items()]
    return [
        f"{run}, {split} split, checkpoint {result['checkpoint']}",
        *output.format_weights(result),
        *output.format_sampler(result),
        *result.get("notes", ()),
        *output.table(output.format_metrics(result["metrics"]), "  "),
        *output.table(protocol_rows, "  "),
    ]
