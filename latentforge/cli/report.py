"""`latentforge report`: writes a page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentforge.cli.output import Json, forge_of, print_result


def report(
    ctx: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="A run folder, or a sweep folder; several runs are compared."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="HTML file.  [default: RUN/report.html; for several runs, report-A-B.html "
            "beside them]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a page about a run: metrics, curves, pictures, settings.

    Example: latentforge report runs/vae-mnist-1

    The page needs no network and no server. It replaces an earlier report.
    """
    result = forge_of(ctx).report(*runs, out=out)
    lines = [f"{result['report']}, {result['bytes'] / 1e6:.1f} MB"]
    if result["next"]:
        lines.append(f"no explorer has been run yet; start with: {result['next']}")
    print_result(result, json, lines)
