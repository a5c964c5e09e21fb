"""Finds the nearest training images of a few queries by exact distances to all training images."""

from __future__ import annotations

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext, Images
from latentforge.contracts.views import TRUE_LABELS
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.io.text import are, counted
from latentforge.neighbours import topk
from latentforge_plugins.measures import BATCH
from latentforge_plugins.walks import (
    across_classes,
    is_conditional,
    select_drawable,
    short_number,
    view_for,
)

from . import image_file
from .config import NeighboursConfig

QUERIES = 5
TITLES = {"codes": "by code", "pixels": "by pixels"}


def neighbours(context: ExploreContext, config: NeighboursConfig) -> Findings:
    train = context.images("train")
    notes = []
    if config.file is None:
        images = context.images(config.split)
        chosen = across_classes(images, QUERIES) if config.images is None else config.images
        query = images.batch_at(chosen)
        excluded = query.index if images.same_as(train) else None
        names = [f"{config.split} {i}" for i in chosen]
    else:
        if is_conditional(context) and config.space != "pixels":
            raise UsageError(
                f"{config.file} has no class, and the codes of a conditional model depend on it",
                hint="--set condition=0, the number of its class, or --set space=pixels",
            )
        image = image_file.read(config.file, context)
        query, excluded, names = image.batch_at([0]), None, [config.file.name]
        if image_file.is_inverted(image, train):
            notes.append(
                f"{config.file.name} looks like a negative of the run's images, which are "
                f"{'dark' if query.x.mean() > sum(context.data.extent) / 2 else 'light'}: invert it"
            )
    available = len(train) - (excluded is not None)
    if config.n > available:
        images = f"{counted(available, 'training image')} {are(available)}"
        raise UsageError(f"n is {config.n}, but only {images} available")
    spaces = [space for space in TITLES if config.space in (space, "both")]
    nearest = {
        space: find_nearest(context, query, train, space, config.n, excluded) for space in spaces
    }
    arrays, metrics = {"x": context.data.restore(query.x)}, {}
    if config.file is None:
        where = images.locate(query.index)
        arrays["query"] = where.pop("index")
        arrays |= {f"query_{key}": values for key, values in where.items()}
    for space, (distance, index) in nearest.items():
        where = train.locate(index.flatten())
        arrays |= {f"{key}_{space}": values.reshape(index.shape) for key, values in where.items()}
        arrays[f"distance_{space}"] = distance
        if query.y is not None:
            same_class = train.y[index] == query.y[:, None]  # (Q, n)
            metrics[f"same_class_share_{space}"] = float(same_class.double().mean())
    grid = draw_grid(context, config, query, names, train, nearest)
    items, more = select_drawable(context, [grid], NamedArrays("nearest", arrays), "examples")
    values = context.data.describe_values()
    if context.data.kind == "image":
        values += " (pixels)"
    text = protocol(config, len(query.x), len(train), values)
    if is_conditional(context) and "codes" in spaces:
        text += f"; {TRUE_LABELS}"
    return Findings(items, metrics, text, notes + more)


def protocol(config: NeighboursConfig, queries: int, train_count: int, values: str) -> str:
    share, subject = "", "of the file"
    if config.file is None:
        share = "same_class_share: fraction of neighbours that have the class of the query; "
        subject = f"of {counted(queries, 'image')} of the split {config.split}"
    return (
        f"{share}the {counted(config.n, 'nearest neighbour')} {subject} among {train_count} "
        "training images, by Euclidean distance of posterior means (codes) or of "
        f"{values}"
    )


def find_nearest(
    context: ExploreContext, query: Batch, train: Images, space: str, n: int, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the distances and indices of the n nearest training images of each query, nearest
    first, (Q, n) each. If queries are training images, `own` (Q,) contains their indices, so that
    no query is its own neighbour."""
    rows = (coordinates(context, batch, space) for batch in train.batches(BATCH))
    own = None if own is None else own.cpu()
    distance, index = topk(coordinates(context, query, space), rows, n, own=own, exact=True)
    return distance.float(), index.to(train.device)


def coordinates(context: ExploreContext, batch: Batch, space: str) -> Tensor:
    """Return the coordinates of images in a space: (B, D), float64 on the CPU."""
    codes = space == "codes"
    z = view_for(context, batch.y).encode(batch.x).mode() if codes else batch.x
    return z.flatten(1).double().cpu()


def draw_grid(
    context: ExploreContext,
    config: NeighboursConfig,
    query: Batch,
    names: list[str],
    train: Images,
    nearest: dict[str, tuple[Tensor, Tensor]],
) -> ImageGrid:
    """Draw a row for each image and space: the image and its neighbours with class and distance."""
    classes = context.data.classes
    rows, captions, titles = [], [], []
    for i, name in enumerate(names):
        for space, (distance, index) in nearest.items():
            neighbour_batch = train.batch(index[i])
            rows.append(torch.cat([query.x[i : i + 1], neighbour_batch.x]))
            label = "" if query.y is None else classes[int(query.y[i])]
            texts = [short_number(value) for value in distance[i].tolist()]
            if neighbour_batch.y is not None:
                labelled = zip(neighbour_batch.y.tolist(), texts, strict=True)
                texts = [f"{classes[y]}  ({text})" for y, text in labelled]
            captions.append([label, *texts])
            titles.append(f"{name}, {TITLES[space]}" if len(nearest) > 1 else name)
    caption = "class (distance)" if train.y is not None else "distance"
    spaces = TITLES.get(config.space, "by code and by pixels")
    return ImageGrid(
        name="neighbours",
        title=f"The nearest training images {spaces}, with their {caption}",
        rows=rows,
        column_titles=(context.data.adapt("image"), *(str(i + 1) for i in range(config.n))),
        row_titles=titles,
        captions=captions,
    )
