"""Samples of a model from several densities of its codes, and metrics that compare them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.neighbours import topk
from latentforge_plugins.measures import some
from latentforge_plugins.walks import AT_ONCE, decode, drawn, has_prior, probabilities

from .sources import Source, make

if TYPE_CHECKING:
    from .config import SampleConfig

COMPARED = 500  # maximum number of images that a distance is averaged over


def sample(context: ExploreContext, config: SampleConfig) -> Findings:
    model, codes = context.model, context.codes("train").flatten(1)
    sources: dict[str, Source] = {}
    for wanted in config.sources:
        source = make(wanted, context, codes, config)
        sources.setdefault(source.name, source)
    z = {name: source.draw(config.n) for name, source in sources.items()}  # (n, D) each
    x = {name: decode(model, each) for name, each in z.items()}

    train, test = context.images("train"), context.images("test")
    held = test.batch(some(config.n, len(test), context.device).nonzero().squeeze(1)).x
    held_codes = torch.cat([model.encode(part).mode() for part in held.split(AT_ONCE)])
    seen = {**x, "test": held, "test_recon": decode(model, held_codes)}
    metrics = log_densities(sources, held_codes.flatten(1))
    said = [source.says for source in sources.values()]
    said.append(
        f"code_log_density: mean log density in nats of the codes of {len(held)} test images under "
        "each source"
    )
    if train.same_as(test):
        said.append("no distances: the test images are the training images")
    else:
        metrics |= distances(seen, train)
        said.append(
            f"nearest_train: Euclidean distance in pixels to the nearest of {len(train)} training "
            f"images, mean over at most {COMPARED}; test: of test images, test_recon: of their "
            "reconstructions, which are as blurred as samples; much smaller values indicate "
            "memorised images"
        )
    if classifier := context.roles.get("classifier"):
        metrics |= opinions(classifier.model, seen)
        said.append(
            f"confidence: the largest class probability of classifier {classifier.name}, mean; "
            "class_entropy: of its mean class probabilities, nats, "
            f"{math.log(len(context.data.classes) or 1):.2f} for equal shares of all "
            "classes; confidence can be high for images that belong to none of its classes, so a "
            "low confidence is more informative than a high one"
        )
    shaped = {f"z_{name}": each.reshape(-1, *model.latent.shape) for name, each in z.items()}
    numbers = NamedArrays("codes", {**shaped, **{f"x_{name}": each for name, each in x.items()}})
    no_prior = "prior" in config.sources and not has_prior(model)
    items, notes = drawn(context, [picture(sources, x, config, no_prior)], numbers)
    if no_prior:
        notes = ["the model has no prior; a Gaussian fitted to its codes is used instead", *notes]
    return Findings(items, metrics, "; ".join(said), notes)


def picture(
    sources: Mapping[str, Source], x: Mapping[str, Tensor], config: SampleConfig, no_prior: bool
) -> ImageGrid:
    rows: list[Tensor] = []
    titles: list[str] = []
    for name, source in sources.items():
        own = x[name][: config.rows * config.columns].split(config.columns)
        rows += own
        titles += [source.title, *[""] * (len(own) - 1)]
    title = "Decoded samples"
    if no_prior:
        title += "; the model has no prior, a Gaussian fitted to its codes is used instead"
    return ImageGrid("samples", title, rows, row_titles=titles)


def log_densities(sources: Mapping[str, Source], codes: Tensor) -> dict[str, float]:
    """The mean log density of the codes (N, D) under each source that has one, in nats."""
    known = codes.double().cpu()
    return {
        f"code_log_density_{name}": float(source.density.log_prob(known).mean())
        for name, source in sources.items()
        if source.density is not None
    }


def distances(seen: Mapping[str, Tensor], train: Images) -> dict[str, float]:
    # selected at random, because a split may be sorted by class
    return {
        f"nearest_train_{name}": nearest(x[some(COMPARED, len(x), x.device)], train)
        for name, x in seen.items()
    }


def nearest(x: Tensor, images: Images) -> float:
    """The mean over `x` of the Euclidean distance to the nearest of the images."""
    rows = (batch.x.flatten(1) for batch in images.batches(2000))
    return float(topk(x.flatten(1), rows, 1)[0].mean())


def opinions(classifier: Any, seen: Mapping[str, Tensor]) -> dict[str, float]:
    """A classifier's confidence on each set of images and the entropy of its mean prediction."""
    found = {}
    for name, x in seen.items():
        p = probabilities(classifier, x)  # (N, classes)
        mean = p.mean(0)
        found[f"confidence_{name}"] = float(p.amax(1).mean())
        # for a single certain class the result is -0 or, by rounding, below 0
        found[f"class_entropy_{name}"] = max(0.0, -float(torch.xlogy(mean, mean).sum()))
    return found
