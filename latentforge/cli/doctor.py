"""`latentforge doctor`: diagnoses a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import (
    Device,
    Json,
    Sets,
    Weights,
    forge_of,
    format_weights,
    print_result,
)


def doctor(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Unseen images.  [default: validation, or else test]"),
    ] = None,
    checkpoint: Weights = "last",
    set_: Sets = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Look for problems in a run, and name their causes.

    Checks the data, labels, codes, reconstructions, losses and the learning rate. --set
    data.KEY=VALUE changes options of the data, such as its folder.

    Example: latentforge doctor runs/vae-mnist-1
    """
    forge = forge_of(ctx)
    opened = forge.open_run(run)
    findings = forge.diagnose(
        opened, split, checkpoint=checkpoint, device=device, options=set_ or ()
    )
    lines = format_weights(opened.manifest)
    for finding in findings:
        lines.append(f"{finding.severity}: {finding.check}")
        lines += [f"  saw {finding.saw}", f"  try {finding.attempt}"]
    result = {"run": str(run), "findings": [finding.as_dict() for finding in findings]}
    print_result(result, json, lines if findings else [*lines, f"{run}: nothing looks wrong"])
