"""Decodes codes into images, batch by batch: decoded.npz, PNG files and a contact sheet."""

from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentforge.config.condition import CONDITIONAL
from latentforge.config.schema import RunConfig
from latentforge.contracts import DataSpec
from latentforge.data.labels import match_names
from latentforge.data.layout import VECTORS, to_stored
from latentforge.errors import UsageError
from latentforge.findings import CurveGrid, ImageGrid
from latentforge.io.npz import Array, list_keys, open_archive, read_member, write_array
from latentforge.io.paths import replace_nonfinite, write_json
from latentforge.io.text import are, counted
from latentforge.runs.folder import RunFolder
from latentforge.runtime.device import resolve_device
from latentforge.seeding import callers_state_kept, mix
from latentforge.workflows.encode import BATCH, METADATA, pil_pixels
from latentforge.workflows.export import describe_origin, output_folder
from latentforge.workflows.load import load
from latentforge.workflows.roles import LoadedModel

log = logging.getLogger("latentforge")

PICTURES = 1000  # maximum number of PNG files; decoded.npz contains every image
SHEET = 100  # maximum number of images on the contact sheet
COLUMNS = 10
CURVES, CURVE_COLUMNS = 24, 6  # the same limits of vectors and signals, which need more space


def decode(
    run: RunFolder,
    config: RunConfig,
    codes: Any,
    out: Path,
    *,
    checkpoint: str,
    device: str,
    condition: int | None = None,
) -> dict[str, Any]:
    """Decode `codes`, a file or an array (N, D) or (N, *latent.shape), into a new folder. A
    conditional model decodes them under the class `condition` or under the labels in the file."""
    torch_device = resolve_device(device)
    where = str(codes) if isinstance(codes, Path) else "codes"
    array, source = read_codes(codes) if isinstance(codes, Path) else (to_array(codes), "")
    loaded = load(run, config, checkpoint, torch_device)
    z = check_codes(array, loaded, where)
    labels = None
    if CONDITIONAL in loaded.provides:
        labels = read_labels(codes, source, condition, len(z), loaded)
    warn_if_encoder_differs(source, loaded, where)
    sheet: list[Tensor] = []

    with callers_state_kept(torch_device), torch.no_grad(), output_folder(out, out) as folder:
        torch.manual_seed(mix("decode", config.train.seed))  # for models whose decoder is random
        parts = decode_batches(loaded, config, z, labels, torch_device)
        if loaded.data.drawable:
            parts = write_images(parts, loaded.data, folder, sheet)
        elif loaded.data.drawn_as_curves:
            parts = keep_first(parts, sheet)
        layout = stored_layout(run)
        if not layout.startswith("N"):  # then all images are written at once
            parts = iter([torch.cat([*parts])])
        stored = (to_stored(loaded.data.restore(x), layout).numpy() for x in parts)
        shape = to_stored(torch.empty(len(z), *loaded.data.shape, device="meta"), layout).shape
        with zipfile.ZipFile(folder / "decoded.npz", "w") as archive:
            write_array(archive, "x", tuple(shape), stored)
        files = ["decoded.npz"]
        if sheet:
            files.append(contact_sheet(torch.cat(sheet), len(z), folder, loaded))
        if loaded.data.drawable:
            files.append("images")
        pictures = min(len(z), PICTURES) if loaded.data.drawable else 0
        about = {"codes": where, "images": len(z), "pictures": pictures}
        about |= {} if condition is None else {"condition": condition}
        write_json(
            folder / "decode.json", {**about, "files": files, **describe_origin(loaded, config)}
        )
    files = [str(folder / name) for name in (*files, "decode.json")]
    return {
        "run": str(run.path),
        "checkpoint": loaded.checkpoint,
        "out": str(folder),
        **about,
        "files": files,
    }


def stored_layout(run: RunFolder) -> str:
    """The layout of decoded images: that of the run's data."""
    about = run.manifest["data"]
    usual = {"image": "NCHW", "signal": "NCL"}.get(about["kind"], VECTORS)
    layout: str = about.get("preprocessing", {}).get("layout", usual)
    layout = layout if "N" in layout else f"N{layout}"  # the items of a dataset have no axis N
    axes, one_channel = {*layout.replace("D", "C")}, {*usual} - {"C"}
    if usual == VECTORS:
        fits = layout == VECTORS
    else:
        fits = axes == {*usual} or (axes == one_channel and about["shape"][0] == 1)
    return layout if fits else usual


