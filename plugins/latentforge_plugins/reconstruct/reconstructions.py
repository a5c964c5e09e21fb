"""Reconstruction errors of all images of a split, and its best and worst reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext, Images
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge_plugins.image_quality.quality import mse
from latentforge_plugins.measures import BATCH, describe_likelihood
from latentforge_plugins.walks import select_drawable

from .config import ReconstructConfig


def reconstruct(context: ExploreContext, config: ReconstructConfig) -> Findings:
    images = context.images(config.split)
    squared, error = compute_errors(context, images)  # (N,) each
    order = error.argsort(stable=True)
    n = min(config.n, len(images))
    groups = {"first": torch.arange(n), "best": order[:n], "worst": order.flip(0)[:n]}
    shown = {name: reconstruct_images(context, images, indices) for name, indices in groups.items()}
    metrics = {
        "mse_per_pixel": float(squared.mean()),
        "error_best": float(error.min()),
        "error_median": float(error.quantile(0.5)),
        "error_worst": float(error.max()),
    }
    arrays = {"error": error, "mse_per_pixel": squared, "order": order}
    arrays |= images.locate(torch.arange(len(images)))
    for name, (x, recon) in shown.items():
        arrays |= {f"x_{name}": x, f"recon_{name}": recon}
    unit = describe_error(context)
    protocol = (
        f"mse_per_pixel: mean over all {len(images)} images of the split {config.split} and their "
        f"values in [0, 1]; error_best, error_median, error_worst: error of single images, {unit}; "
        "z the posterior mode"
    )
    grid = draw_grid(context, config, images, groups, shown, error)
    items, notes = select_drawable(context, [grid], NamedArrays("errors", arrays))
    if n < config.n:
        notes.append(f"the split {config.split} has only {n} images")
    return Findings(items, metrics, protocol, notes)


def draw_grid(
    context: ExploreContext,
    config: ReconstructConfig,
    images: Images,
    groups: dict[str, Tensor],
    shown: dict[str, tuple[Tensor, Tensor]],
    error: Tensor,
) -> ImageGrid:
    """Draw two rows per group: images with their names, and reconstructions with their errors."""
    nats = run_likelihood(context) is not None
    digits = ".1f" if nats else ".4f"
    captions = []
    for indices in groups.values():
        names = [f"image {i}" for i in indices.tolist()]
        if images.y is not None:
            labelled = zip(names, images.y[indices.to(images.device)].tolist(), strict=True)
            names = [f"{name}: {context.data.classes[y]}" for name, y in labelled]
        captions += [names, [f"{value:{digits}}" for value in error[indices].tolist()]]
    return ImageGrid(
        name="reconstructions",
        title=f"Images of the split {config.split} above their reconstructions, with the error in "
        + ("nats" if nats else "squared differences"),
        rows=[row for rows in shown.values() for row in rows],
        row_titles=[title for name in groups for title in (name, "decoded")],
        captions=captions,
    )


def run_likelihood(context: ExploreContext):
    """Return the likelihood of the loss that the run was trained with, or None."""
    return getattr(context.loss, "likelihood", None)


def describe_error(context: ExploreContext) -> str:
    likelihood = run_likelihood(context)
    if likelihood is None:
        return "mean squared difference over the values"
    return f"-log p(x|z) in nats, summed over the values, {describe_likelihood(likelihood)}"


def compute_errors(context: ExploreContext, images: Images) -> tuple[Tensor, Tensor]:
    """Compute the mean squared reconstruction error of each image, and its error under the loss: in
    nats if the loss has a likelihood, else again the mean squared error. Both are (N,) on the CPU.
    """
    likelihood = run_likelihood(context)

    def errors_of(batch: Batch) -> tuple[Tensor, Tensor]:
        z = context.model.encode(batch.x).mode()
        squared = mse(context.model.decode(z), batch.x)
        return squared, squared if likelihood is None else likelihood.nll(context.model, z, batch.x)

    squared, error = zip(*(errors_of(batch) for batch in images.batches(BATCH)), strict=True)
    return torch.cat(squared).cpu(), torch.cat(error).cpu()


def reconstruct_images(
    context: ExploreContext, images: Images, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the images at these indices and their reconstructions, (n, *data.shape) each."""
    x = images.batch_at(indices.tolist()).x
    return x, context.model.decode(context.model.encode(x).mode())
