"""Decodes a regular grid on a plane through the latent space. The y axis points upwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.latent import dimension_names
from latentforge_plugins import walks
from latentforge_plugins.densities import MAX_DIMENSIONS

from .config import ManifoldConfig

TAIL = 0.01  # fraction of the codes beyond each end of an axis that has no prior


@dataclass(frozen=True)
class Plane:
    """The plane z = base + a u0 + b u1 with `base` (D,) and `axes` u (2, D). `coordinates` (N, 2)
    are the values a and b of the training codes, and `covered` (M, 2) those of the codes that the
    grid covers: samples of the model's own prior or the training codes."""

    base: Tensor
    axes: Tensor
    coordinates: Tensor
    covered: Tensor
    names: tuple[str, str]
    description: str
    normal: bool  # whether the prior of a and b is N(0, I)
    of: str = "the codes"  # whose quantiles the grid covers, unless `normal`


def manifold(context: ExploreContext, config: ManifoldConfig) -> Findings:
    plane = make_plane(context, config)
    a, b = knots(plane, config)  # (size,) each
    grid = torch.stack(torch.meshgrid(a, b, indexing="xy"), -1)  # (size, size, 2), row r at b[r]
    z = plane.base + grid @ plane.axes  # (size, size, D)
    x = walks.decode(context.model, z.flatten(0, 1)).unflatten(0, z.shape[:2])

    span = [
        f"{name} from {float(v[0]):.3g} to {float(v[-1]):.3g}"
        for name, v in zip(plane.names, (a, b), strict=True)
    ]
    spacing = "evenly" if config.spacing == "linear" else "in equal steps of probability"
    directions = f"{plane.names[0]} to the right and {plane.names[1]} upwards"
    if context.data.kind != "image":
        directions = f"the colour shows {plane.names[0]} and the row {plane.names[1]}"
    picture = ImageGrid(
        "manifold",
        f"Decoded codes, {directions}: {plane.description}",
        rows=list(x.flip(0)),  # the first row of a picture is its top
        column_titles=sparse_labels(a),
        row_titles=sparse_labels(b.flip(0)),
    )
    ends = torch.stack([a[[0, -1]], b[[0, -1]]], 1)  # (2, 2): first and last knot of both axes
    inside = ((plane.coordinates >= ends[0]) & (plane.coordinates <= ends[1])).all(1)
    z = z.unflatten(2, context.model.latent.shape)
    arrays = NamedArrays("codes", {"z": z, "x": context.data.restore(x), "axis_x": a, "axis_y": b})
    items, notes = walks.select_drawable(context, [picture], arrays)
    protocol = (
        f"{span[0]} to the right, {span[1]} upwards, spaced {spacing}; {plane.description}; "
        f"codes_inside: fraction of the {len(inside)} training codes (posterior modes) whose two "
        "coordinates are in these ranges"
    )
    metrics = {"codes_inside": float(inside.double().mean())}
    if config.reach != type(config).reach and not plane.normal:
        notes.append(
            f"reach {config.reach:g} had no effect: it needs a model with the prior N(0, I); the "
            f"grid covers the {TAIL:.0%} to {1 - TAIL:.0%} quantile of {plane.of}"
        )
    notes += [*walks.shape_note(context.model), *walks.codebook_note(context.provides)]
    return Findings(items, metrics, protocol, notes)


def make_plane(context: ExploreContext, config: ManifoldConfig) -> Plane:
    size = walks.code_size(context.model)
    if size < 2:
        raise UsageError(
            "a manifold needs two latent dimensions, but this model has one",
            hint="latentforge explore traverse RUN",
        )
    if config.dims and max(config.dims) >= size:
        raise UsageError(
            f"no latent dimension {max(config.dims)}: this model has {size}",
            hint=f"choose dims from 0 to {size - 1}",
        )
    if config.plane == "principal" and size > MAX_DIMENSIONS:
        raise UsageError(
            f"principal directions support codes of at most {MAX_DIMENSIONS} values, not {size}",
            hint="--set plane=dims",
        )
    codes = context.codes("train").flatten(1)  # (N, D)
    spread = walks.spread_of(context.model, codes)
    chosen = config.dims is not None or config.plane == "dims" or size == 2
    if config.plane == "principal" or not (chosen or spread.normal or size > MAX_DIMENSIONS):
        return principal(spread, codes, config.plane == "principal")
    if chosen or not spread.normal:
        return through_dims(context, spread, codes, list(config.dims or (0, 1)))
    kl = walks.mean_kl(context.model, context.provides, context.images("train"))
    used = codes.var(0) if kl is None else kl.values  # as in `traverse`
    dims = used.argsort(descending=True, stable=True)[:2].tolist()
    plane = through_dims(context, spread, codes, dims)
    values = " and ".join(f"{float(used[d]):.2f}" for d in dims)
    largest = f"variance of the codes, {values}" if kl is None else f"KL, {values} nats{kl.how}"
    return replace(plane, description=f"the largest {largest}; {plane.description}")


