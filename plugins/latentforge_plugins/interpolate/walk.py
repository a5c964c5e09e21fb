"""Interpolates between images or class means in the latent space and draws the result. A leg is the
part of a path between two consecutive images or means; each leg is drawn as one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext, Images
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.io.text import counted
from latentforge_plugins.curves import Style
from latentforge_plugins.walks import (
    Side,
    across_classes,
    class_means,
    codebook_note,
    decode,
    select_drawable,
    sides,
)

from .config import InterpolateConfig
from .paths import PATHS, compare_pairs, path_names

MAX_COLUMNS = 20  # maximum number of columns in the picture; the arrays contain every step
PROTOCOL = (
    "largest_step: ratio of the largest to the mean Euclidean distance in pixels between "
    "consecutive decoded images, 1 if all distances are equal; endpoint_mse_per_pixel: squared "
    "difference of {} between decoded end points and their images; z the posterior mode"
)


@dataclass(frozen=True)
class Walk:
    """A path of a run: codes `z` (legs, steps, *latent), images `x` (legs, steps, *data.shape)."""

    side: Side
    path: str
    z: Tensor
    x: Tensor


def interpolate(context: ExploreContext, config: InterpolateConfig) -> Findings:
    images, runs = context.images(config.split), sides(context)
    by_image = config.between == "images"
    stops = images.batch_at(select_images(images, config)) if by_image else None
    t = torch.linspace(0.0, 1.0, config.steps, device=context.device)
    walks = [
        walk
        for side in runs
        for walk in make_walks(side, end_codes(context, config, side, stops), t, config)
    ]
    legs = len(walks[0].x)
    arrays = {"t": join_legs(t + torch.arange(legs, device=t.device)[:, None])}
    if stops:
        arrays |= images.locate(stops.index)
    metrics = {}
    for walk in walks:
        prefix, x = walk.side.prefix, join_legs(walk.x)
        arrays |= {
            f"{prefix}z_{walk.path}": join_legs(walk.z),
            f"{prefix}x_{walk.path}": context.data.restore(x),
        }
        metrics[f"{prefix}largest_step_{walk.path}"] = largest_step(x)
        if stops:
            error = x[:: config.steps - 1] - stops.x
            metrics[f"{prefix}endpoint_mse_per_pixel"] = float(error.square().mean())
    pair_metrics, pair_protocol, charts = compare_pairs(context, config, runs)
    names = stop_names(images, config, stops)
    short, title = short_names(images, config, stops), make_title(config, names)
    grid = draw_grid(walks, t, stops, short, title, context.data.adapt("image"))
    style: Style = "between" if stops else "steps"
    items, notes = select_drawable(context, [grid, *charts], NamedArrays("codes", arrays), style)
    values = context.data.describe_values()
    protocol = f"{PROTOCOL.format(values)}; {pair_protocol}"
    if runs[1:]:
        protocol += f"; metrics with the prefix other_ are of {runs[1].name}, "
        protocol += f"all others of {runs[0].name}"
    notes += codebook_note({word for side in runs for word in side.provides})
    return Findings(items, metrics | pair_metrics, protocol, notes)


def end_codes(
    context: ExploreContext, config: InterpolateConfig, side: Side, stops: Batch | None
) -> Tensor:
    """Return the codes that the path passes through: (K, *latent)."""
    if stops:
        codes: Tensor = side.model.encode(stops.x).mode()
        return codes
    assert config.classes is not None  # checked by the config
    means = class_means(context, side.model, config.classes)
    return means.reshape(-1, *side.model.latent.shape)


def make_walks(side: Side, ends: Tensor, t: Tensor, config: InterpolateConfig) -> list[Walk]:
    walks = []
    for path in path_names(config):
        z = torch.stack([PATHS[path](a, b, t) for a, b in pairwise(ends)])
        x = decode(side.model, z.flatten(0, 1)).unflatten(0, z.shape[:2])
        walks.append(Walk(side, path, z, x))
    return walks


def join_legs(legs: Tensor) -> Tensor:
    """Join legs (L, steps, ...) into one path. A code shared by two legs is kept only once."""
    return torch.cat([legs[0], legs[1:, 1:].flatten(0, 1)])


def select_images(images: Images, config: InterpolateConfig) -> list[int]:
    """Return the indices of the images that the config selects."""
    if config.classes is None:
        if config.images is not None:
            return list(config.images)
        if len(images) < 2:
            raise UsageError(
                f"the split {config.split!r} has one image, and a path needs two",
                hint="--set split=train",
            )
        return across_classes(images, 2)
    chosen: list[int] = []
    for label in config.classes:
        indices = [i for i in images.of_class(label).tolist() if i not in chosen]
        if not indices:
            other = "train" if config.split != "train" else "test"
            count = counted(len(images.of_class(label)), "image")
            raise UsageError(
                f"the split {config.split!r} has {count} of class {label}, too few for "
                f"classes={list(config.classes)}",
                hint=f"--set split={other}, or other classes",
            )
        chosen.append(indices[0])
    return chosen


def stop_names(images: Images, config: InterpolateConfig, stops: Batch | None) -> list[str]:
    classes = images.spec.classes
    if stops is None:
        return [f"class {classes[label]}" for label in config.classes or ()]
    names = [f"image {int(i)}" for i in stops.index]
    if stops.y is None:
        return names
    return [f"{name} (class {classes[int(y)]})" for name, y in zip(names, stops.y, strict=True)]


def short_names(images: Images, config: InterpolateConfig, stops: Batch | None) -> list[str]:
    """Return short names for row titles: the classes if there are any, else the image indices."""
    if stops is not None and stops.y is None:
        return [str(int(i)) for i in stops.index]
    labels = (config.classes or ()) if stops is None or stops.y is None else stops.y.tolist()
    return [images.spec.classes[label] for label in labels]


def make_title(config: InterpolateConfig, names: Sequence[str]) -> str:
    means = config.between == "class_means"
    kind = "the mean code of " if means else f"{config.split} "
    if len(names) == 2:
        return f"From {kind}{names[0]} to {'the mean code of ' if means else ''}{names[1]}"
    if len(names) > 5:
        return f"Through {kind}{names[0]}, {len(names) - 2} others and {names[-1]}"
    return f"Through {kind}{', '.join(names[:-1])} and {names[-1]}"


def draw_grid(
    walks: Sequence[Walk],
    t: Tensor,
    stops: Batch | None,
    short: Sequence[str],
    title: str,
    end: str,
) -> ImageGrid:
    """Draw one row for each leg of each path, between the images at its ends, whose columns have
    the title `end`."""
    steps = len(t)
    shown = torch.linspace(0, steps - 1, min(steps, MAX_COLUMNS)).round().long()
    rows, titles = [], []
    for walk in walks:
        for leg, x in enumerate(walk.x):
            ends = (stops.x[leg : leg + 1], stops.x[leg + 1 : leg + 2]) if stops else ()
            rows.append(torch.cat([*ends[:1], x[shown], *ends[1:]]))
            leg_title = f" {short[leg]} to {short[leg + 1]}" if len(walk.x) > 1 else ""
            titles.append(f"{walk.side.label}{walk.path}{leg_title}")
    times = [f"t = {float(w):.2f}" for w in t[shown]]
    return ImageGrid(
        name="interpolation",
        title=title,
        rows=rows,
        column_titles=(end, *times, end) if stops else times,
        row_titles=titles,
    )


def largest_step(x: Tensor) -> float:
    """Return the ratio of the largest to the mean distance between consecutive images, or 1 if the
    images do not change."""
    lengths = (x[1:] - x[:-1]).flatten(1).norm(dim=1)
    return float(lengths.max() / lengths.mean()) if lengths.max() > 1e-4 else 1.0
