"""Exports a part of a model as ONNX, or the model's weights as safetensors.

The exported model is unchanged: nothing is fused, folded or quantised.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentforge._version import __version__
from latentforge.config.data_range import to_json
from latentforge.config.inference import describe_sampler
from latentforge.config.schema import Component, RunConfig, describe_weights
from latentforge.contracts import DataSpec
from latentforge.errors import PluginError, RunFailed
from latentforge.io.atomic import is_outside, unpredictable
from latentforge.io.paths import create_numbered_folder, write_error, write_json
from latentforge.runs.checkpoint import to_safetensors
from latentforge.runs.folder import RunFolder
from latentforge.seeding import generator
from latentforge.workflows.load import load
from latentforge.workflows.roles import LoadedModel

BATCH_SIZES = (1, 7)  # batch sizes of the comparison; the traced example has another one
TOLERANCE = 1e-4  # allows float32 sums in another order; a wrong graph differs by far more


TRACEABLE = (
    "in the code of the model, write x.shape[0] instead of len(x), and no `if` or loop that "
    "depends on values of a tensor"
)
CONVERTIBLE = "in the code of the model, replace an operation that ONNX does not have by others"


class TraceError(RuntimeError):
    """A part cannot be traced or converted. torch's message has pages; the first two lines of its
    first cause state the reason."""

    def __init__(self, error: BaseException, hint: str) -> None:
        while error.__cause__:
            error = error.__cause__
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
        super().__init__("; ".join(lines[:2]))
        self.hint = hint


@dataclass(frozen=True)
class Part:
    """One function of a model. `call` maps (B, *shape), and labels (B,) if there are `classes`, to
    one tensor for each of `outputs`. `data` is the spec of the examples if the input is x."""

    input: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    call: Callable[..., tuple[Tensor, ...]]
    data: DataSpec | None = None
    classes: int = 0  # of a conditional model, whose second input is y

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The shape of one row of each input."""
        return {self.input: self.shape, **({"y": ()} if self.classes else {})}

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Random examples in the units of the data, or codes from N(0, I), and labels, the same in
        every call."""
        noise = generator("cpu", "export", batch)
        if self.data is None:
            values = torch.randn(batch, *self.shape, generator=noise)
        else:
            values = torch.rand(batch, *self.shape, generator=noise)
            values = self.data.restore(self.data.from_unit(values))
        if not self.classes:
            return (values,)
        return values, torch.randint(self.classes, (batch,), generator=noise)


def export(
    run: RunFolder,
    config: RunConfig,
    part: str | None,
    *,
    format: str,
    checkpoint: str,
    out: Path | None,
) -> dict[str, Any]:
    """Export a `part` as ONNX, or all weights, into a folder. Returns what was exported."""
    loaded = load(run, config, checkpoint, torch.device("cpu"))
    file = f"model.{format}"
    with output_folder(out, run.path / "export" / f"{part or 'model'}-{format}") as folder:
        if part is not None:
            about = write_onnx(loaded, config.model, part, folder / file)
        else:
            about = write_safetensors(loaded.model, folder / file)
        with (folder / file).open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        about = {"part": part, "format": format, "file": file, "sha256": digest, **about}
        write_json(folder / "export.json", {**about, **describe_origin(loaded, config)})
    files = [str(folder / name) for name in (file, "export.json")]
    return {
        "run": str(run.path),
        "checkpoint": loaded.checkpoint,
        "out": str(folder),
        "files": files,
        **about,
    }


def write_safetensors(model: nn.Module, path: Path) -> dict[str, Any]:
    """Write the whole state dict, because it does not show which weights a part uses."""
    weights = model.state_dict()
    path.write_bytes(to_safetensors(weights))
    return {
        "holds": "the weights and buffers of the whole model, under their state_dict() names",
        "tensors": {name: list(weight.shape) for name, weight in weights.items()},
        "versions": versions("torch", "safetensors"),
    }


# ---------------------------------------------------------------- ONNX


def write_onnx(loaded: LoadedModel, model: Component, name: str, path: Path) -> dict[str, Any]:
    doing = f"exporting the {name} of model {model.name!r}"
    with torch.no_grad():
        try:
            with suppress_output():
                part, sample, program = model.call(doing, trace_part, loaded, name)
        except PluginError as error:
            if isinstance(cause := error.__cause__, TraceError):
                error.hint = cause.hint
            raise
        program.save(path)
        check = model.call(doing, compare, part, path)
    return {
        "holds": f"the {name} as a graph with its weights",
        "inputs": [
            describe_labels(part.classes) if name == "y" else describe_tensor(name, shape)
            for name, shape in part.inputs.items()
        ],
        "outputs": [
            describe_tensor(output, value.shape[1:])
            for output, value in zip(part.outputs, sample, strict=True)
        ],
        "opset": int(program.model.opset_imports[""]),
        "check": check,
        "versions": versions("torch", "onnx", "onnxscript"),
    }


def trace_part(
    loaded: LoadedModel, name: str
) -> tuple[Part, tuple[Tensor, ...], torch.onnx.ONNXProgram]:
    """Return the part, its outputs for an example, and its graph."""
    part = get_part(loaded, name)
    return part, part.call(*part.example(2)), trace(part, loaded.model)


def get_part(loaded: LoadedModel, name: str) -> Part:
    """Return the part called `name`. The encoder maps x to mean and, if the posterior has one,
    log_var; the decoder maps z to x, and the classifier x to logits. Encoder and decoder of a
    conditional model also have the input y; a row whose y is no class is NaN. x has the units of
    the data."""
    model: Any = loaded.model
    data = loaded.data
    classes = len(data.classes) if "conditional" in loaded.provides else 0

    def view(y: Tensor | None) -> Any:
        return model if y is None else model.given(y.clamp(0, classes - 1))

    def without_unknown(y: Tensor | None, *outputs: Tensor) -> tuple[Tensor, ...]:
        """Replace the rows whose y is no class, for which the graph would have some result."""
        if y is None:
            return outputs
        known, nan = (y >= 0) & (y < classes), torch.full((), math.nan)
        return tuple(torch.where(known.reshape(-1, *[1] * (o.ndim - 1)), o, nan) for o in outputs)

    def encoder(x: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        posterior = view(y).encode(data.normalize(x))
        log_var = getattr(posterior, "log_var", None)
        outputs = (posterior.mode(),) if log_var is None else (posterior.mode(), log_var)
        return without_unknown(y, *outputs)

    def decoder(z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return without_unknown(y, data.restore(view(y).decode(z)))

    def classifier(x: Tensor) -> tuple[Tensor, ...]:
        return (model(data.normalize(x)),)

    if name == "decoder":
        return Part("z", model.latent.shape, ("x",), decoder, classes=classes)
    if name == "classifier":
        return Part("x", data.shape, ("logits",), classifier, data)
    part = Part("x", data.shape, ("mean", "log_var"), encoder, data, classes)
    return replace(part, outputs=part.outputs[: len(encoder(*part.example(2)))])


def trace(part: Part, model: nn.Module) -> torch.onnx.ONNXProgram:
    """Trace the part as an ONNX graph with a dynamic batch size."""
    module = nn.Module()  # its forward is the part's function of the model
    module.model = model
    module.forward = part.call
    module.eval()
    inputs = part.example(2)  # a batch size of 1 would become a constant
    dimension, names = torch.export.Dim("batch"), list(part.inputs)
    dynamic_shapes = tuple({0: dimension} for _ in names)
    hint = TRACEABLE
    try:
        # torch.onnx.export alone has fallbacks, one of which fixes the batch size
        graph = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes, strict=False)
        hint = CONVERTIBLE
        program = torch.onnx.export(
            graph,
            input_names=names,
            output_names=list(part.outputs),
            dynamic_shapes=tuple({0: "batch"} for _ in names),  # only names the dimension
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    except Exception as error:
        raise TraceError(error, hint).with_traceback(error.__traceback__) from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # source lines and paths of this machine
    return program


@contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress the exporter's warnings about its internals, and its output of discarded graphs."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def compare(part: Part, path: Path) -> dict[str, Any] | None:
    """Compare the outputs of onnxruntime and torch for random inputs. Returns None if onnxruntime
    is not installed. Raises ValueError if the outputs differ by more than rounding errors."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch in BATCH_SIZES:
        inputs = part.example(batch)
        named = {n: value.numpy() for n, value in zip(part.inputs, inputs, strict=True)}
        computed = session.run(list(part.outputs), named)
        outputs = zip(part.outputs, computed, part.call(*inputs), strict=True)
        for name, onnx_output, torch_output in outputs:
            difference = float((torch.from_numpy(onnx_output) - torch_output).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(torch_output.abs().max())):
                message = f"output {name!r} of onnxruntime and torch differs by {difference:g}"
                raise ValueError(message)
            largest = max(largest, difference)
    return {
        "with": f"onnxruntime {onnxruntime.__version__}",
        "batches": list(BATCH_SIZES),
        "largest_difference": largest,
    }