def through_dims(
    context: ExploreContext, spread: walks.Spread, codes: Tensor, dims: list[int]
) -> Plane:
    axes = torch.eye(codes.shape[1], device=codes.device)[dims]
    base = spread.centre.clone()
    base[dims] = 0.0
    named = dimension_names(context.model.latent)
    names = (named[dims[0]], named[dims[1]])
    rest = "0, the prior's mean" if spread.normal else spread.centre_name
    rest = rest if spread.prior else "the mean of the training codes"
    description = f"the other dimensions at {rest}"
    if len(base) == 2:
        description = "the model has no other dimensions"
    covered = spread.codes[:, dims]
    of = describe_covered(spread)
    return Plane(base, axes, codes[:, dims], covered, names, description, spread.normal, of)


def principal(spread: walks.Spread, codes: Tensor, by_name: bool) -> Plane:
    """Return the plane through the mean of the codes along their two principal directions. `codes`
    are the training codes. For a model with its own prior, the plane is that of the prior's
    samples, unless the principal directions of the training codes were requested `by_name`."""
    own = spread.prior and not spread.normal and not by_name
    covered = spread.codes if own else codes
    mean, axes, shares = walks.principal_directions(covered)
    share = float(shares.sum())
    owner = f"{walks.PRIOR_SAMPLES} samples of the model's prior" if own else "the training codes"
    description = f"principal directions of {owner}, {share:.0%} of their variance"
    coordinates, on_plane = ((rows.double() - mean) @ axes.T for rows in (codes, covered))
    mean, axes, coordinates, on_plane = (v.to(codes) for v in (mean, axes, coordinates, on_plane))
    of = describe_covered(spread) if own else "the codes"
    names = ("PC 1", "PC 2")
    return Plane(mean, axes, coordinates, on_plane, names, description, normal=False, of=of)


def describe_covered(spread: walks.Spread) -> str:
    return "the prior's samples" if spread.prior else "the codes"


def knots(plane: Plane, config: ManifoldConfig) -> tuple[Tensor, Tensor]:
    """Return the positions of the grid's columns and rows on the two axes, in ascending order."""
    device = plane.coordinates.device
    if config.spacing == "quantile":  # midpoints of intervals of equal probability
        p = (torch.arange(config.size, device=device) + 0.5) / config.size
        if plane.normal:
            return walks.prior_quantiles(p), walks.prior_quantiles(p)
        a, b = walks.code_quantiles(plane.covered, p)
        return a, b
    even = torch.linspace(0.0, 1.0, config.size, device=device)
    if plane.normal:
        ends = even.new_tensor([[-config.reach, config.reach]] * 2)  # (2, 2)
    else:
        ends = walks.code_quantiles(plane.covered, even.new_tensor([TAIL, 1 - TAIL]))
    a, b = ends[:, :1] + even * (ends[:, 1:] - ends[:, :1])
    return a, b


def sparse_labels(values: Tensor) -> list[str]:
    """Format the first, middle and last value. The other labels are empty to save space."""
    shown = {0, len(values) // 2, len(values) - 1}
    span = abs(float(values[-1] - values[0]))
    digits = max(0, 2 - math.floor(math.log10(span))) if span > 0 else 2
    # + 0.0 turns -0.0 into 0.0
    labels = [f"{round(float(v), digits) + 0.0:.{digits}f}" for v in values]
    return [label if i in shown else "" for i, label in enumerate(labels)]
