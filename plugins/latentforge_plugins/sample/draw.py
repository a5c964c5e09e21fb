"""Decoded samples from several densities of codes, and metrics that compare them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.io.text import counted
from latentforge.neighbours import topk
from latentforge_plugins.measures import select_random
from latentforge_plugins.walks import BATCH, decode, probabilities, select_drawable

from .config import SampleConfig
from .sources import Source, make_source

NO_PRIOR = "the model has no prior, so a Gaussian fitted to its codes is used instead"
COMPARED = 500  # maximum number of images over which a distance is averaged


def sample(context: ExploreContext, config: SampleConfig) -> Findings:
    model, codes = context.model, context.codes("train").flatten(1)
    sources: dict[str, Source] = {}
    for name in config.sources:
        source = make_source(name, context, codes, config)
        sources.setdefault(source.name, source)
    z = {name: source.draw(config.n) for name, source in sources.items()}  # (n, D) each
    x = {name: decode(model, values) for name, values in z.items()}

    train, test = context.images("train"), context.images("test")
    test_x = test.batch(select_random(config.n, len(test), context.device).nonzero().squeeze(1)).x
    test_codes = torch.cat([model.encode(part).mode() for part in test_x.split(BATCH)])
    image_sets = {**x, "test": test_x, "test_recon": decode(model, test_codes)}
    metrics = log_densities(sources, test_codes.flatten(1))
    sentences = [source.description for source in sources.values()]
    sentences.append(
        "code_log_density: mean log density in nats of the codes of "
        f"{counted(len(test_x), 'test image')} under each source"
    )
    if train.same_as(test):
        sentences.append("no distances, because the test images are the training images")
    else:
        metrics |= distances(image_sets, train)
        sentences.append(
            f"nearest_train: Euclidean distance in pixels to the nearest of {len(train)} training "
            f"images, mean over at most {COMPARED} images; test and test_recon are test images and "
            "their reconstructions, which are as blurred as samples; much smaller values for "
            "samples indicate memorised images"
        )
    if classifier := context.roles.get("classifier"):
        metrics |= classifier_metrics(classifier.model, image_sets)
        sentences.append(
            f"confidence: mean of the largest class probability of classifier {classifier.name}; "
            "class_entropy: entropy of its mean class probabilities in nats, "
            f"{math.log(len(context.data.classes) or 1):.2f} if all classes are equally frequent; "
            "confidence can be high for images that belong to none of its classes, so a low "
            "confidence is more informative than a high one"
        )
    arrays = {f"z_{name}": values.reshape(-1, *model.latent.shape) for name, values in z.items()}
    arrays |= {f"x_{name}": values for name, values in x.items()}
    no_prior = "prior" in config.sources and model.latent.prior is None
    grid = draw_grid(sources, x, config, no_prior)
    items, notes = select_drawable(context, [grid], NamedArrays("codes", arrays))
    if no_prior:
        notes.insert(0, NO_PRIOR)
    return Findings(items, metrics, "; ".join(sentences), notes)


def draw_grid(
    sources: Mapping[str, Source], x: Mapping[str, Tensor], config: SampleConfig, no_prior: bool
) -> ImageGrid:
    rows: list[Tensor] = []
    titles: list[str] = []
    for name, source in sources.items():
        grid_rows = x[name][: config.rows * config.columns].split(config.columns)
        rows += grid_rows
        titles += [source.title, *[""] * (len(grid_rows) - 1)]
    title = "Decoded samples"
    if no_prior:
        title += f"; {NO_PRIOR}"
    return ImageGrid("samples", title, rows, row_titles=titles)


def log_densities(sources: Mapping[str, Source], codes: Tensor) -> dict[str, float]:
    """Compute the mean log density in nats of codes (N, D) under each source that has a density."""
    values = codes.double().cpu()
    return {
        f"code_log_density_{name}": float(source.density.log_prob(values).mean())
        for name, source in sources.items()
        if source.density is not None
    }


def distances(image_sets: Mapping[str, Tensor], train: Images) -> dict[str, float]:
    metrics = {}
    for name, x in image_sets.items():
        selected = select_random(COMPARED, len(x), x.device)  # a split may be sorted by class
        metrics[f"nearest_train_{name}"] = nearest_distance(x[selected], train)
    return metrics


def nearest_distance(x: Tensor, images: Images) -> float:
    """Return the Euclidean distance from each of `x` to its nearest image, averaged over `x`."""
    rows = (batch.x.flatten(1) for batch in images.batches(2000))
    return float(topk(x.flatten(1), rows, 1)[0].mean())


def classifier_metrics(classifier: Any, image_sets: Mapping[str, Tensor]) -> dict[str, float]:
    """Compute a classifier's confidence and the entropy of its mean prediction for each set."""
    metrics = {}
    for name, x in image_sets.items():
        p = probabilities(classifier, x)  # (N, classes)
        mean = p.mean(0)
        metrics[f"confidence_{name}"] = float(p.amax(1).mean())
        # if one class is certain, the result is -0 or, due to rounding, below 0
        metrics[f"class_entropy_{name}"] = max(0.0, -float(torch.xlogy(mean, mean).sum()))
    return metrics