def decode_batches(
    loaded: LoadedModel, config: RunConfig, z: Tensor, y: Tensor | None, device: torch.device
) -> Iterator[Tensor]:
    """Yield the decoded images in batches, float32 (B, *data.shape) on the CPU."""
    doing, shape = f"decoding with model {config.model.name!r}", loaded.data.shape
    for start in range(0, len(z), BATCH):
        part = slice(start, start + BATCH)
        labels = None if y is None else y[part].to(device)
        arguments = loaded.model, z[part].to(device), labels, shape
        yield config.model.call(doing, decode_batch, *arguments).float().cpu()


def decode_batch(model: Any, z: Tensor, y: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Decode a batch to images (B, *shape), under the labels `y` of a conditional model. Raises
    ValueError for another image shape."""
    x: Tensor = (model if y is None else model.given(y)).decode(z)
    if (found := tuple(x.shape[1:])) != shape:
        raise ValueError(f"an image has shape {found}, not {shape}")
    return x


def write_images(
    parts: Iterator[Tensor], data: DataSpec, folder: Path, sheet: list[Tensor]
) -> Iterator[Tensor]:
    """Yield the images unchanged, write the first PICTURES as PNG files, and collect the first
    SHEET for the contact sheet."""
    (folder / "images").mkdir()
    number = 0
    for x in parts:
        pictures = data.to_unit(x[: max(0, PICTURES - number)])
        if number < SHEET:
            sheet.append(pictures[: SHEET - number])
        for pixels in pil_pixels(pictures):
            Image.fromarray(pixels).save(folder / "images" / f"{number:04}.png")
            number += 1
        yield x


def keep_first(parts: Iterator[Tensor], sheet: list[Tensor]) -> Iterator[Tensor]:
    """Yield the signals or vectors unchanged, and collect the first CURVES for the sheet."""
    for x in parts:
        if rest := CURVES - sum(map(len, sheet)):
            sheet.append(x[:rest])
        yield x


def contact_sheet(x: Tensor, count: int, folder: Path, loaded: LoadedModel) -> str:
    """Draw `x`, the first of `count` examples, as a contact sheet. Returns the name of the file."""
    from latentforge.rendering.write import write_finding  # imports matplotlib: half a second

    data, title = loaded.data, f"{len(x)} of {count} decoded codes"
    columns = COLUMNS if data.drawable else CURVE_COLUMNS
    rows = [x[i : i + columns] for i in range(0, len(x), columns)]
    titles = [str(i) for i in range(0, len(x), columns)]
    sheet: ImageGrid | CurveGrid = ImageGrid("contact-sheet", title, rows, row_titles=titles)
    if not data.drawable:
        from latentforge.rendering.dataset_preview import create_curves

        sheet = create_curves(data, rows, "contact-sheet", title, titles)
    return write_finding(sheet, folder, f"{loaded.run.path}, {loaded.checkpoint}")[0].name


# ---------------------------------------------------------------- codes


def read_codes(path: Path) -> tuple[Array, str]:
    """Read `z` and the JSON text about its origin, which is "" if other software wrote the file."""
    if path.suffix != ".npz":
        return read_column(path, "z")
    with open_archive(path, "codes") as archive:
        z = read_member(archive, path, "z")
        if z.dtype.kind not in "fiu":
            raise z.error(f"is {z.dtype}, not numbers")
        source = ""
        if METADATA in list_keys(archive):
            with suppress(UsageError):  # not written by LatentForge; z is sufficient
                source = str(read_member(archive, path, METADATA).values())
        return z.values(), source


def read_labels(
    codes: Any, source: str, condition: int | None, count: int, loaded: LoadedModel
) -> Tensor:
    """Return the labels for the codes, int64 (N,): the class `condition` for all, or those that
    `encode` wrote into the file. The labels of another run, according to `source`, are matched by
    name. Raises UsageError without either and for invalid labels."""
    if condition is not None:
        return torch.full((count,), condition)
    y = read_label_column(codes)
    if y is None:
        raise UsageError(
            f"{codes} contains no labels, which the conditional model of {loaded.run.path} needs",
            hint="--condition 0, the number of a class",
        )
    wanted = loaded.data.classes
    names = read_classes(source) or wanted
    if y.shape != (count,) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= len(names):
        raise UsageError(
            f"{codes}: the labels must be {count} integers from 0 to {len(names) - 1}",
            hint="--condition 0, the number of a class",
        )
    labels = torch.from_numpy(y.astype(np.int64))
    return match_names(labels, names, wanted, str(codes), str(loaded.run.path))


def read_classes(source: str) -> tuple[str, ...]:
    """Return the classes of the run that wrote the codes, or () if it is unknown."""
    try:
        classes = json.loads(source)["data"]["classes"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return tuple(classes) if is_list else ()


def read_label_column(path: Path) -> Array | None:
    """Read the labels in a file of `encode`: `y` of .npz, `label_id` of Parquet. None without."""
    if path.suffix == ".npz":
        with open_archive(path, "codes") as archive:
            return read_member(archive, path, "y").values() if "y" in list_keys(archive) else None
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if "label_id" not in file.schema_arrow.names:
            return None
        column = file.read(columns=["label_id"]).column("label_id")
        values: Array = column.combine_chunks().to_numpy(zero_copy_only=False)
        return values


def read_column(path: Path, name: str) -> tuple[Array, str]:
    """Read a Parquet column of equally long lists of numbers as (N, D), and the JSON text about its
    origin."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    try:
        with parquet.ParquetFile(path) as file:
            if name not in file.schema_arrow.names:
                details = [f"its columns are {', '.join(file.schema_arrow.names)}"]
                raise UsageError(f"{path} has no column {name!r}", details=details)
            column = file.read(columns=[name]).column(name).combine_chunks()
            source = (file.schema_arrow.metadata or {}).get(METADATA.encode(), b"")
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} cannot be read as Parquet: {reason}") from None
    lists = isinstance(column, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray)
    lengths = compute.list_value_length(column).unique().to_pylist() if lists else []
    if len(lengths) != 1 or None in lengths:
        raise UsageError(f"{path}: {name} must be lists of numbers of equal length")
    values: Array = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1), source.decode("utf-8", "replace")


