"""Checks requests of export, encode and decode before torch loads.

Each function checks a request as far as possible without torch, then calls the workflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentforge.config.capabilities import check_capabilities
from latentforge.config.condition import CONDITIONAL, describe_classes, read_condition
from latentforge.config.inference import SAMPLER, override_sampler
from latentforge.config.request import separate_assignments
from latentforge.config.resolve import is_inference, read_assignments, resolve_other_data
from latentforge.config.schema import IN_MEMORY, OtherData, check_device
from latentforge.config.validation import Faults
from latentforge.errors import MissingError, UsageError, did_you_mean
from latentforge.io.paths import check_free, quoted
from latentforge.plugins.registry import Entry, Registry
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.runs.folder import RunFolder

FORMATS = ("onnx", "safetensors")
PARTS = {"encoder": "encode", "decoder": "decode", "classifier": "classify"}  # part -> capability
CODES = (".npz", ".parquet")


def export(
    registry: Registry,
    run: RunFolder,
    part: str | None,
    format: str,
    *,
    checkpoint: str,
    out: Path | None,
    sampler: Sequence[str] | Mapping[str, Any] = (),
) -> dict[str, Any]:
    _check_choice("--format", format, FORMATS)
    if part is not None and format == "safetensors":
        raise UsageError(
            "a part requires ONNX: a safetensors file contains the weights of the whole model",
            hint="remove --part, or use --format onnx",
        )
    config = resolve_stored_config(registry, run)
    model = config.model.entry
    check_no_condition(model, sampler, part)
    config = override_sampler(config, sampler)
    fitting = [f"--part {name}" for name in PARTS if PARTS[name] in model.provides]
    if part is None and format == "onnx":
        weights = "--format safetensors for the weights of the whole model"
        hint = " or ".join([*fitting, weights])
        raise UsageError("the part of the model is missing", hint=hint)
    if part is not None:
        _check_choice("--part", part, tuple(PARTS))
        check_capabilities(registry, f"the {part}", [PARTS[part]], model, fitting)
    if format == "onnx":
        _check_packages("export", "ONNX", "onnx", "onnxscript")
    if out is not None:
        check_free(out)
    from latentforge.workflows.export import export

    return export(run, config, part, format=format, checkpoint=checkpoint, out=out)


def check_no_condition(
    model: Entry, options: Sequence[str] | Mapping[str, Any], part: str | None
) -> None:
    """Raise UsageError if the options of an export contain a class, which is no inference option:
    a graph has an input for it."""
    given = read_assignments(options, Faults())
    if "condition" not in given or (model.spec.inference and is_inference(model, "condition")):
        return
    message = f"condition={given['condition']}: an export has no option condition"
    if CONDITIONAL not in model.provides:
        raise UsageError(
            f"{message}, and model {model.name!r} is not conditional", hint="remove condition"
        )
    part = part if part in ("encoder", "decoder") else "decoder"
    raise UsageError(
        f"{message}: the exported encoder and decoder of model {model.name!r} have the class as "
        "the input y, int64 (batch,)",
        hint=f"`--part {part}` without condition, and pass y to the graph",
    )


def encode(
    registry: Registry,
    run: RunFolder,
    out: Path,
    *,
    data: Any,
    options: Sequence[str] | Mapping[str, Any],
    split: str,
    checkpoint: str,
    device: str,
    sampler: Sequence[str] | Mapping[str, Any] = (),
) -> dict[str, Any]:
    check_device(device)
    if out.suffix not in CODES:
        hint = f"--out {quoted(out.with_suffix('.npz'))}"
        raise UsageError(f"{out} must end in .parquet or .npz", hint=hint)
    if out.exists():
        raise UsageError(
            f"{out} already exists and will not be overwritten", hint="choose another --out"
        )
    config = resolve_stored_config(registry, run)
    sampler_options: Sequence[str] | Mapping[str, Any] = ()
    if not isinstance(options, Mapping):  # a mapping contains options of the data alone
        sampler_options, options = separate_assignments(options, SAMPLER)
    config = override_sampler(config, sampler_options, sampler)
    data = resolve_other_data(registry, config, data, options)
    check_capabilities(registry, "encoding", ["encode"], config.model.entry)
    if out.suffix == ".parquet":
        _check_packages("embed", "Parquet", "pyarrow")
    from latentforge.workflows.encode import encode

    other = data.dataset.name if isinstance(data, OtherData) and data.dataset else IN_MEMORY
    name = config.data_name if data is None else other

    return encode(
        run, config, out, data=data, name=name, split=split, checkpoint=checkpoint, device=device
    )


def decode(
    registry: Registry,
    run: RunFolder,
    codes: Any,
    out: Path,
    *,
    checkpoint: str,
    device: str,
    condition: int | None = None,
    sampler: Sequence[str] | Mapping[str, Any] = (),
) -> dict[str, Any]:
    check_device(device)
    config = override_sampler(resolve_stored_config(registry, run), sampler)
    check_capabilities(registry, "decoding", ["decode"], config.model.entry)
    has_labels = isinstance(codes, str | Path)  # if `encode` wrote the file
    _check_decoded_class(config.model.entry, run, condition, has_labels)
    if isinstance(codes, str | Path):
        codes = Path(codes)
        if codes.suffix not in CODES:
            hint = f"`latentforge encode {quoted(run.path)} --out codes.npz` writes one"
            raise UsageError(f"{codes} must be an .npz or .parquet file", hint=hint)
        if not codes.is_file():
            command = f"latentforge encode {quoted(run.path)} --out {quoted(codes)}"
            raise MissingError(f"no codes at {codes}", hint=f"`{command}` writes them")
        if codes.suffix == ".parquet":
            _check_packages("embed", "Parquet", "pyarrow")
    check_free(out)
    from latentforge.workflows.decode import decode

    return decode(
        run, config, codes, out, checkpoint=checkpoint, device=device, condition=condition
    )


def _check_decoded_class(
    model: Entry, run: RunFolder, condition: int | None, has_labels: bool
) -> None:
    """Raise UsageError if a conditional model has no class for the codes or an unknown one, or if
    another model is given a class."""
    classes = run.manifest["data"]["classes"]
    if CONDITIONAL not in model.provides:
        if condition is not None:
            raise UsageError(
                f"--condition {condition}: model {model.name!r} is not conditional",
                hint="remove --condition",
            )
        return
    faults = Faults()
    read_condition(condition, classes, "--condition", faults)
    if faults.lines:
        raise UsageError(faults.lines[0], hint="--condition 0")
    if condition is None and not has_labels:
        raise UsageError(
            f"model {model.name!r} is conditional and needs a class for the codes",
            hint=f"--condition 0, the number of a class, {describe_classes(classes)}",
        )


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices) or f"choose from {', '.join(choices)}"
        raise UsageError(f"{option} {value}: no such choice", hint=hint)


def _check_packages(extra: str, feature: str, *packages: str) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingError(
            f"{feature} needs {' and '.join(missing)} (not installed)",
            hint=f"pip install 'latentforge[{extra}]'",
        )
