"""`latentforge export`: exports a part of a model, or its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from latentforge.cli.output import Json, Sets, Weights, forge_of, print_result


def export(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    part: Annotated[
        str | None,
        typer.Option(metavar="PART", help="encoder, decoder or classifier; required for ONNX."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="F", help="onnx or safetensors.")
    ] = "onnx",
    checkpoint: Weights = "last",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new folder.  [default: RUN/export/<part or model>-<format>]"
        ),
    ] = None,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Write a part of a model as ONNX, or all its weights.

    The weights of the whole model are written as safetensors. --set sampler.KEY=VALUE sets an
    inference option of the model, whose value is then fixed in the ONNX graph.

    export.json contains the preprocessing, the configuration, and the names and shapes of tensors.

    Example: latentforge export runs/ae-mnist-1 --part encoder --format onnx
    """
    where: Any = {"format": format_, "checkpoint": checkpoint, "out": out}
    result = forge_of(ctx).export(run, part, **where, sampler=set_ or ())
    print_result(result, json, [*result["files"], *format_facts(result)])


def format_facts(result: Mapping[str, Any]) -> list[str]:
    if result["format"] == "safetensors":
        return [f"contains {result['holds']}"]
    lines = [
        f"{kind} {tensor['name']}: {tensor['dtype']} ({', '.join(map(str, tensor['shape']))})"
        for kind, tensors in (("input", result["inputs"]), ("output", result["outputs"]))
        for tensor in tensors
    ]
    note = "not checked: onnxruntime is not installed"
    if check := result["check"]:
        note = f"checked with {check['with']}: largest difference {check['largest_difference']:.1e}"
    return [*lines, note]