def warn_if_encoder_differs(source: str, loaded: LoadedModel, where: str) -> None:
    """Warn if the file of the codes says that they were encoded with other weights."""
    try:
        metadata = json.loads(source)
        origin_text = f"{metadata['run']} ({metadata['checkpoint']})"
        codes = identity(metadata["config"], metadata["data"], metadata["checkpoint"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    run = loaded.run
    expected = identity(run.config, run.manifest["data"], loaded.checkpoint)
    if differing := [name for name in expected if expected[name] != codes[name]]:
        log.warning(
            "the codes of %s were made by %s and are decoded by %s (%s), which differs in %s",
            *(where, origin_text, run.path, loaded.checkpoint, ", ".join(differing)),
        )


def identity(config: Mapping[str, Any], data: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """The facts that determine a run's weights, without its path, as runs may be moved."""
    sections = {section: config[section] for section in ("model", "loss", "train")}
    described = {"data": [config["data"], data["fingerprint"]], "checkpoint": checkpoint}
    facts: dict[str, Any] = replace_nonfinite({**sections, **described})
    return facts


def to_array(codes: Any) -> Array:
    """Convert an array or a tensor to a NumPy array."""
    return codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)


def check_codes(z: Array, loaded: LoadedModel, where: str) -> Tensor:
    """Return the codes as float32 (N, *latent.shape). Raises UsageError if they are invalid."""
    model: Any = loaded.model
    latent = tuple(model.latent.shape)
    size = math.prod(latent)
    if z.dtype.kind not in "fiu":
        raise UsageError(f"{where}: z is {z.dtype}, not numbers")
    if z.ndim < 2 or not len(z) or z.shape[1:] not in ((size,), latent):
        raise UsageError(
            f"{where}: z has shape {z.shape}; "
            f"codes of {loaded.run.path} have shape {latent}, so z must be (N, {size})"
        )
    codes = torch.from_numpy(z.astype(np.float32)).reshape(len(z), *latent)
    if bad := int((~codes.isfinite()).flatten(1).any(1).sum()):
        raise UsageError(f"{where}: {bad} of {counted(len(z), 'code')} {are(bad)} NaN or infinite")
    return codes
