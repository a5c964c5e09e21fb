"""Moves codes between classes by the difference of the mean codes (Larsen et al. 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.findings import Finding, Findings, ImageGrid, Lines, NamedArrays
from latentforge_plugins.walks import (
    across_classes,
    class_means,
    codebook_note,
    decode,
    is_conditional,
    probabilities,
    select_drawable,
    title_role,
)

from .config import ArithmeticConfig

MAX_IMAGES = 8  # maximum number of images in the figure unless `images` is given
OWN = 4  # of them of class `minus`
MAX_CLASSIFIED = 1000  # maximum number of images of the class that are classified
CURVE_POINTS = 21  # number of scales on the curve


def arithmetic(context: ExploreContext, config: ArithmeticConfig) -> Findings:
    if is_conditional(context) or context.condition is not None:
        raise UsageError(
            "arithmetic moves codes between classes, but a conditional model is given the class, "
            "which is not in its codes",
            hint="`latentforge explore sample RUN` shows the same codes in every class",
        )
    images, names = context.images(config.split), context.data.classes
    minus_indices = images.of_class(config.minus)
    minus, plus = class_means(context, context.model, (config.minus, config.plus))
    if config.images is not None:
        batch = images.batch_at(config.images)
    elif len(minus_indices):
        own = minus_indices[:OWN].tolist()
        everything = across_classes(images, MAX_IMAGES + len(names))
        others = [i for i in everything if int(images.y[i]) != config.minus]
        batch = images.batch_at([*own, *others[: MAX_IMAGES - OWN]])
    else:
        raise UsageError(
            f"the split {config.split!r} has no image of class {config.minus}",
            hint="--set 'images=[0, 1]'",
        )
    z = context.model.encode(batch.x).mode().flatten(1)  # (K, D)
    scales = torch.tensor(config.scales, device=z.device)
    shifted = z[:, None] + scales[:, None] * (plus - minus)  # (K, S, D)
    x = decode(context.model, shifted.flatten(0, 1)).unflatten(0, shifted.shape[:2])

    difference_text = f"class {names[config.plus]} - mean code of class {names[config.minus]}"
    grid = ImageGrid(
        "arithmetic",
        f"z + s (mean code of {difference_text})",
        rows=[torch.cat([batch.x[i : i + 1], row]) for i, row in enumerate(x)],
        column_titles=(context.data.adapt("image"), *(f"s = {s:g}" for s in config.scales)),
        row_titles=[
            f"{config.split} {int(i)}: {names[int(y)]}"
            for i, y in zip(batch.index, batch.y, strict=True)
        ],
    )
    pictures: list[Finding] = [grid]
    protocol = (
        f"z + s (mean code of {difference_text}); means over the training images, "
        "z the posterior mode; difference_length: Euclidean norm of the difference in latent space"
    )
    metrics = {"difference_length": float((plus - minus).norm())}
    if (classifier := context.roles.get("classifier")) and len(minus_indices):
        classified = images.batch(minus_indices[:MAX_CLASSIFIED]).x
        ends = min(0.0, *config.scales), max(1.0, *config.scales)
        even = torch.linspace(*ends, CURVE_POINTS).tolist()
        curve_scales = sorted({*(round(s, 4) for s in even), 0.0, 1.0})
        shares = predict_shares(context, classifier.model, classified, plus - minus, curve_scales)
        curves = {f"class {names[k]}": shares[:, k] for k in (config.minus, config.plus)}
        curves["other classes"] = 1 - shares[:, [config.minus, config.plus]].sum(1)
        steps = torch.tensor(curve_scales)
        title = f"Predictions of {classifier.name} for images of class {names[config.minus]}"
        pictures.append(Lines("shares", title, steps, curves, "scale s", "fraction of images"))
        metrics["plus_share_at_0"] = float(shares[curve_scales.index(0.0), config.plus])
        metrics["plus_share_at_1"] = float(shares[curve_scales.index(1.0), config.plus])
        protocol += (
            f"; plus_share_at_0 and plus_share_at_1: fraction of {len(classified)} {config.split} "
            f"images of class {names[config.minus]} whose decoded image at s = 0 and at s = 1 is "
            f"classified as class {names[config.plus]} by {title_role('classifier', classifier)}"
        )
    arrays = {
        "z": shifted.unflatten(2, context.model.latent.shape),
        "x": context.data.restore(x),
        "scales": scales,
        "difference": (plus - minus).reshape(context.model.latent.shape),
        **images.locate(batch.index),
    }
    items, notes = select_drawable(context, pictures, NamedArrays("codes", arrays))
    return Findings(items, metrics, protocol, notes + codebook_note(context.provides))


def predict_shares(
    context: ExploreContext, classifier: Any, x: Tensor, difference: Tensor, scales: list[float]
) -> Tensor:
    """Return the fraction of x assigned to each class at each scale, (len(scales), classes)."""
    z = context.model.encode(x).mode().flatten(1)
    rows = []
    for s in scales:
        p = probabilities(classifier, decode(context.model, z + s * difference))
        rows.append(torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).double().mean(0))
    return torch.stack(rows).cpu()
