"""The forward process of diffusion models (Ho, Jain and Abbeel 2020) at increasing noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import DataSpec, ExploreContext, Images
from latentforge.findings import Finding, Findings, ImageGrid, Lines, NamedArrays
from latentforge.io.text import counted
from latentforge_plugins.measures import BATCH
from latentforge_plugins.walks import select_drawable

from .config import CorruptionConfig

SCHEDULE = "x_s = sqrt(1 - s^2) x + s eps, eps ~ N(0, I), x {}, s evenly spaced from 0 to 1"


def corrupt(x: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
    """Add noise of level s to images in [0, 1]. The result has mean 1/2 + sqrt(1 - s^2) (x - 1/2)
    and standard deviation s/2, and can be outside [0, 1]."""
    s = torch.as_tensor(s, device=x.device)
    signal = (1 - s.square()).sqrt()
    return signal * x + (1 - signal) / 2 + s / 2 * noise


def corrupt_examples(data: DataSpec, x: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
    """Add noise of level s to examples in the range of the data, scaled to [0, 1], or to
    standardized ones, whose mean and variance it leaves at 0 and 1."""
    if data.scaling:
        s = torch.as_tensor(s, device=x.device)
        return (1 - s.square()).sqrt() * x + s * noise
    low, high = data.extent
    noisy = corrupt(data.to_unit(x), noise, s)
    return noisy if (low, high) == (0.0, 1.0) else low + (high - low) * noisy


def corruption(context: ExploreContext, config: CorruptionConfig) -> Findings:
    images = context.images(config.split)
    levels = torch.linspace(0, 1, config.steps).to(context.device)
    shown = images.batch_at(select_images(config, len(images)))
    noise = torch.randn(shown.x.shape).to(shown.x)  # the same noise at all levels, scaled
    add = partial(corrupt_examples, context.data)
    noisy = torch.stack([add(shown.x, noise, s) for s in levels], 1)  # (images, levels, ...)
    count = min(config.n, len(images))
    indices = torch.randperm(len(images))[:count].sort().values.to(images.device)
    curves = compute_curves(context, images, indices, levels)
    arrays = {"s": levels, "x": context.data.restore(noisy)} | images.locate(shown.index) | curves
    if reconstructs(context):
        recons = torch.stack([reconstruct(context.model, row) for row in noisy])
        arrays["recon"] = context.data.restore(recons)
    grid = draw_grid(context, config.split, shown.index.tolist(), noisy, levels)
    findings = [*draw_curves(levels, curves), grid]
    items, notes = select_drawable(context, findings, NamedArrays("noisy", arrays))
    metrics = {
        f"{name}_at_{float(s):.2f}": float(value)
        for name, curve in curves.items()
        for s, value in zip(levels, curve, strict=True)
    }
    text = protocol(config, count, curves, context.data)
    return Findings(items, metrics, text, notes)


def select_images(config: CorruptionConfig, total: int) -> tuple[int, ...]:
    """Return the indices of the images to show. Default indices beyond the `total` images of the
    split are dropped."""
    if config.images != type(config).images:
        return config.images
    return tuple(index for index in config.images if index < total)


def reconstructs(context: ExploreContext) -> bool:
    return {"encode", "decode"} <= set(context.provides)


def reconstruct(model: Any, x: Tensor) -> Tensor:
    return model.decode(model.encode(x).mode())


def protocol(
    config: CorruptionConfig, count: int, curves: dict[str, Tensor], data: DataSpec
) -> str:
    definitions = {
        "accuracy": "accuracy_at_s: fraction of noisy images that are classified correctly",
        "mse_noisy": "mse_noisy_at_s: mean squared difference per value between the noisy and the "
        f"clean image, for clean {data.describe_values()}",
        "mse_recon": "mse_recon_at_s: mean squared difference per value between the reconstruction "
        "of the noisy image and the clean image, z the posterior mode",
    }
    sentences = [definitions[name] for name in curves]
    schedule = SCHEDULE.format("standardized" if data.scaling else "scaled to [-1, 1]")
    return "; ".join(
        [*sentences, f"{counted(count, 'image')} of the split {config.split}", schedule]
    )


def compute_curves(
    context: ExploreContext, images: Images, indices: Tensor, levels: Tensor
) -> dict[str, Tensor]:
    """Compute each metric at each level, (levels,), as a mean over the images at `indices`."""
    totals: dict[str, Tensor] = {}
    for part in indices.split(BATCH):
        batch = images.batch(part)
        noise = torch.randn(batch.x.shape).to(batch.x)
        for i, s in enumerate(levels):
            x = corrupt_examples(context.data, batch.x, noise, s)
            metrics = {"mse_noisy": squared_error(x, batch.x)}
            if "classify" in context.provides and batch.y is not None:
                metrics["accuracy"] = (context.model(x).argmax(1) == batch.y).double()
            if reconstructs(context):
                metrics["mse_recon"] = squared_error(reconstruct(context.model, x), batch.x)
            for name, values in metrics.items():
                total = totals.setdefault(name, torch.zeros(len(levels), dtype=torch.float64))
                total[i] += float(values.sum())
    return {name: total / len(indices) for name, total in totals.items()}


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference per image: (B, ...) to (B,), float64."""
    return (a - b).square().flatten(1).double().mean(1)


def draw_curves(levels: Tensor, curves: dict[str, Tensor]) -> list[Finding]:
    x = levels.cpu()
    charts: list[Finding] = []
    if "accuracy" in curves:
        share = {"accuracy": curves["accuracy"]}
        title = "Accuracy with increasing noise"
        charts.append(Lines("accuracy", title, x, share, "noise s", "accuracy"))
    if "mse_recon" in curves:
        error = {"noisy image": curves["mse_noisy"], "its reconstruction": curves["mse_recon"]}
        title = "Distance to the clean image with increasing noise"
        charts.append(Lines("error", title, x, error, "noise s", "mean squared difference"))
    return charts


def draw_grid(
    context: ExploreContext, split: str, indices: Sequence[int], noisy: Tensor, levels: Tensor
) -> ImageGrid:
    """Draw a row for each image. For a classifier, captions name the predicted classes; for an
    autoencoder, a second row shows the reconstructions. Values are clipped only here."""
    rows, titles, captions = [], [], []
    classifies = "classify" in context.provides
    for index, row in zip(indices, noisy, strict=True):
        rows.append(row if context.data.scaling else row.clamp(*context.data.extent))
        titles.append(f"{split} {index}")
        predictions = [""] * len(row)
        if classifies:
            best = context.model(row).softmax(1).max(1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            predictions = [f"{context.data.classes[c]} ({p:.0%})" for c, p in pairs]
        captions.append(predictions)
        if reconstructs(context):
            rows.append(reconstruct(context.model, row))
            titles.append("decoded")
            captions.append([""] * len(row))
    return ImageGrid(
        name="corruption",
        title="Images with increasing noise of standard deviation s",
        rows=rows,
        column_titles=[f"s = {float(s):.2f}" for s in levels],
        row_titles=titles,
        captions=captions if classifies else (),
    )
