"""Guided generation: searches the latent space for codes that satisfy an objective."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from latentforge import search
from latentforge.contracts import ExploreContext
from latentforge.engine.latent_search import Found
from latentforge.errors import UsageError
from latentforge.findings import Finding, Findings, Lines, NamedArrays, join_findings
from latentforge.io.text import counted
from latentforge_plugins.densities import MAX_DIMENSIONS, prior_density
from latentforge_plugins.densities import Density as CodeDensity
from latentforge_plugins.walks import codebook_note, decode, not_drawable_note, title_role

from . import starts
from .advice import FEW, explain_failures
from .baselines import measure_baselines
from .config import GuidedConfig
from .pictures import draw_film, draw_map, draw_results
from .sampling import CHAINS, Density, average_samples, sample_results

DEFAULT_SAMPLE = 100  # Langevin steps; more do not make the results more different


def guide(context: ExploreContext, config: GuidedConfig) -> Findings:
    objective, model = context.objective, context.model
    count = len(objective.requests)
    if config.film is not None and config.film >= count:
        raise UsageError(f"film is {config.film}, but the requests are 0 to {count - 1}")
    check_independent(context)
    samples = sample_steps(context, config)
    codes = context.codes("train").flatten(1)  # (M, D)
    can_fit = len(codes) > 1 and codes.shape[1] <= MAX_DIMENSIONS
    mixture = starts.aggregate_posterior(context, config.components) if can_fit else None
    if config.prior == "mixture" and mixture is None:
        raise UsageError(
            f"no mixture can be fitted to {counted(len(codes), 'code')} of "
            f"{counted(codes.shape[1], 'dimension')}",
            hint="--set prior=none",
        )
    prior = select_prior(context, config, codes, mixture)
    start = starts.sample_starts(context, config, codes)
    start_time = time.perf_counter()
    found = search(
        partial(decode, model),
        objective,
        start,
        steps=config.steps,
        lr=config.lr,
        optimizer=config.optimizer,
        noise=config.noise,
        scale=starts.code_deviation(codes) if config.unit == "codes" else 1.0,
        prior=prior.log_prob if prior else None,
        prior_weight=config.prior_weight,
        seed=context.seed,
        settle=config.settle,
        jitter=config.jitter,
        solutions=config.solutions,
        watch=sorted({config.film or 0, *range(min(config.shown, count))}),
        attach=context.attach,
    )
    if samples:
        assert prior is not None
        unit = starts.code_deviation(codes)
        density = Density(partial(decode, model), objective, prior.log_prob, unit, context.seed)
        sample = average_samples if getattr(objective, "open_ended", False) else sample_results
        found = sample(found, density, samples)
    metrics = {"requests_per_second": count / (time.perf_counter() - start_time)}
    if mixture and "codebook" not in context.provides:  # entries have no density
        metrics["log_prior"] = float(mixture.log_prob(found.z).mean())
    items = draw_items(context, config, found, start, codes, samples)
    definitions = protocol(context, config, mixture, samples)
    search_findings = Findings(items, metrics, definitions, notes(context, config))
    terminates = not getattr(objective, "open_ended", False)
    parts = [measure_success(context, config, found)] if terminates else []
    if terminates and float(found.satisfied.float().mean()) < FEW:
        advice = explain_failures(context, config, found, start[0], codes)
        parts.append(Findings([], {}, "", advice))
    if terminates and starts.excluded_classes(context, config) is not None:
        with torch.no_grad():
            parts.append(measure_baselines(context, found, codes, mixture))
    findings = merge_findings([*parts, search_findings])
    if hasattr(objective, "findings"):
        findings = join_findings(objective.findings(found.x), findings)
    # images before charts
    items = sorted(findings.items, key=lambda item: isinstance(item, Lines | NamedArrays))
    return replace(findings, items=items)


def select_prior(
    context: ExploreContext, config: GuidedConfig, codes: Tensor, mixture: CodeDensity | None
) -> CodeDensity | None:
    """Return the density that keeps the search close to the training codes (N, D), if any. Raises
    UsageError if it is the model's prior and the model has none."""
    if config.prior == "model":
        prior = prior_density(context.model, codes)
        if prior is None:
            raise UsageError(
                "prior is 'model', but the model has no prior",
                hint="--set prior=mixture, or --set prior=gaussian for a fitted Gaussian",
            )
        return prior
    if config.prior == "gaussian":
        return starts.gaussian_density(context.model, codes)
    return mixture if config.prior == "mixture" else None


