"""Baselines of a search for classes, and the diversity of its results."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from latentforge.contracts import ExploreContext
from latentforge.engine.latent_search import Found
from latentforge.findings import Findings
from latentforge_plugins.walks import decode

from .starts import sample_data_starts

COUNTS = (16, 256)  # training codes of which the best one is taken
REQUESTS = 100  # for which the baselines are computed
DISTANCE = 0.1  # root mean square difference per value, below which two results are of one group
SPREAD = "spread of the codes of a class, the root of the summed variances,"
DEFINITIONS = {
    **{
        f"best_of_{k}": f"fraction of the first {REQUESTS} requests, or of all, that the best of "
        f"{k} random training codes of other classes satisfies, without a gradient"
        for k in COUNTS
    },
    "result_groups": f"number of groups of results: each is within a root mean square difference "
    f"of {DISTANCE:g} per value of the first of its group",
    "deviation_ratio": f"{SPREAD} divided by that of its training images, mean over the classes",
    "deviation_ratio_min": "the smallest of these ratios",
    "deviation_ratio_max": "the largest of these ratios",
    "log_prior_training": "mean log density of the training codes of the requested classes",
}


def measure_baselines(
    context: ExploreContext, found: Found, codes: Tensor, mixture: MixtureSameFamily | None
) -> Findings:
    """Compare the results with the best of k training codes, and with the training images of their
    classes. `codes`: those of the training images, (M, D)."""
    labels, metrics = context.images("train").y, {}
    if labels is None or len(labels.unique()) > 1:  # otherwise there are no other classes
        metrics = {f"best_of_{k}": best_of(context, codes, k) for k in COUNTS}
    metrics["result_groups"] = float(count_groups(found.x.flatten(1)))
    metrics |= compare_spread(context, found, codes)
    discrete = "codebook" in context.provides  # entries have no density
    if mixture is not None and labels is not None and not discrete:
        requested = torch.isin(labels.to(codes.device), context.objective.classes)
        metrics["log_prior_training"] = float(mixture.log_prob(codes[requested]).mean())
    return Findings([], metrics, "; ".join(f"{n}: {DEFINITIONS[n]}" for n in metrics), [])


def best_of(context: ExploreContext, codes: Tensor, k: int) -> float:
    """The fraction of requests that one of `k` random training codes of other classes satisfies."""
    objective = context.objective
    count = min(REQUESTS, len(objective.requests))
    starts = sample_data_starts(context, codes, k, objective.classes)[:, :count]  # (k, N, D)
    satisfied = torch.zeros(count, dtype=torch.bool, device=codes.device)
    requests = torch.arange(count, device=codes.device)
    for z in starts:
        x = decode(context.model, z)
        objective.score(x, requests)  # `satisfied` uses the answers of the last call
        satisfied |= objective.satisfied(x, requests)
    return float(satisfied.double().mean())


def count_groups(x: Tensor) -> int:
    """The number of groups of rows (N, D): each row joins the first group whose first row is near,
    or begins a new one."""
    leaders = x[:0]
    for row in x:
        difference = (leaders - row).square().mean(1).sqrt()
        if not bool((difference < DISTANCE).any()):
            leaders = torch.cat([leaders, row[None]])
    return len(leaders)


def compare_spread(context: ExploreContext, found: Found, codes: Tensor) -> dict[str, float]:
    """The spread of the codes of each class relative to that of its training images."""
    labels = context.images("train").y
    ratios = []
    for label in context.objective.classes.unique():
        results = found.z.flatten(1)[context.objective.classes == label]
        training = codes[labels.to(codes.device) == label] if labels is not None else codes[:0]
        if min(len(results), len(training)) > 1:
            spread, usual = (rows.var(0).sum().sqrt() for rows in (results, training))
            ratios.append(float(spread / usual.clamp(min=1e-12)))
    if not ratios:
        return {}
    return {
        "deviation_ratio": sum(ratios) / len(ratios),
        "deviation_ratio_min": min(ratios),
        "deviation_ratio_max": max(ratios),
    }
