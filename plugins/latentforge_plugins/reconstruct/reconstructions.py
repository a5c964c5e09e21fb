"""Reconstruction errors of all images of a split, and its best and worst reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor

from latentforge.contracts import Batch, ExploreContext, Images
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.io.text import counted
from latentforge.latent import Bernoulli
from latentforge_plugins.image_quality.quality import mse
from latentforge_plugins.measures import BATCH, describe_likelihood
from latentforge_plugins.walks import across_classes, select_drawable, short_number, view_for

from .config import ReconstructConfig


def reconstruct(context: ExploreContext, config: ReconstructConfig) -> Findings:
    images = context.images(config.split)
    squared, error = compute_errors(context, images)  # (N,) each
    order = error.argsort(stable=True)
    n = min(config.n, len(images))
    some = torch.tensor(across_classes(images, n))
    groups = {"some": some, "best": order[:n], "worst": order.flip(0)[:n]}
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
        stored = {f"x_{name}": x, f"recon_{name}": recon}
        arrays |= {key: context.data.restore(values) for key, values in stored.items()}
    unit = describe_error(context)
    protocol = (
        f"mse_per_pixel: mean over all {len(images)} images of the split {config.split} and their "
        f"{context.data.describe_values()}; error_best, error_median, error_worst: error of single "
        f"images, {unit}; z the posterior mode"
    )
    grid = draw_grid(context, config, images, groups, shown, error)
    items, notes = select_drawable(context, [grid], NamedArrays("errors", arrays), "pairs")
    if n < config.n:
        notes.append(f"the split {config.split} has only {counted(n, 'image')}")
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
    nats = bernoulli(context) is not None
    what = f"Images of the split {config.split} above"
    if context.data.kind != "image":
        what = f"{context.data.kind.capitalize()}s of the split {config.split} and"
    captions = []
    for indices in groups.values():
        names = [f"{context.data.kind} {i}" for i in indices.tolist()]
        if images.y is not None:
            labelled = zip(names, images.y[indices.to(images.device)].tolist(), strict=True)
            names = [f"{name}: {context.data.classes[y]}" for name, y in labelled]
        captions += [names, [short_number(value) for value in error[indices].tolist()]]
    return ImageGrid(
        name="reconstructions",
        title=f"{what} their reconstructions, with the "
        + ("error in nats above the smallest possible" if nats else "mean squared error"),
        rows=[row for rows in shown.values() for row in rows],
        row_titles=[title for name in groups for title in (name, "decoded")],
        captions=captions,
    )


def bernoulli(context: ExploreContext) -> Bernoulli | None:
    """Return the likelihood of the loss that the run was trained with if it is Bernoulli."""
    likelihood = getattr(context.loss, "likelihood", None)
    return likelihood if isinstance(likelihood, Bernoulli) else None


def describe_error(context: ExploreContext) -> str:
    likelihood = bernoulli(context)
    if likelihood is None:
        return "mean squared difference over the values"
    return (
        "-log p(x|z) minus the entropy of the image, the smallest possible value, in nats, summed "
        f"over the values, {describe_likelihood(likelihood)}"
    )


def entropy(x: Tensor) -> Tensor:
    """The sum of the entropies of Bernoulli variables with probabilities x (B, ...), (B,)."""
    return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


def compute_errors(context: ExploreContext, images: Images) -> tuple[Tensor, Tensor]:
    """Compute the mean squared reconstruction error of each image, and the error that ranks it:
    under a Bernoulli likelihood the excess over the entropy of the image in nats, because otherwise
    images with many grey values would be the worst; else the mean squared error. Both are (N,) on
    the CPU."""
    likelihood = bernoulli(context)

    def errors_of(batch: Batch) -> tuple[Tensor, Tensor]:
        model = view_for(context, batch.y)
        z = model.encode(batch.x).mode()
        squared = mse(model.decode(z), batch.x)
        if likelihood is None:
            return squared, squared
        return squared, likelihood.nll(model, z, batch.x) - entropy(batch.x)

    squared, error = zip(*(errors_of(batch) for batch in images.batches(BATCH)), strict=True)
    return torch.cat(squared).cpu(), torch.cat(error).cpu()


def reconstruct_images(
    context: ExploreContext, images: Images, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the images at these indices and their reconstructions, (n, *data.shape) each."""
    batch = images.batch_at(indices.tolist())
    model = view_for(context, batch.y)
    return batch.x, model.decode(model.encode(batch.x).mode())