def sample_steps(context: ExploreContext, config: GuidedConfig) -> int:
    """The number of Langevin steps from each result. Raises UsageError if they are requested for an
    objective that neither has classes nor is open-ended."""
    classes = hasattr(context.objective, "classes")
    if config.sample and not classes and not getattr(context.objective, "open_ended", False):
        raise UsageError(
            "sample needs an objective of classes, or one that is open-ended, such as inpaint",
            hint="--set sample=0",
        )
    if config.sample is not None:
        return config.sample
    dimensions = math.prod(context.model.latent.shape)
    # in two dimensions a class borders on many others, and samples come near the borders
    return DEFAULT_SAMPLE if config.prior == "mixture" and classes and dimensions > 2 else 0


def merge_findings(parts: Sequence[Findings]) -> Findings:
    """Merge several findings."""
    return Findings(
        [item for part in parts for item in part.items],
        {name: value for part in parts for name, value in part.metrics.items()},
        "; ".join(part.protocol for part in parts if part.protocol),
        [note for part in parts for note in part.notes],
    )


def notes(context: ExploreContext, config: GuidedConfig) -> list[str]:
    """Return notes about data that was left out and about options without effect."""
    notes_found, classes = [], hasattr(context.objective, "classes")
    if not context.data.drawable:
        notes_found.append(not_drawable_note(context, "their values are in found.npz"))
    if "judge" in context.roles and not classes:
        notes_found.append("the judge was not used, because the objective does not request classes")
    if config.start == "prior" and context.model.latent.prior is None:
        notes_found.append(f"the model has no prior, so starts are samples of {starts.FITTED}")
    excluded = starts.excluded_classes(context, config)
    if classes and excluded is None and config.start == "data" and not config.any_class:
        reason = "the training images have no labels, so starts can be of any class"
        if (only := context.condition) is not None:
            reason = f"condition={only}: the decoder draws class {only}, and all starts are of it"
            if bool((context.objective.classes != only).any()):
                reason += "; requests of other classes are hardly possible"
        notes_found.append(reason)
    return notes_found + codebook_note(context.provides)


def protocol(
    context: ExploreContext,
    config: GuidedConfig,
    mixture: MixtureSameFamily | None,
    samples: int,
) -> str:
    """Describe where requests start, what is maximised, and what the metrics mean."""
    starts_text = counted(config.solutions, "solution")
    starts_text = f"up to {config.restarts} of them until it has {starts_text}"
    if config.restarts == 1 or getattr(context.objective, "open_ended", False):
        starts_text = f"{config.restarts} of them"
    text = f"starts: {starts.describe_starts(context, config)}; each request uses {starts_text}, "
    text += f"with {counted(config.steps, 'step')} per start"
    fitted = ""
    if mixture is not None:
        components = len(mixture.mixture_distribution.probs)
        fitted = f"a mixture of {components} Gaussians fitted to the training images' posteriors"
    densities = {"mixture": fitted, "model": starts.describe_prior(context)}
    densities["gaussian"] = starts.describe_gaussian(context)
    density = densities.get(config.prior)
    weight = f"{config.prior_weight:g}"
    text += f"; the search maximises the score + {weight} x the log density of " if density else ""
    text += density or "; the search maximises only the score"
    if samples:
        text += (
            f"; each result is the mean of the images of {CHAINS} chains of {samples} Langevin "
            "steps"
            if getattr(context.objective, "open_ended", False)
            else f"; {samples} Langevin steps from each solution then sample codes of the class"
        )
    text += "; requests_per_second: speed of the search only"
    if mixture is None or "codebook" in context.provides:
        return text
    separate = f"{fitted}, which the search did not use"
    density_text = "that mixture" if config.prior == "mixture" else separate
    return f"{text}; log_prior: mean log density of the results under {density_text}, in nats"


