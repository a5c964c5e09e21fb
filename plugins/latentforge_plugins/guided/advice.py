"""Explains why a search satisfied few requests, from what it can measure, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.engine.latent_search import Found
from latentforge.io.text import counted
from latentforge_plugins.measures import select_evenly
from latentforge_plugins.walks import decode, title_role

from .config import GuidedConfig

FEW = 0.5  # fraction of satisfied requests below which the failure is explained
SAMPLE = 500  # training images that the decoder and the classifiers are tried on
SAME = 0.05  # fraction of the variance of the images, below which decoded codes are all the same
POOR = 0.5  # fraction of a classifier's accuracy on images, below which reconstructions are poor


@torch.no_grad()
def explain_failures(
    context: ExploreContext, config: GuidedConfig, found: Found, start: Tensor, codes: Tensor
) -> list[str]:
    """Return a note for each probable cause. `start`: the first start of each request (N, D);
    `codes`: those of the training images (M, D)."""
    if contradiction := explain_condition(context, found):
        return [contradiction]
    images = context.images("train")
    places = select_evenly(images, SAMPLE)
    batch, decoded = images.batch(places), decode(context.model, codes[places])
    causes = [*explain_decoder(context, decoded, batch.x)]
    same = bool(causes)
    for role in ("classifier", "judge"):
        if (other := context.roles.get(role)) and hasattr(context.objective, "classes"):
            title = f"the {title_role(role, other)}"
            causes += explain_classifier(title, other.model, batch, None if same else decoded)
    return causes or [explain_search(context, config, found, start)]


def explain_condition(context: ExploreContext, found: Found) -> str:
    """Return a note if requests failed whose classes are not that of the condition, else ""."""
    requested, given = getattr(context.objective, "classes", None), context.condition
    if requested is None or given is None:
        return ""
    others = int((~found.satisfied & (requested != given)).sum())
    if not others:
        return ""
    return (
        f"{counted(others, 'request')} that failed, of {len(requested)}, asked for other classes "
        f"than condition={given}, but the decoder draws only this class: request it, as with "
        f"target={given} of the objective class, or explore under the class that is requested"
    )


def explain_decoder(context: ExploreContext, decoded: Tensor, x: Tensor) -> Iterator[str]:
    """Compare the decoded codes of training images with these images, (N, ...) each."""
    shares = [values.flatten(1).var(0).sum() for values in (decoded, x)]
    share = float(shares[0] / shares[1].clamp(min=1e-12))
    if share < SAME:
        kl = " or with a smaller weight of the KL" if "kl" in context.provides else ""
        yield (
            "the decoded image hardly depends on the code: the decoded codes of "
            f"{counted(len(x), 'training image')} vary {share:.2%} as much as the images; train "
            f"the model longer{kl}, and see what `doctor` finds"
        )


def explain_classifier(name: str, model: Any, batch: Any, decoded: Tensor | None) -> Iterator[str]:
    """Compare the answers of a classifier on training images, and on their reconstructions if these
    are given, with the labels."""
    if batch.y is None:
        return
    majority = float(batch.y.bincount().max()) / len(batch.y)

    def accuracy(x: Tensor) -> float:
        return float((model(x).argmax(1) == batch.y).double().mean())

    on_images, images = accuracy(batch.x), counted(len(batch.y), "training image")
    if majority < 1 and on_images < (1 + majority) / 2:
        yield (
            f"{name} gets only {on_images:.0%} of {images} of this run right: it was trained on "
            "other data, on another range of values, or not long enough; use a classifier of this "
            "data"
        )
    elif decoded is not None and (on_decoded := accuracy(decoded)) < POOR * on_images:
        yield (
            f"{name} gets {on_images:.0%} of {images} right, but only {on_decoded:.0%} of their "
            "reconstructions: train the model longer, or with more latent dimensions"
        )


def explain_search(
    context: ExploreContext, config: GuidedConfig, found: Found, start: Tensor
) -> str:
    """Describe how far the search came."""
    rows = torch.arange(len(start), device=start.device)
    before = context.objective.score(decode(context.model, start), rows)
    failed, usual = ~found.satisfied, GuidedConfig()
    scores = [float(score[failed].double().median()) for score in (before, found.score)]
    threshold = getattr(context.objective, "threshold", None)
    less = f" or a threshold below {threshold:g}" if isinstance(threshold, float) else ""
    steps, restarts = max(usual.steps, 2 * config.steps), max(usual.restarts, 2 * config.restarts)
    return (
        f"the median score of the requests that are not satisfied went from {scores[0]:.3g} to "
        f"{scores[1]:.3g}: use more steps (steps={steps}), more starts (restarts={restarts}), a "
        f"larger lr{less}"
    )
