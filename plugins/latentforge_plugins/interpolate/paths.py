"""Linear and spherical paths between codes, and their metrics over many pairs of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.findings import Lines
from latentforge.io.text import counted
from latentforge.latent import slerp
from latentforge.seeding import generator
from latentforge_plugins.walks import Side, decode, probabilities, title_role

from .config import InterpolateConfig

TIMES = 11  # number of values of t; odd, so that they include the midpoint


def line(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return z(t) = (1 - t) a + t b, (T, *latent), for a and b (*latent) and t (T,)."""
    return torch.stack([(1 - w) * a + w * b for w in t])


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"linear": line, "spherical": slerp}


def path_names(config: InterpolateConfig) -> list[str]:
    return [name for name in PATHS if config.path in (name, "both")]


def compare_pairs(
    context: ExploreContext, config: InterpolateConfig, runs: Sequence[Side]
) -> tuple[dict[str, float], str, list[Lines]]:
    """Compare the decoded midpoint with a cross-fade of the end points. If a classifier is given,
    compute its confidence along the path. All runs use the same pairs. Returns metrics, their
    protocol, and charts over t."""
    images = context.images(config.split)
    indices = draw_pairs(images, config.pairs)
    pairs = [images.batch(part).x for part in indices]
    t = torch.linspace(0.0, 1.0, TIMES, device=context.device)
    classifier = context.roles.get("classifier")
    metrics: dict[str, float] = {}
    curves: dict[str, Tensor] = {}
    for side in runs:
        ends = [side.model.encode(x).mode() for x in pairs]  # (P, *latent) each
        for path in path_names(config):
            z = torch.stack([PATHS[path](a, b, t) for a, b in zip(*ends, strict=True)])
            x = decode(side.model, z.flatten(0, 1)).unflatten(0, z.shape[:2])  # (P, T, ...)
            metrics[f"{side.prefix}off_crossfade_{path}"] = off_crossfade(x)
            if classifier:
                confidence = probabilities(classifier.model, x.flatten(0, 1)).amax(1)
                mean = confidence.unflatten(0, x.shape[:2]).mean(0)  # (T,)
                metrics[f"{side.prefix}end_confidence_{path}"] = float(mean[[0, -1]].mean())
                metrics[f"{side.prefix}middle_confidence_{path}"] = float(mean[TIMES // 2])
                curves[f"{side.label}{path}"] = mean
    protocol = (
        "off_crossfade: Euclidean distance in pixels of the decoded midpoint from the mean of the "
        "decoded end points, divided by half the distance between these end points (0 means a "
        f"cross-fade), mean over {counted(len(pairs[0]), 'random pair')} of {config.split} images"
        f"{describe_pairs(images, *indices)}"
    )
    if not classifier:
        return metrics, protocol, []
    name = title_role("classifier", classifier)
    protocol += (
        f"; confidence: the largest class probability of {name} at the "
        "decoded end points (end_) and at the decoded midpoint (middle_), mean over the same "
        "pairs; it can be high for images that belong to none of its classes"
    )
    title = f"Confidence of {classifier.name} along the path, {len(pairs[0])} pairs"
    chart = Lines("confidence", title, t, curves, "t", "largest class probability")
    return metrics, protocol, [chart]


def draw_pairs(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """Return the indices of both images of at most `count` random pairs, the same for every run on
    these images. The two images of a pair have different classes if possible, or at least differ. A
    single image is paired with itself."""
    rng = generator("cpu", "pairs of images")
    first, second = torch.randint(len(images), (2, 4 * count), generator=rng).to(images.device)
    candidates = [first != second, torch.ones_like(first, dtype=torch.bool)]
    if images.y is not None:
        candidates.insert(0, images.y[first] != images.y[second])
    differ = next(candidate for candidate in candidates if candidate.any())
    return first[differ][:count], second[differ][:count]


def describe_pairs(images: Images, first: Tensor, second: Tensor) -> str:
    """Describe for the protocol how the two images of each pair differ."""
    if images.y is not None and bool((images.y[first] != images.y[second]).all()):
        return " of different classes"
    alone = ", each paired with itself, because there is only one"
    return "" if bool((first != second).all()) else alone


def off_crossfade(x: Tensor) -> float:
    """Return |x(1/2) - (x(0) + x(1)) / 2| divided by |x(1) - x(0)| / 2, averaged over the paths
    (P, T, ...) whose end points differ. Returns 0 if there are no such paths."""
    flat = x.flatten(2)
    first, middle, last = flat[:, 0], flat[:, x.shape[1] // 2], flat[:, -1]
    distance = (last - first).norm(dim=1) / 2
    deviation = (middle - (first + last) / 2).norm(dim=1)
    differ = distance > 1e-4
    return float((deviation[differ] / distance[differ]).mean()) if differ.any() else 0.0