DEFINITIONS = {
    "success_share": "fraction of satisfied requests",
    "success_at_start": "fraction of requests satisfied without a step (retrieval, not search)",
    "success_single_start": "fraction of requests satisfied from the first start",
    "median_steps": "median number of gradient steps until a request is satisfied, summed over its "
    "starts",
}
AGREEMENT = (
    "judge_agreement: fraction of all requests whose result is classified as the requested class "
    "by the {}, which did not guide the search"
)


def measure_success(context: ExploreContext, config: GuidedConfig, found: Found) -> Findings:
    """Compute the fraction of satisfied requests, their steps, and the agreement of a judge."""
    satisfied = found.satisfied
    shares = {
        "success_share": satisfied,
        "success_at_start": satisfied & (found.steps == 0),
        "success_single_start": satisfied & (found.first_round == 0),
    }
    metrics = {name: float(which.float().mean()) for name, which in shares.items()}
    if bool(satisfied.any()):
        metrics["median_steps"] = float(found.steps[satisfied].float().median())
    protocol = "; ".join(f"{name}: {DEFINITIONS[name]}" for name in metrics)
    verdict = f"{int(satisfied.sum())} of {counted(len(satisfied), 'request')} satisfied"
    judge = context.roles.get("judge")
    requested = getattr(context.objective, "classes", None)
    if judge is not None and requested is not None:
        judged = torch.cat([judge.model(part).argmax(1) for part in found.x.split(1000)])
        agreement = judged == requested
        metrics["judge_agreement"] = float(agreement.float().mean())
        title = title_role("judge", judge)
        protocol += "; " + AGREEMENT.format(title)
        verdict += f"; the independent {title} agrees on {int(agreement.sum())}"
    curve = [draw_progress(found, config.restarts * config.steps)] if bool(satisfied.any()) else []
    return Findings(curve, metrics, protocol, [verdict])


def draw_items(
    context: ExploreContext,
    config: GuidedConfig,
    found: Found,
    start: Tensor,
    codes: Tensor,
    samples: int,
) -> list[Finding]:
    """Return the map, the arrays and, if examples can be drawn, the results and the animation."""
    used_starts = start[found.round, torch.arange(start.shape[1], device=start.device)]  # (N, D)
    x = context.data.restore(found.x)
    arrays = {"z": found.z, "x": x, "start": used_starts, "score": found.score}
    arrays |= {"satisfied": found.satisfied, "steps": found.steps}
    arrays |= {"round": found.round, "first_round": found.first_round}
    items = [draw_map(context, found, codes, config.shown), NamedArrays("found", arrays)]
    if not context.data.drawable:
        return items
    film = config.film
    if film is None:
        film = max(found.paths, key=lambda request: len(found.paths[request]))
    first = decode(context.model, used_starts[: config.shown])
    results = draw_results(context, found, first, config.shown)
    sampled = samples if found.satisfied[film] else 0
    return [results, draw_film(context, found, codes, film, sampled), *items]


def draw_progress(found: Found, longest: int) -> Lines:
    """Draw the fraction of satisfied requests against the number of steps. It is a step function
    from 0 to the last step, or to `longest` if some requests were never satisfied."""
    steps, counts = found.steps[found.satisfied].unique(return_counts=True)
    share = (counts.cumsum(0) / len(found.satisfied)).cpu()
    before = torch.cat([torch.zeros(1), share[:-1]])
    x, y = torch.stack([steps.cpu(), steps.cpu()], 1).flatten(), torch.stack([before, share], 1)
    last = steps.max().cpu()[None] if bool(found.satisfied.all()) else torch.tensor([longest])
    return Lines(
        "progress",
        "Satisfied requests",
        torch.cat([torch.zeros(1), x, last]),
        {"share": torch.cat([torch.zeros(1), y.flatten(), share[-1:]])},
        "gradient steps, summed over starts",
        "fraction of requests",
    )


def check_independent(context: ExploreContext) -> None:
    """Raise UsageError if the judge is the classifier that guides the search."""
    judge, guiding = context.roles.get("judge"), context.roles.get("classifier")
    if judge and guiding and judge.run.path.resolve() == guiding.run.path.resolve():
        raise UsageError(
            f"{judge.run.path} guides the search and cannot also be the judge",
            hint="--with judge=RUN of another classifier, or omit the judge",
        )
