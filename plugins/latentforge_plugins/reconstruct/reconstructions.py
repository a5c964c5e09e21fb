"""Reconstruction errors of all images of a split, and its best and worst reconstructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext, Images
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge_plugins.image_quality.quality import mse
from latentforge_plugins.measures import BATCH, in_words
from latentforge_plugins.walks import drawn

if TYPE_CHECKING:
    from .config import ReconstructConfig


def reconstruct(context: ExploreContext, config: ReconstructConfig) -> Findings:
    images = context.images(config.split)
    squared, error = errors(context, images)  # (N,) each
    order = error.argsort(stable=True)
    n = min(config.n, len(images))
    ends = {"first": torch.arange(n), "best": order[:n], "worst": order.flip(0)[:n]}
    shown = {name: pair(context, images, places) for name, places in ends.items()}
    metrics = {
        "mse_per_pixel": float(squared.mean()),
        "error_best": float(error.min()),
        "error_median": float(error.quantile(0.5)),
        "error_worst": float(error.max()),
    }
    arrays = {"error": error, "mse_per_pixel": squared, "order": order}
    for name, (x, recon) in shown.items():
        arrays |= {f"x_{name}": x, f"recon_{name}": recon}
    unit = error_in_words(context)
    protocol = (
        f"mse_per_pixel: mean over all {len(images)} images of the split {config.split} and their "
        f"values in [0, 1]; error_best, _median, _worst: of single images, {unit}; "
        "z the posterior mode"
    )
    grid = picture(context, config, images, ends, shown, error)
    items, notes = drawn(context, [grid], NamedArrays("errors", arrays))
    if n < config.n:
        notes.append(f"the split {config.split} has only {n} images")
    return Findings(items, metrics, protocol, notes)


def picture(
    context: ExploreContext,
    config: ReconstructConfig,
    images: Images,
    ends: dict[str, Tensor],
    shown: dict[str, tuple[Tensor, Tensor]],
    error: Tensor,
) -> ImageGrid:
    """Two rows per group: images with their names, and reconstructions with their errors."""
    nats = likelihood(context) is not None
    digits = ".1f" if nats else ".4f"
    captions = []
    for places in ends.values():
        named = [f"image {i}" for i in places.tolist()]
        if images.y is not None:
            own = zip(named, images.y[places.to(images.device)].tolist(), strict=True)
            named = [f"{name}: {context.data.classes[y]}" for name, y in own]
        captions += [named, [f"{value:{digits}}" for value in error[places].tolist()]]
    return ImageGrid(
        name="reconstructions",
        title=f"Images of the split {config.split} over their reconstructions, with the error in "
        + ("nats" if nats else "squared differences"),
        rows=[row for rows in shown.values() for row in rows],
        row_titles=[title for name in ends for title in (name, "decoded")],
        captions=captions,
    )


def likelihood(context: ExploreContext):
    """The likelihood of the loss that the run was trained with, or None."""
    return getattr(context.loss, "likelihood", None)


def error_in_words(context: ExploreContext) -> str:
    own = likelihood(context)
    if own is None:
        return "mean squared difference over the values"
    return f"-log p(x|z) in nats, summed over the values, {in_words(own)}"


def errors(context: ExploreContext, images: Images) -> tuple[Tensor, Tensor]:
    """The mean squared difference over the values of each image, and its error as the loss defines
    it: in nats if the loss has a likelihood, else the same. (N,) each, on the CPU."""
    own = likelihood(context)

    def of(batch: Batch) -> tuple[Tensor, Tensor]:
        z = context.model.encode(batch.x).mode()
        squared = mse(context.model.decode(z), batch.x)
        return squared, squared if own is None else own.nll(context.model, z, batch.x)

    squared, error = zip(*(of(batch) for batch in images.batches(BATCH)), strict=True)
    return torch.cat(squared).cpu(), torch.cat(error).cpu()


def pair(context: ExploreContext, images: Images, places: Tensor) -> tuple[Tensor, Tensor]:
    """The images at these indices and their reconstructions, (n, *data.shape) each."""
    x = images.batch_at(places.tolist()).x
    return x, context.model.decode(context.model.encode(x).mode())
