"""Encodes a run's images into a file of codes, Parquet or .npz, one batch at a time."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentforge.config.schema import RunConfig
from latentforge.contracts import Batch, DataSpec
from latentforge.contracts.data import CLASS
from latentforge.data.images import ImageSplit
from latentforge.io.npz import Array, write_array, write_whole
from latentforge.io.paths import replace_nonfinite
from latentforge.latent import declared_kl, given
from latentforge.rendering.images import to_uint8
from latentforge.runs.data_description import describe_factors
from latentforge.runs.folder import RunFolder
from latentforge.runtime.device import resolve_device
from latentforge.seeding import callers_state_kept, mix
from latentforge.workflows.export import describe_origin, output_file
from latentforge.workflows.load import load, load_data, load_roles
from latentforge.workflows.roles import LoadedModel

BATCH = 1000  # images in memory at once, and rows in a row group
THUMBNAIL = 128  # maximum length of the longer side, pixels; larger images are scaled down
METADATA = "latentforge"  # both formats store a JSON text under this key


@dataclass(frozen=True)
class Rows:
    """An encoded batch. `z` (B, D) is the posterior's mode; `kl` (B,) is in nats per image.
    `factors` are those other than the class, by name: float32 (B,) or the names of the values.
    `source` (B,) is the position in the dataset before any split was made, and `file` the name of
    each image's file."""

    split: str
    index: Array
    source: Array
    file: list[str] | None
    z: Array
    y: Array | None
    factors: dict[str, Array]
    kl: Array | None
    x: Array | None  # uint8 (B, H, W) or (B, H, W, 3); None if not drawable


def encode(
    run: RunFolder,
    config: RunConfig,
    out: Path,
    *,
    data: Any,
    name: str,
    split: str,
    checkpoint: str,
    device: str,
) -> dict[str, Any]:
    """Encode `split` of the run's data, or of other `data` named `name`, into the file `out`."""
    torch_device = resolve_device(device)
    config = load_roles(config, torch_device, stored=True)
    splits = load_data(run, config, data)
    selected = {split: splits.split(split)} if split != "all" else _find_distinct(splits.splits)
    loaded = load(run, config, checkpoint, torch_device)
    about = {
        **describe_origin(loaded, config),
        "encoded": {
            "name": name,
            "images": {name: len(images) for name, images in selected.items()},
            "classes": list(splits.spec.classes),
            "factors": describe_factors(splits.spec.factors),
            "fingerprint": splits.fingerprint,
            "preprocessing": splits.preprocessing,
        },
    }
    with callers_state_kept(torch_device), torch.no_grad(), output_file(out) as file:
        torch.manual_seed(mix("encode", config.train.seed))  # for models whose encoder is random
        rows = encode_batches(loaded, config, selected, torch_device)
        write = write_parquet if out.suffix == ".parquet" else write_npz
        columns = write(rows, file, about)
    return {
        "run": str(run.path),
        "checkpoint": loaded.checkpoint,
        "out": str(out),
        "images": about["encoded"]["images"],
        "latent_shape": about["latent"]["shape"],
        "columns": columns,
    }


def _find_distinct(splits: Mapping[str, ImageSplit]) -> dict[str, ImageSplit]:
    """Return the splits without duplicates: data without splits is used as each of them."""
    distinct: dict[str, ImageSplit] = {}
    for name, images in splits.items():
        if not any(images is other for other in distinct.values()):
            distinct[name] = images
    return distinct


def encode_batches(
    loaded: LoadedModel, config: RunConfig, splits: Mapping[str, ImageSplit], device: torch.device
) -> Iterator[Rows]:
    model: Any = loaded.model
    provides = config.model.entry.provides
    for split, images in splits.items():
        for batch in images.batches(BATCH):
            doing = f"encoding with model {config.model.name!r}"
            y = None if batch.y is None else batch.y.to(device)
            arguments = model, batch.x.to(device), y, provides
            z, kl = config.model.call(doing, encode_batch, *arguments)
            source = images.origins()[batch.index.cpu()].numpy()
            yield Rows(
                split=split,
                index=batch.index.numpy(),
                source=source,
                file=None if images.files is None else [images.files[i] for i in source],
                z=z.flatten(1).float().cpu().numpy(),
                y=None if batch.y is None else batch.y.numpy(),
                factors=read_factors(batch, images.spec),
                kl=None if kl is None else kl.float().cpu().numpy(),
                x=pil_pixels(images.spec.to_unit(batch.x)) if images.spec.drawable else None,
            )


