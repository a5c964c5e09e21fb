"""From one image to another through the latent space: z(t) = (1 - t) z0 + t z1, or along an arc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.findings import Arrays, Findings, ImageGrid
from latentforge.latent import slerp

if TYPE_CHECKING:
    from latentforge.data import Images

    from . import InterpolateConfig


SHOWN = 20  # columns of the picture at the most; the arrays have every step
PROTOCOL = (
    "largest_step: the longest step between neighbouring decoded images over the mean step, "
    "Euclidean in pixels, 1 is even; endpoint_mse_per_pixel: of the two decoded ends against "
    "their images, values in [0, 1]; z the posterior mode"
)


def interpolate(context: ExploreContext, config: InterpolateConfig) -> Findings:
    images = context.images(config.split)
    pair = images.batch_at(choose(images, config))
    z0, z1 = context.model.encode(pair.x).mode()  # each (*latent)
    t = torch.linspace(0.0, 1.0, config.steps, device=z0.device)
    codes = {
        "linear": torch.stack([(1 - w) * z0 + w * z1 for w in t]),
        "spherical": slerp(z0, z1, t),
    }
    if config.path != "both":
        codes = {config.path: codes[config.path]}
    decoded = {path: context.model.decode(z) for path, z in codes.items()}

    shown = torch.linspace(0, config.steps - 1, min(config.steps, SHOWN)).round().long()
    names = [label(images, pair.y, pair.index, i) for i in (0, 1)]
    grid = ImageGrid(
        name="interpolation",
        title=f"From {config.split} {names[0]} to {names[1]}",
        rows=tuple(torch.cat([pair.x[:1], x[shown], pair.x[1:]]) for x in decoded.values()),
        column_titles=("image", *(f"t = {float(w):.2f}" for w in t[shown]), "image"),
        row_titles=tuple(decoded),
    )
    arrays = {"t": t, "index": pair.index}
    for path in codes:
        arrays |= {f"z_{path}": codes[path], f"x_{path}": decoded[path]}
    metrics = {f"largest_step_{path}": largest_step(x) for path, x in decoded.items()}
    metrics["endpoint_mse_per_pixel"] = float(
        (next(iter(decoded.values()))[[0, -1]] - pair.x).square().mean()
    )
    numbers = Arrays("codes", arrays)
    drawn = [grid, numbers] if context.data.drawable else [numbers]
    return Findings(drawn, metrics, PROTOCOL)


def choose(images: Images, config: InterpolateConfig) -> list[int]:
    """The places of the two images that the config asks for."""
    if config.classes is None:
        return list(config.images)
    chosen: list[int] = []
    for wanted in config.classes:
        found = [i for i in images.of_class(wanted).tolist() if i not in chosen]
        if not found:
            raise UsageError(f"the split {config.split!r} has too few images of class {wanted}")
        chosen.append(found[0])
    return chosen


def label(images: Images, y: Tensor | None, index: Tensor, i: int) -> str:
    name = f"image {int(index[i])}"
    return name if y is None else f"{name} (class {images.spec.classes[int(y[i])]})"


def largest_step(x: Tensor) -> float:
    """The longest of the steps between neighbours over the mean one; 1 for a walk on the spot."""
    lengths = (x[1:] - x[:-1]).flatten(1).norm(dim=1)
    return float(lengths.max() / lengths.mean()) if lengths.max() > 1e-4 else 1.0
