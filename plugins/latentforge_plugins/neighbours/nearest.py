"""The nearest training images of a few queries, by exact distances to all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.neighbours import topk
from latentforge_plugins.measures import BATCH
from latentforge_plugins.walks import drawn

from . import own_file

if TYPE_CHECKING:
    from latentforge.contracts import Images

    from .config import NeighboursConfig

IN = {"codes": "by code", "pixels": "by pixels"}


def neighbours(context: ExploreContext, config: NeighboursConfig) -> Findings:
    train = context.images("train")
    notes = []
    if config.file is None:
        images = context.images(config.split)
        query = images.batch_at(config.images)
        own = query.index if images.same_as(train) else None
        names = [f"{config.split} {i}" for i in config.images]
    else:
        image = own_file.read(config.file, context)
        query, own, names = image.batch_at([0]), None, [config.file.name]
        if own_file.inverted(image, train):
            notes.append(
                f"{config.file.name} looks like a negative of the run's images, which are "
                f"{'dark' if query.x.mean() > 0.5 else 'light'}: invert it"
            )
    if config.n > len(train) - (own is not None):
        raise UsageError(
            f"n is {config.n}, but only {len(train) - (own is not None)} training images are "
            "available"
        )
    spaces = [space for space in IN if config.space in (space, "both")]
    nearest = {space: find(context, query, train, space, config.n, own) for space in spaces}
    arrays, metrics = {"x": query.x}, {}
    if config.file is None:
        arrays["query"] = query.index
    for space, (distance, index) in nearest.items():
        arrays |= {f"index_{space}": index, f"distance_{space}": distance}
        if query.y is not None:
            alike = train.y[index] == query.y[:, None]  # (Q, n)
            metrics[f"same_class_share_{space}"] = float(alike.double().mean())
    grid = picture(context, config, query, names, train, nearest)
    items, more = drawn(context, [grid], NamedArrays("nearest", arrays))
    return Findings(items, metrics, protocol(config, len(query.x), len(train)), notes + more)


def protocol(config: NeighboursConfig, queries: int, among: int) -> str:
    share, asked = "", "of a file"
    if config.file is None:
        share = "same_class_share: share of neighbours, from 0 to 1, with the class of the query; "
        asked = f"of {queries} images of the split {config.split}"
    return (
        f"{share}the {config.n} nearest {asked} among {among} training images, Euclidean, by the "
        "posterior means (codes) or by values in [0, 1] (pixels)"
    )


def find(
    context: ExploreContext, query: Batch, train: Images, space: str, n: int, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Distances and indices of the n nearest training images of each query, nearest first, (Q, n)
    each. `own` (Q,) are the queries' indices among the training images, which are left out."""

    rows = (place(context, batch.x, space) for batch in train.batches(BATCH))
    own = None if own is None else own.cpu()
    distance, index = topk(place(context, query.x, space), rows, n, own=own, exact=True)
    return distance.float(), index.to(train.device)


def place(context: ExploreContext, x: Tensor, space: str) -> Tensor:
    """The coordinates of images in a space: (B, D), float64 on the CPU."""
    z = context.model.encode(x).mode() if space == "codes" else x
    return z.flatten(1).double().cpu()


def picture(
    context: ExploreContext,
    config: NeighboursConfig,
    query: Batch,
    names: list[str],
    train: Images,
    nearest: dict[str, tuple[Tensor, Tensor]],
) -> ImageGrid:
    """A row for each image and space: the image, then its neighbours with class and distance."""
    classes = context.data.classes
    rows, captions, titles = [], [], []
    for i, name in enumerate(names):
        for space, (distance, index) in nearest.items():
            found = train.batch(index[i])
            rows.append(torch.cat([query.x[i : i + 1], found.x]))
            label = "" if query.y is None else classes[int(query.y[i])]
            texts = [f"{away:.2f}" for away in distance[i].tolist()]
            if found.y is not None:
                own = zip(found.y.tolist(), texts, strict=True)
                texts = [f"{classes[y]}  ({text})" for y, text in own]
            captions.append([label, *texts])
            titles.append(f"{name}, {IN[space]}" if len(nearest) > 1 else name)
    what = "class (distance)" if train.y is not None else "distance"
    where = IN.get(config.space, "by code and by pixels")
    return ImageGrid(
        name="neighbours",
        title=f"The nearest training images {where}, with their {what}",
        rows=rows,
        column_titles=("image", *(str(i + 1) for i in range(config.n))),
        row_titles=titles,
        captions=captions,
    )