def encode_batch(
    model: Any, x: Tensor, y: Tensor | None, provides: Set[str]
) -> tuple[Tensor, Tensor | None]:
    """Return the posterior's mode, (B, *latent.shape), and its KL, (B,) in nats per image. A
    conditional model encodes each image under its label in `y`."""
    view = given(model, y, provides)
    posterior = view.encode(x)
    z = posterior.mode()
    if (shape := tuple(z.shape[1:])) != tuple(model.latent.shape):
        raise ValueError(f"a code has shape {shape}, not {tuple(model.latent.shape)}")
    kl = declared_kl(view, posterior, provides)
    return z, kl if kl is None else kl.flatten(1).sum(1)


def read_factors(batch: Batch, data: DataSpec) -> dict[str, Array]:
    """The factors of a batch other than the class, by name. Those with names are strings."""
    values = {f.name: batch.factors[f.name].numpy() for f in data.factors if f.name != CLASS}
    names = {f.name: np.array(f.names) for f in data.factors if f.names}
    return {name: names[name][v] if name in names else v for name, v in values.items()}


def pil_pixels(x: Tensor) -> Array:
    """Convert images (B, C, H, W) in [0, 1] to uint8 for PIL: (B, H, W) or (B, H, W, 3)."""
    pixels = to_uint8(x).transpose(0, 2, 3, 1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


# ---------------------------------------------------------------- files


def write_npz(rows: Iterator[Rows], path: Path, about: Mapping[str, Any]) -> list[str]:
    """Write z (N, D), index, split, source, the JSON text about their origin and, if present, file,
    y, factors and kl. Only z is streamed: the other arrays have one value per image."""
    columns: dict[str, list[Array]] = {}

    def codes() -> Iterator[Array]:
        for row in rows:
            found: dict[str, Any] = {"index": row.index, "split": np.full(len(row.z), row.split)}
            found |= {"source": row.source, "file": row.file, "y": row.y}
            found |= {**factor_columns(row), "kl": row.kl}
            for name, values in found.items():
                if values is not None:
                    columns.setdefault(name, []).append(np.asarray(values))
            yield row.z

    shape = (sum(about["encoded"]["images"].values()), math.prod(about["latent"]["shape"]))
    with zipfile.ZipFile(path, "w") as archive:
        write_array(archive, "z", shape, codes())
        arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
        arrays[METADATA] = np.array(json.dumps(replace_nonfinite(about)))
        for name, array in arrays.items():
            write_whole(archive, name, array)
    return ["z", *arrays]


def factor_columns(row: Rows) -> dict[str, Array]:
    return {f"factor_{name}": values for name, values in row.factors.items()}


def write_parquet(rows: Iterator[Rows], path: Path, about: Mapping[str, Any]) -> list[str]:
    """Write one row group per batch, and the JSON text about the origin as schema metadata."""
    from pyarrow import parquet

    batches = (to_record_batch(row, about["encoded"]["classes"]) for row in rows)
    first = next(batches)
    schema = first.schema.with_metadata({METADATA: json.dumps(replace_nonfinite(about))})
    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)
    names: list[str] = schema.names
    return names


def to_record_batch(row: Rows, classes: Sequence[str]) -> Any:
    """Convert a batch to Arrow columns. `image` is {bytes, path}, which embedding-atlas and Hugging
    Face's datasets recognize as a picture."""
    import pyarrow as pa

    columns = {"index": pa.array(row.index), "split": pa.array([row.split] * len(row.index))}
    columns["source"] = pa.array(row.source)
    if row.file is not None:
        columns["file"] = pa.array(row.file)
    if row.y is not None:
        columns["label"] = pa.array([classes[y] for y in row.y])
        columns["label_id"] = pa.array(row.y)
    columns |= {name: pa.array(values) for name, values in factor_columns(row).items()}
    if row.kl is not None:
        columns["kl"] = pa.array(row.kl)
    columns["z"] = pa.FixedSizeListArray.from_arrays(pa.array(row.z.ravel()), row.z.shape[1])
    if row.x is not None:
        pictures = pa.array([thumbnail(pixels) for pixels in row.x])
        paths = pa.array([f"{row.split}-{i}.png" for i in row.index])
        columns["image"] = pa.StructArray.from_arrays([pictures, paths], ["bytes", "path"])
    return pa.RecordBatch.from_pydict(columns)


def thumbnail(pixels: Array) -> bytes:
    """Encode pixels, uint8 (H, W) or (H, W, 3), as PNG, scaled down to THUMBNAIL if larger."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))  # never enlarges
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
