"""The map of a split: selected images and method, quality metrics, thumbnails, decoded plane."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.contracts.views import TRUE_LABELS
from latentforge.errors import UsageError
from latentforge.findings import Findings, NamedArrays, Plane, Scatter
from latentforge.neighbours import majority, topk
from latentforge.runtime.memory import host_memory
from latentforge_plugins.walks import axis_names, decode, is_conditional, not_drawable_note

from . import projections
from .config import LatentMapConfig

NAMES = {"pca": "PCA", "tsne": "t-SNE", "pacmap": "PaCMAP"}
KNOTS = 32  # grid points per side of the decoded plane
MARGIN = 0.05  # the plane extends beyond the points by this fraction of their range
MAX_TRUSTWORTHINESS = 2000  # maximum number of points, because all distances are in memory
THUMBNAILS = 2**25  # maximum number of values of all thumbnails, 128 MB


def latent_map(context: ExploreContext, config: LatentMapConfig) -> Findings:
    images = context.images(config.split)
    codes = context.codes(config.split).flatten(1).double().cpu()  # (N, D)
    size = codes.shape[1]
    method: str = config.method
    if size == 1 or (size == 2 and method == "auto"):
        method = "codes"
    elif method == "auto":
        method = "tsne"
    indices, notes = select_images(len(codes), size, method, config)
    notes += unused_options(config, method)
    codes = codes[indices]
    projections.check(codes, method)
    points, axes, metrics = project(codes, method, config, context.seed)
    labels = None if images.y is None else images.y.cpu()[indices]
    quality, protocol = measure_map(points, codes, labels, method, config, context)
    if len(context.model.latent.shape) > 1:
        notes.append(f"codes of shape {tuple(context.model.latent.shape)} are flattened")
    thumbnails = make_thumbnails(images, indices) if context.data.drawable else None
    if thumbnails is None:
        notes.append(not_drawable_note(context, "the points have no thumbnails"))
    if method == "codes" and size == 2 and is_conditional(context):
        notes.append("the plane is not decoded, as its images depend on a class: condition=0")
    title = f"Latent map of {len(points):,} {config.split} images{describe_method(method, size)}"
    if config.colour is not None:
        title += f", coloured by {config.colour}"
    if is_conditional(context):
        title += f"; {TRUE_LABELS}"
        protocol = "; ".join(filter(None, [protocol, TRUE_LABELS]))
    scatter = Scatter(
        name="map",
        title=title,
        points=points.float(),
        **colouring(images, config.colour, indices),
        images=thumbnails,
        plane=decode_plane(context, points) if method == "codes" and size == 2 else None,
        codes=codes.float(),
        axes=axis_names(context) if method == "codes" else axes,
    )
    index_arrays = NamedArrays("index", images.locate(indices))  # the scatter stores its own arrays
    return Findings([scatter, index_arrays], metrics | quality, protocol, notes)


def colouring(images: Images, name: str | None, indices: Tensor) -> dict[str, Any]:
    """Return the fields of Scatter for points that are coloured by the factor `name`, or by the
    class if there are labels. A numeric factor leaves the classes as names of the points."""
    classes = images.spec.classes
    labels = None if images.y is None else images.y.cpu()[indices]
    by_class = {"labels": labels, "classes": classes}
    if name is None:
        return by_class
    values = images.factors[name].cpu()[indices]
    names = next(factor.names for factor in images.spec.factors if factor.name == name)
    if names:
        return {"labels": values, "classes": names}
    return {**by_class, "values": values, "values_title": name}


def describe_method(method: str, size: int) -> str:
    """Describe the method and the number of dimensions for a title."""
    if method == "codes":
        return ", a single dimension" if size == 1 else ""
    return f": {NAMES[method]} of {size} dimensions"


def select_images(
    total: int, size: int, method: str, config: LatentMapConfig
) -> tuple[Tensor, list[str]]:
    """Return the indices of the images that the map shows, in order, and notes on the selection."""
    requested = count = min(config.n, total)
    notes = []
    if method in ("tsne", "pacmap"):
        free = host_memory()
        perplexity = min(config.perplexity, projections.max_perplexity(requested))
        count = min(requested, projections.max_points(size, perplexity, free))
        memory = f"{free / 2**20:,.0f} MB of free memory"
        if count < projections.MIN_POINTS <= requested:
            problem = f"{memory} is too little for a map by {NAMES[method]}"
            raise UsageError(problem, hint="--set method=pca")
        if count < requested:
            notes.append(
                f"{NAMES[method]} of {requested:,} images needs more than the {memory}; "
                f"{count:,} of them, selected at random, are shown"
            )
    if method == "tsne" and config.perplexity > (most := projections.max_perplexity(count)):
        lowered = f"lowered to {most:.4g}, the largest for {count:,} points"
        notes.append(f"perplexity {config.perplexity:g} is {lowered}")
    if count == requested < total:
        notes.append(f"{count:,} of {total:,} images are shown, selected at random (n)")
    return torch.randperm(total)[:count].sort().values, notes


def unused_options(config: LatentMapConfig, method: str) -> list[str]:
    """Return notes for the user on options that had no effect on this map."""
    notes = []
    if method == "codes" and config.method != "auto":
        notes.append(
            f"method {config.method} had no effect: one-dimensional codes are shown directly"
        )
    if method != "tsne" and config.perplexity != type(config).perplexity:
        shown = NAMES.get(method, "codes directly")
        notes.append(f"perplexity {config.perplexity:g} had no effect: this map shows {shown}")
    return notes


def project(
    codes: Tensor, method: str, config: LatentMapConfig, seed: int
) -> tuple[Tensor, tuple[str, str], dict[str, float]]:
    """Project codes. Returns points (N, 2), axis labels, and the metrics of the method itself."""
    if method == "codes":
        return F.pad(codes, (0, 2 - codes.shape[1])), ("", ""), {}
    if method == "pca":
        points, shares = projections.pca(codes)
        axes = (f"PC 1 ({shares[0]:.0%} of the variance)", f"PC 2 ({shares[1]:.0%})")
        return points, axes, {"explained_variance": float(shares.sum())}
    if method == "tsne":
        return projections.tsne(codes, config.perplexity, seed), ("t-SNE 1", "t-SNE 2"), {}
    return projections.pacmap(codes, seed), ("PaCMAP 1", "PaCMAP 2"), {}


def measure_map(
    points: Tensor,
    codes: Tensor,
    labels: Tensor | None,
    method: str,
    config: LatentMapConfig,
    context: ExploreContext,
) -> tuple[dict[str, float], str]:
    """Measure how well the map preserves the neighbourhoods of the codes."""
    metrics, protocol = {}, []
    count, classes = len(points), len(context.data.classes)
    if labels is not None and count > 1:
        k = min(config.k, count - 1)
        metrics = {
            "knn_accuracy_map": knn_accuracy(points, labels, k, classes),
            "knn_accuracy_codes": knn_accuracy(codes, labels, k, classes),
        }
        protocol.append(
            "knn_accuracy: fraction of images whose class is the majority class of their "
            f"k={k} nearest neighbours (Euclidean) in the map and among the posterior means, "
            f"for the same {count} images of the {config.split} split"
        )
    k = min(config.k, (min(count, MAX_TRUSTWORTHINESS) - 1) // 2)
    if method != "codes" and k:
        from sklearn.manifold import trustworthiness

        selected = torch.randperm(count)[:MAX_TRUSTWORTHINESS]
        original, projected = codes[selected].numpy(), points[selected].numpy()
        metrics["trustworthiness"] = float(trustworthiness(original, projected, n_neighbors=k))
        protocol.append(
            f"trustworthiness (Venna and Kaski 2001): 1 if the {k} nearest neighbours in the map "
            "are also the nearest neighbours among the posterior means, "
            f"on {len(selected)} of the images"
        )
    if method == "pca":
        protocol.append(
            "explained_variance: fraction of the posterior means' variance in the two components"
        )
    return metrics, "; ".join(protocol)


def knn_accuracy(points: Tensor, labels: Tensor, k: int, classes: int) -> float:
    """Return the fraction of points (N, D), float64, whose class is the majority class of their k
    nearest neighbours."""
    _, nearest = topk(points, points, k, own=torch.arange(len(points)))
    return float((majority(labels[nearest], classes) == labels).double().mean())


def make_thumbnails(images: Images, indices: Tensor) -> Tensor:
    """Return the images (N, C, H, W), reduced in size if they would take too much memory."""
    channels, *sides = images.spec.shape
    scale = min(1.0, math.sqrt(THUMBNAILS / (len(indices) * channels * math.prod(sides))))
    size = tuple(max(1, int(side * scale)) for side in sides)
    parts = (images.batch(part.to(images.device)).x for part in indices.split(1000))
    shown = [x if size == x.shape[2:] else F.adaptive_avg_pool2d(x, size) for x in parts]
    return images.spec.to_unit(torch.cat(shown))


def decode_plane(context: ExploreContext, points: Tensor) -> Plane | None:
    """Decode images on a grid over the points. Returns None if they cannot be decoded or drawn, or
    depend on a class."""
    if "decode" not in context.provides or not context.data.drawable or is_conditional(context):
        return None
    low, high = points.min(0).values, points.max(0).values
    margin = ((high - low) * MARGIN).clamp(min=1e-3)
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    y, x = torch.meshgrid(
        torch.linspace(y0, y1, KNOTS), torch.linspace(x0, x1, KNOTS), indexing="ij"
    )
    z = torch.stack([x, y], 2).flatten(0, 1).to(context.device)  # (knots, 2)
    x = context.data.to_unit(decode(context.model, z))
    return Plane(x.unflatten(0, (KNOTS, KNOTS)), (x0, x1), (y0, y1))
