"""Describes a dataset: sizes, classes, factors and value range, and an image with samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentforge.config.schema import IN_MEMORY
from latentforge.contracts import DataSpec, at_once
from latentforge.data.factors import other_factors
from latentforge.data.images import ImageSplit
from latentforge.data.splits import DataSplits
from latentforge.errors import UsageError
from latentforge.findings import CurveGrid, ImageGrid
from latentforge.io.paths import write_error
from latentforge.rendering.curve_grid import draw_curves
from latentforge.rendering.curve_rows import select_curves
from latentforge.rendering.fonts import readable_text
from latentforge.rendering.image_grid import draw_grid
from latentforge.runtime.python_form import is_section

MAX_STREAMED = 1000  # maximum number of images, evenly spaced, for the range of streamed data
SAMPLES = 10  # samples per class in the preview image
CURVES = 5  # samples per class in a preview of curves


def describe_data(splits: DataSplits, data: Any, out: Path | None) -> dict[str, Any]:
    """Describe the sizes, classes and value range of `splits`, which were loaded from `data`. If
    the examples are drawable, also write an image with samples of each class. Raises RunFailed if
    the image cannot be written."""
    section = data if is_section(data) else {}
    name = data if isinstance(data, str) else section.get("name", IN_MEMORY)
    spec, train = splits.spec, splits.split("train")
    if type(train) is ImageSplit:
        values = train.x
    else:
        index = torch.arange(min(at_once(spec, MAX_STREAMED), len(train)), device=train.device)
        values = train.raw(index * len(train) // len(index))
    values = spec.restore(values)
    facts: dict[str, Any] = {
        "dataset": name,
        "images": {split: len(images) for split, images in splits.splits.items()},
        "shape": list(spec.shape),
        "stored": splits.preprocessing["stored"],
        "range": [float(values.min()), float(values.max())],
        "classes": list(spec.classes),
        "class_counts": splits.class_counts(),
        "fingerprint": splits.fingerprint,
    }
    if factors := other_factors(spec):
        facts["factors"] = {
            factor.name: list(factor.names) or find_factor_limits(splits, factor.name)
            for factor in factors
        }
    if spec.drawable or spec.drawn_as_curves:
        path = choose_image_path(out, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with readable_text():
                draw(train, name).savefig(path)
        except OSError as error:
            raise write_error(path, error) from None
        facts["picture"] = str(path)
    return facts


def find_factor_limits(splits: DataSplits, factor: str) -> list[float]:
    """The smallest and the largest value of a numeric factor in all splits."""
    tables = [images.table[factor] for images in splits.splits.values()]
    return [min(float(t.min()) for t in tables), max(float(t.max()) for t in tables)]


def choose_image_path(out: Path | None, name: str) -> Path:
    """Return `out`, or the first free `data-<name>-<n>.png` if `out` is None. Raises UsageError if
    `out` exists or is not a .png."""
    if out is not None:
        if out.exists():
            raise UsageError(
                f"{out} already exists and will not be overwritten", hint="choose another --out"
            )
        if out.suffix != ".png":
            raise UsageError(
                f"--out {out} must end in .png: only PNG is supported",
                hint=f"--out {out.with_suffix('.png')}",
            )
        return out
    candidates = (Path(f"data-{name}-{number}.png") for number in count(1))
    return next(path for path in candidates if not path.exists())


def draw(images: ImageSplit, name: str) -> Figure:
    """Draw the first examples of each class, one row per class."""
    if images.spec.kind == "image":
        return draw_grid(create_sample_grid(images, name))
    return draw_curves(create_sample_curves(images, name))


def create_sample_curves(images: ImageSplit, name: str) -> CurveGrid:
    """The first signals or vectors of each class in a panel each, one row per class; one row if
    there are no labels."""
    indices, labels = select_samples(images, CURVES)
    rows = [images.batch(index).x for index in indices]
    title = f"{name}: samples{' of each class' if labels else ''}"
    return create_curves(images.spec, rows, "samples", title, labels)


def create_curves(
    spec: DataSpec, rows: Sequence[Tensor], name: str, title: str, row_titles: Sequence[str] = ()
) -> CurveGrid:
    """Rows of signals or vectors (n, *spec.shape), each example in a panel."""
    curves = select_curves(spec, rows)
    title += f"{', ' if curves.channels else ''}{curves.channels}{curves.values}"
    panels = [[x[None] for x in row] for row in curves.rows]
    return CurveGrid(name, title, panels, row_titles=row_titles, x_title=curves.x_title)


def create_sample_grid(images: ImageSplit, name: str) -> ImageGrid:
    """The first images of each class, one row per class; one row if there are no labels."""
    indices, labels = select_samples(images, SAMPLES)
    rows = [images.spec.to_unit(images.batch(index).x) for index in indices]
    of = " of each class" if labels else ""
    return ImageGrid("samples", f"{name}: samples{of}", rows, row_titles=labels)


def select_samples(images: ImageSplit, most: int) -> tuple[list[Tensor], list[str]]:
    """The positions of the first examples of each class, and the names of the classes; one row
    without a name if there are no labels."""
    if images.y is None:
        return [torch.arange(min(most, len(images)), device=images.device)], []
    samples = [(c, images.of_class(i)[:most]) for i, c in enumerate(images.spec.classes)]
    samples = [(label, index) for label, index in samples if len(index)]
    return [index for _, index in samples], [label for label, _ in samples]
