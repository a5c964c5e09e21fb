"""The forward process of diffusion models (Ho, Jain and Abbeel 2020) at evenly spaced levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.findings import Finding, Findings, ImageGrid, Lines, NamedArrays
from latentforge_plugins.measures import BATCH
from latentforge_plugins.walks import drawn

if TYPE_CHECKING:
    from latentforge.contracts import Images

    from .config import CorruptionConfig

SCHEDULE = (
    "x_s = sqrt(1 - s^2) x + s eps, eps ~ N(0, I), x scaled to [-1, 1], s evenly spaced from 0 to 1"
)


def corrupt(x: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
    """Adds noise of standard deviation s to images in [0, 1]. The result has mean
    1/2 + sqrt(1 - s^2) (x - 1/2) and standard deviation s/2, and can be outside [0, 1]."""
    s = torch.as_tensor(s, device=x.device)
    signal = (1 - s.square()).sqrt()
    return signal * x + (1 - signal) / 2 + s / 2 * noise


def corruption(context: ExploreContext, config: CorruptionConfig) -> Findings:
    images = context.images(config.split)
    levels = torch.linspace(0, 1, config.steps).to(context.device)
    chosen = images.batch_at(wanted(config, len(images)))
    noise = torch.randn(chosen.x.shape).to(chosen.x)  # the same noise at all levels, scaled
    noisy = torch.stack([corrupt(chosen.x, noise, s) for s in levels], 1)  # (images, levels, ...)
    count = min(config.n, len(images))
    places = torch.randperm(len(images))[:count].sort().values.to(images.device)
    curves = figures(context, images, places, levels)
    arrays = {"s": levels, "x": noisy, "index": chosen.index} | curves
    if "reconstructing" in jobs(context):
        arrays["recon"] = torch.stack([reconstructed(context.model, row) for row in noisy])
    shown = [*lines(levels, curves), picture(context, config, chosen.index.tolist(), noisy, levels)]
    items, notes = drawn(context, shown, NamedArrays("noisy", arrays))
    metrics = {
        f"{name}_at_{float(s):.2f}": float(value)
        for name, curve in curves.items()
        for s, value in zip(levels, curve, strict=True)
    }
    return Findings(items, metrics, protocol(context, config, count, curves), notes)


def wanted(config: CorruptionConfig, total: int) -> tuple[int, ...]:
    """The positions of the images to show; default positions are limited to a split of `total`
    images."""
    if config.images != type(config).images:
        return config.images
    return tuple(place for place in config.images if place < total)


def jobs(context: ExploreContext) -> list[str]:
    """What the model can do with a noisy image, by its capabilities."""
    able = {"classifying": {"classify"}, "reconstructing": {"encode", "decode"}}
    return [job for job, needs in able.items() if needs <= set(context.provides)]


def reconstructed(model: Any, x: Tensor) -> Tensor:
    return model.decode(model.encode(x).mode())


def protocol(
    context: ExploreContext, config: CorruptionConfig, count: int, curves: dict[str, Tensor]
) -> str:
    meant = {
        "accuracy": "accuracy_at_s: share of noisy images, from 0 to 1, that are classified "
        "correctly",
        "mse_noisy": "mse_noisy_at_s: squared difference between the noisy and the clean image, "
        "mean over values in [0, 1]",
        "mse_recon": "mse_recon_at_s: the same for the noisy image's reconstruction, z the "
        "posterior mode",
    }
    told = [meant[name] for name in curves]
    return "; ".join([*told, f"{count} images of the split {config.split}", SCHEDULE])


def figures(
    context: ExploreContext, images: Images, places: Tensor, levels: Tensor
) -> dict[str, Tensor]:
    """Metrics by name, one value per level (levels,), means over the images at `places`."""
    totals: dict[str, Tensor] = {}
    able = jobs(context)
    for part in places.split(BATCH):
        batch = images.batch(part)
        noise = torch.randn(batch.x.shape).to(batch.x)
        for i, s in enumerate(levels):
            x = corrupt(batch.x, noise, s)
            found = {"mse_noisy": squared(x, batch.x)}
            if "classifying" in able and batch.y is not None:
                found["accuracy"] = (context.model(x).argmax(1) == batch.y).double()
            if "reconstructing" in able:
                found["mse_recon"] = squared(reconstructed(context.model, x), batch.x)
            for name, values in found.items():
                total = totals.setdefault(name, torch.zeros(len(levels), dtype=torch.float64))
                total[i] += float(values.sum())
    return {name: total / len(places) for name, total in totals.items()}


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference per image: (B, ...) to (B,), float64."""
    return (a - b).square().flatten(1).double().mean(1)


def lines(levels: Tensor, curves: dict[str, Tensor]) -> list[Finding]:
    noise = "noise s"
    x = levels.cpu()
    found: list[Finding] = []
    if "accuracy" in curves:
        share = {"accuracy": curves["accuracy"]}
        found.append(
            Lines("accuracy", "Accuracy with increasing noise", x, share, noise, "accuracy")
        )
    if "mse_recon" in curves:
        error = {"noisy image": curves["mse_noisy"], "its reconstruction": curves["mse_recon"]}
        title = "Distance to the clean image with increasing noise"
        found.append(Lines("error", title, x, error, noise, "mean squared difference"))
    return found


def picture(
    context: ExploreContext,
    config: CorruptionConfig,
    places: Sequence[int],
    noisy: Tensor,
    levels: Tensor,
) -> ImageGrid:
    """A row for each image, with the predicted class if the model is a classifier, and below it the
    reconstructions if it is an autoencoder. Only here values are clipped to [0, 1]."""
    rows, titles, captions = [], [], []
    able = jobs(context)
    for place, row in zip(places, noisy, strict=True):
        rows.append(row.clamp(0, 1))
        titles.append(f"{config.split} {place}")
        seen = [""] * len(row)
        if "classifying" in able:
            best = context.model(row).softmax(1).max(1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            seen = [f"{context.data.classes[c]} ({p:.0%})" for c, p in pairs]
        captions.append(seen)
        if "reconstructing" in able:
            rows.append(reconstructed(context.model, row))
            titles.append("decoded")
            captions.append([""] * len(row))
    return ImageGrid(
        name="corruption",
        title="Images with increasing noise of standard deviation s",
        rows=rows,
        column_titles=[f"s = {float(s):.2f}" for s in levels],
        row_titles=titles,
        captions=captions if "classifying" in able else (),
    )
