"""Guided generation: search the latent space for what an objective asks, and show how it went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentforge import search
from latentforge.contracts import ExploreContext, OtherRun
from latentforge.errors import UsageError
from latentforge.findings import Arrays, Finding, Findings, Lines
from latentforge_plugins.densities import fit_mixture

from .pictures import results, walk_film, walk_map
from .starts import WIDE, data_starts, own_prior

if TYPE_CHECKING:
    from latentforge.engine.search import Found

    from . import GuidedConfig


def guide(context: ExploreContext, config: GuidedConfig) -> Findings:
    objective, model = context.objective, context.model
    count = len(objective.requests)
    if config.film is not None and config.film >= count:
        raise UsageError(f"no request {config.film} to film: there are {count}, from 0")
    judge = context.roles.get("judge")
    if judge is not None:
        check_independent(context, judge)
    codes = context.codes("train").flatten(1)  # (M, D)
    mixture = fit_mixture(codes, config.components, context.seed)
    prior = {"mixture": mixture, "gaussian": own_prior(model, codes), "none": None}[config.prior]
    size = (config.restarts, count)
    if config.start == "data":
        start = data_starts(context, codes, config.restarts, other=not config.any_class)[1]
    elif config.start == "prior":
        start = own_prior(model, codes).sample(size)
    else:
        start = WIDE * torch.randn(*size, codes.shape[1], device=codes.device)

    def decode(z: Tensor) -> Tensor:  # (B, D) to (B, *data.shape)
        images: Tensor = model.decode(z.reshape(-1, *model.latent.shape))
        return images

    began = time.perf_counter()
    found = search(
        decode,
        objective,
        start,
        steps=config.steps,
        lr=config.lr,
        optimizer=config.optimizer,
        noise=config.noise,
        scale=codes.std(0).clamp(min=1e-6) if config.unit == "codes" else 1.0,
        prior=prior.log_prob if prior else None,
        prior_weight=config.prior_weight,
        seed=context.seed,
        settle=config.settle,
        watch=sorted({config.film or 0, *range(min(config.shown, count))}),
        attach=context.attach,
    )
    seconds = time.perf_counter() - began

    x = found.x
    metrics = {**figures(found, mixture.log_prob(found.z)), "requests_per_second": count / seconds}
    protocol = [PROTOCOL]
    wanted = getattr(objective, "classes", None)
    if judge is not None and wanted is not None:
        agreed = torch.cat([judge.model(part).argmax(1) for part in x.split(1000)]) == wanted
        metrics["judge_agreement"] = float(agreed.float().mean())
        protocol.append(JUDGED.format(judge.name))
    arrays = {
        "z": found.z,
        "x": x,
        "start": start[found.round, torch.arange(count, device=start.device)],
        "score": found.score,
        "satisfied": found.satisfied,
        "steps": found.steps,
    }
    items: list[Finding] = [Arrays("found", arrays)]
    notes: list[str] = []
    if context.data.drawable:
        film = config.film
        if film is None:
            film = max(found.paths, key=lambda request: len(found.paths[request]))
        with torch.no_grad():
            first = decode(arrays["start"][: config.shown])
        items = [
            results(context, found, first, config.shown),
            walk_film(context, found, codes, decode, film),
            walk_map(context, found, codes, config.shown),
            *items,
        ]
    else:
        notes.append(f"examples of shape {context.data.shape} are no pictures: see found.npz")
    if bool(found.satisfied.any()):
        items.append(progress(found))
    if hasattr(objective, "findings"):
        more: Findings = objective.findings(x)
        items += more.items
        metrics |= more.metrics
        protocol.append(more.protocol)
        notes += more.notes
    return Findings(items, metrics, "; ".join(protocol), notes)


PROTOCOL = (
    "success_share: requests that met the objective; success_at_start: before the first step; "
    "success_single_start: from the first start alone; median_steps: gradient steps of those that "
    "met it, over all their starts; requests_per_second: the search alone; log_prior: mean log "
    "density of the results under the mixture fitted on the training codes, in nats"
)
JUDGED = (
    "judge_agreement: share of all requests whose result {}, which did not guide, puts in the "
    "class asked for"
)


def figures(found: Found, log_prior: Tensor) -> dict[str, float]:
    met = found.satisfied
    share = {
        "success_share": met,
        "success_at_start": met & (found.steps == 0),
        "success_single_start": met & (found.round == 0),
    }
    figures = {name: float(which.float().mean()) for name, which in share.items()}
    if bool(met.any()):
        figures["median_steps"] = float(found.steps[met].float().median())
    return figures | {"log_prior": float(log_prior.mean())}


def progress(found: Found) -> Lines:
    """The share of requests that were met within so many steps."""
    met = found.steps[found.satisfied].sort().values
    x, counts = met.unique_consecutive(return_counts=True)
    share = counts.cumsum(0) / len(found.satisfied)
    return Lines(
        "progress",
        "Requests that met the objective",
        x.float(),
        {"share": share},
        "gradient steps, over all starts",
        "share of requests",
    )


def check_independent(context: ExploreContext, judge: OtherRun) -> None:
    """UsageError where the judge is the classifier that guides."""
    guiding = context.roles.get("classifier")
    if guiding is not None and judge.run.path.resolve() == guiding.run.path.resolve():
        raise UsageError(
            f"{judge.run.path} guides and cannot judge: a search can fool what steers it",
            remedy="--with judge= another classifier's run, or none",
        )