def describe_tensor(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "shape": ["batch", *shape], "dtype": "float32"}


def describe_labels(classes: int) -> dict[str, Any]:
    """Describe the input y, which are the numbers of classes."""
    about = {"range": [0, classes - 1], "outside": "the outputs of the row are NaN"}
    return {"name": "y", "shape": ["batch"], "dtype": "int64", **about}


def versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. The file is renamed to `path` at the end, or removed on
    any error. Raises RunFailed when the disk fails."""
    temporary = path.with_name(f".{path.stem}.{unpredictable()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def output_folder(requested: Path | None, default: Path) -> Iterator[Path]:
    """Yield a folder to write to: `requested`, or else `default`, or `<default>-2` and so on if
    `default` exists.

    On any error, removes everything that was written, and the folder unless it existed before.
    Raises RunFailed when the disk fails.
    """
    try:
        folder, existing = create_output_folder(requested, default)
    except OSError as error:
        raise write_error(requested or default, error) from None
    try:
        yield folder
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to report
            for path in set(folder.iterdir()) - (existing or set()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if existing is None:
                folder.rmdir()
            if requested is None:
                default.parent.rmdir()  # fails if it contains anything else
        if isinstance(error, OSError):
            raise write_error(folder, error) from None
        raise


def create_output_folder(requested: Path | None, default: Path) -> tuple[Path, set[Path] | None]:
    """Return the folder, and the set of paths in it if it already existed, otherwise None.

    A clean-up after an error keeps these paths, because the user may have added files after the
    folder was checked to be empty.
    """
    folder, root = requested or default, default.parent
    if requested is None and is_outside(root, root.parent):
        raise RunFailed(f"{root} is a link to a place outside the run", hint="--out DIR")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if requested is not None:
            return requested, set(requested.iterdir())
        folder = create_numbered_folder(default.parent, f"{default.name}-", 2)
    return folder, None


def describe_origin(loaded: LoadedModel, config: RunConfig) -> dict[str, Any]:
    """Describe the weights, the model and the training data, for readers without the run."""
    run = loaded.run
    latent = getattr(loaded.model, "latent", None)
    return {
        "latentforge": __version__,
        "run": str(run.path),
        "checkpoint": loaded.checkpoint,
        "weights": describe_weights(config.train),
        **describe_sampler(config),
        "data": {**run.manifest["data"], "range": to_json(loaded.data.range)},
        "latent": latent and {"shape": list(latent.shape), "prior": latent.prior},
        "config": run.config,
        "plugins": run.manifest["plugins"],
    }
