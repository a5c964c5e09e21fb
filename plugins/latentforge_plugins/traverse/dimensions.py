"""The effect of each latent dimension: its KL or variance, and the images along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.errors import UsageError
from latentforge.findings import Bars, Finding, Findings, ImageGrid, NamedArrays
from latentforge.latent import dimension_names
from latentforge_plugins import walks
from latentforge_plugins.measures import select_evenly

from .config import TraverseConfig

ACTIVE = 0.01  # KL in nats, or variance, above which a dimension is active
OTHER = "traversal-other"  # the picture of the other run
VISIBLE = 0.01  # effect, as a fraction of the variance of the images, below which rows look equal
SAMPLE = 500  # training images from which that variance is computed
BARS = 30  # maximum number of dimensions in the KL chart


@dataclass(frozen=True)
class Traversal:
    """The traversals of one run. Vectors (D,) are ordered from the most to the least informative
    dimension. `z` (rows, steps, D) and `x` (rows, steps, *data.shape) contain only the dimensions
    that are drawn."""

    side: walks.Side
    spread: walks.Spread
    by_kl: bool
    how: str  # says in brackets that the KL is estimated, or is empty
    order: Tensor  # int64 (D,)
    weight: Tensor  # KL in nats, or the variance of the codes, in `order`
    effect: Tensor  # mean squared change of a pixel, in `order`
    z: Tensor
    x: Tensor


def traverse(context: ExploreContext, config: TraverseConfig) -> Findings:
    images = context.images(config.split)
    base = None if config.image is None else images.batch_at([config.image]).x
    found = [traverse_dimensions(context, config, side, base) for side in walks.sides(context)]

    pictures: list[Finding] = [draw(t, config) for t in found]
    if all(t.by_kl for t in found):
        pictures.append(draw_bars(found))
    arrays: dict[str, Tensor] = {}
    metrics: dict[str, float] = {}
    for t in found:
        prefix = t.side.prefix
        parts = {"z": t.z.unflatten(2, t.side.model.latent.shape), "dimension": t.order}
        parts["x"] = context.data.restore(t.x)
        parts |= {"kl" if t.by_kl else "variance": t.weight, "effect": t.effect}
        arrays |= {prefix + name: value for name, value in parts.items()}
        metrics[f"{prefix}active_dims"] = float((t.weight > ACTIVE).sum())
        metrics[f"{prefix}largest_effect"] = float(t.effect.max())
        metrics[f"{prefix}effect_of_first"] = float(t.effect[0])
    items, notes = walks.select_drawable(context, pictures, NamedArrays("codes", arrays))
    run_notes = [(t, note) for t in found for note in walks.shape_note(t.side.model)]
    same_note = len({note for _, note in run_notes}) == 1
    notes += [run_notes[0][1]] if same_note else [f"{t.side.label}{note}" for t, note in run_notes]
    variance = image_variance(context.images("train"))
    notes += [f"{t.side.label}{note}" for t in found for note in effect_note(t, variance)]
    notes += walks.codebook_note({word for t in found for word in t.side.provides})
    roles = {item.name: "other" for item in items if item.name == OTHER}
    protocol = describe_protocol(found, config, context.data.describe_values())
    return Findings(items, metrics, protocol, notes, roles)


def traverse_dimensions(
    context: ExploreContext, config: TraverseConfig, side: walks.Side, base: Tensor | None
) -> Traversal:
    """Traverse every dimension of one run, around the code of `base` (1, ...) if it is given."""
    model, codes = side.model, context.codes("train", side.model).flatten(1)
    spread = walks.spread_of(model, codes)
    kl = walks.mean_kl(model, side.provides, context.images("train"))
    weight = codes.var(0, correction=0) if kl is None else kl.values  # (D,)
    order = weight.argsort(descending=True, stable=True)
    values = positions(spread, config)  # (D, steps)
    start = spread.centre if base is None else model.encode(base).mode().flatten()
    middle = walks.decode(model, start[None])
    codes_along, images, effect = [], [], []
    for rank, dim in enumerate(order.tolist()):
        z = start.repeat(config.steps, 1)
        z[:, dim] = values[dim]
        x = walks.decode(model, z)
        effect.append((x - middle).square().mean())
        if rank < config.rows:
            codes_along.append(z)
            images.append(x)
    stacked = map(torch.stack, (effect, codes_along, images))
    how = "" if kl is None else kl.how
    return Traversal(side, spread, kl is not None, how, order, weight[order], *stacked)


def image_variance(images: Images) -> float:
    """Return the variance of a value over the training images, mean over the values, from at most
    SAMPLE images."""
    places = select_evenly(images, SAMPLE)
    return float(images.batch(places).x.double().var(0, correction=0).mean())


def effect_note(t: Traversal, variance: float) -> list[str]:
    """Return a note if no dimension alone has a visible effect on images of this `variance`."""
    largest = float(t.effect.max())
    if largest >= VISIBLE * variance:
        return []
    text = (
        f"single values of the code have almost no effect: the largest is {largest:.2g}, and the "
        f"variance of the training images is {variance:.2g}"
    )
    if len(t.side.model.latent.shape) > 1:
        text += "; `interpolate` and `sample` change all values of a code together"
    return [text]


def positions(spread: walks.Spread, config: TraverseConfig) -> Tensor:
    """Return the values of each dimension, (D, steps), evenly spaced in probability. Raises
    UsageError if a value is infinite or NaN."""
    found = spread.quantiles(probabilities(config))
    if not bool(found.isfinite().all()):
        low, high = config.quantiles
        raise UsageError(
            f"some code values between the quantiles {low:g} and {high:g} are infinite or NaN",
            hint="--set 'quantiles=[0.02, 0.98]', or `latentforge doctor RUN` for codes of NaN",
        )
    return found


def probabilities(config: TraverseConfig) -> Tensor:
    """Return evenly spaced probabilities between the two `quantiles`, (steps,), float64 on the CPU.
    float32 would round values close to 0 or 1 to 0 or 1, whose prior quantiles are infinite."""
    return torch.linspace(*config.quantiles, config.steps, dtype=torch.float64)


def draw(t: Traversal, config: TraverseConfig) -> ImageGrid:
    unit = "KL" if t.by_kl else "var"
    rows, total = len(t.x), len(t.order)
    pairs = zip(t.order[:rows].tolist(), t.weight[:rows].tolist(), strict=True)
    at, names = probabilities(config), dimension_names(t.side.model.latent)
    if t.spread.normal:
        columns = [f"{round(float(v), 2) + 0.0:.2f}" for v in walks.prior_quantiles(at)]  # no -0.00
    else:
        columns = [f"{float(p):.0%}" for p in at]
    around = f", around {config.split} image {config.image}" if config.image is not None else ""
    which = "Each dimension"
    if rows < total:
        quantity = "KL" if t.by_kl else "variance"
        which = f"The {rows} of {total} dimensions with the largest {quantity},"
    legend = "KL in nats" if t.by_kl else "var: variance of the training codes"
    return ImageGrid(
        OTHER if t.side.prefix else "traversal",
        f"{t.side.label}{which} varied over the {t.spread.owner} quantiles{around}; {legend}",
        rows=list(t.x),
        column_titles=columns,
        row_titles=[f"{names[dim]}  {unit} {weight:.2f}" for dim, weight in pairs],
    )


def draw_bars(found: Sequence[Traversal]) -> Bars:
    """Draw a bar chart of the KL of each run's dimensions in descending order, side by side."""
    total = max(len(t.weight) for t in found)
    count = min(BARS, total)
    heights = {}
    for t in found:
        weights = t.weight[:count].tolist()
        heights[t.side.name or "KL"] = [*weights, *[0.0] * (count - len(weights))]
    labels = [str(rank + 1) for rank in range(count)]
    if len(found) == 1:
        names = dimension_names(found[0].side.model.latent)
        labels = [names[dim] for dim in found[0].order[:count].tolist()]
    extent = f"the {count} largest of {total}" if count < total else "largest first"
    return Bars("kl", f"KL of each dimension, {extent}", labels, heights, "nats, mean over images")


def describe_protocol(found: Sequence[Traversal], config: TraverseConfig, values: str) -> str:
    """Define the metrics; for a second run, name only the differences. `values` is their unit."""
    low, high = config.quantiles
    (what, of, rest), *others = [describe_setup(t, config) for t in found]
    sentences = [
        f"active_dims: number of dimensions whose {what} over training images is above {ACTIVE}",
        "largest_effect: largest effect of a dimension, where the effect is the mean squared "
        f"difference of {values} from those of the image at {rest}, over {config.steps} "
        f"steps from the {low:g} to the {high:g} quantile of {of}, with the other dimensions at "
        f"{rest}",
        "effect_of_first: the effect of the dimension in the first row",
    ]
    for t, other_setup in zip(found[1:], others, strict=True):
        differences = [
            f"{new} in place of {old}"
            for new, old in zip(other_setup, (what, of, rest), strict=True)
            if new != old
        ]
        same = f"{t.side.prefix}...: the same for {t.side.name}"
        sentences.append(", ".join([same, *differences]))
    return "; ".join([*sentences, "z the posterior mode"])


def describe_setup(t: Traversal, config: TraverseConfig) -> tuple[str, str, str]:
    """Return what ranks the dimensions, which distribution's quantiles they cover, and the values
    of the other dimensions."""
    rest = t.spread.centre_name
    if config.image is not None:
        rest = f"the code of {config.split} image {config.image}"
    what = f"mean KL(q(z|x) || p(z)) in nats{t.how}" if t.by_kl else "variance of codes"
    return what, t.spread.name, rest
