"""Decoded samples from several densities of codes, and metrics that compare them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.io.text import counted
from latentforge.neighbours import topk
from latentforge_plugins.measures import select_random
from latentforge_plugins.walks import (
    BATCH,
    codebook_note,
    decode,
    is_conditional,
    probabilities,
    select_drawable,
    title_role,
    view_for,
)

from .config import SampleConfig
from .sources import CodeSource, make_source, sampled_classes

NO_PRIOR = "the model has no prior, so a Gaussian fitted to its codes is used instead"
FITTED = {"gaussian", "mixture"}  # the sources that are fitted to posterior modes
MAX_CLASSES = 30  # maximum number of rows in the figure of a conditional model
COMPARED = 500  # maximum number of images over which a distance is averaged


def sample(context: ExploreContext, config: SampleConfig) -> Findings:
    model, encodes = context.model, "encode" in context.provides
    codes = context.codes("train").flatten(1) if encodes else None
    sources: dict[str, CodeSource] = {}
    for name in config.sources if encodes else select_prior(config):
        source = make_source(name, context, codes, config)
        sources.setdefault(source.name, source)
    z = {name: source.draw(config.n) for name, source in sources.items()}  # (n, D) each
    y = sampled_classes(context, config.n)
    x = {name: decode(model, values, y) for name, values in z.items()}

    train, test = context.images("train"), context.images("test")
    chosen = test.batch(select_random(config.n, len(test), context.device).nonzero().squeeze(1))
    image_sets, metrics = {**x, "test": chosen.x}, {}
    sentences = [source.description for source in sources.values()]
    if encodes:
        parts = [chosen.select(part) for part in torch.arange(len(chosen.x)).split(BATCH)]
        test_codes = torch.cat([view_for(context, p.y).encode(p.x).mode() for p in parts])
        test_y = chosen.y if is_conditional(context) else None
        image_sets["test_recon"] = decode(model, test_codes, test_y)
        if densities := log_densities(sources, test_codes.flatten(1), test_y):
            metrics |= densities
            sentences.append(describe_densities(sources, len(chosen.x)))
    if train.same_as(test):
        sentences.append("no distances, because the test images are the training images")
    else:
        metrics |= distances(image_sets, train)
        sentences.append(
            f"nearest_train: Euclidean distance in pixels to the nearest of {len(train)} training "
            f"images, mean over at most {COMPARED} images; {describe_tests(encodes)}; much smaller "
            "values for samples indicate memorised images"
        )
    if classifier := context.roles.get("classifier"):
        metrics |= classifier_metrics(classifier.model, image_sets)
        title = title_role("classifier", classifier)
        if y is not None or context.condition is not None:
            tests = image_sets.keys() - x.keys()
            classes = dict.fromkeys(x, y) | dict.fromkeys(tests, chosen.y)
            metrics |= class_agreement(context, classifier.model, image_sets, classes)
            sentences.append(
                f"class_agreement: fraction of the images that {title} "
                f"assigns to the class under which they were sampled, for test "
                "and test_recon to their own class"
            )
        sentences.append(
            f"confidence: mean of the largest class probability of {title}; "
            "class_entropy: entropy of its mean class probabilities in nats, "
            f"{math.log(len(context.data.classes) or 1):.2f} if all classes are equally frequent; "
            "confidence can be high for images that belong to none of its classes, so a low "
            "confidence is more informative than a high one"
        )
    arrays = {f"z_{name}": values.reshape(-1, *model.latent.shape) for name, values in z.items()}
    arrays |= {f"x_{name}": context.data.restore(values) for name, values in x.items()}
    arrays |= {} if y is None else {"y": y}
    no_prior = "prior" in config.sources and model.latent.prior is None
    if y is None:
        grids = [draw_grid(sources, x, config, no_prior)]
    else:
        drawn = ((source, x[name], z[name]) for name, source in sources.items())
        grids = [draw_classes(context, *parts, y, config.columns) for parts in drawn]
    items, notes = select_drawable(context, grids, NamedArrays("codes", arrays), "examples")
    if no_prior:
        notes.insert(0, NO_PRIOR)
    if "codebook" in context.provides:
        notes += describe_codebook(context, sources)
    if not encodes:
        notes.append("the model has no encoder: samples of its prior only, and no reconstructions")
    return Findings(items, metrics, "; ".join(sentences), notes)


def select_prior(config: SampleConfig) -> list[str]:
    """Return the sources of a model without an encoder: only the prior. Raises UsageError if it is
    not among the requested ones."""
    if "prior" not in config.sources:
        raise UsageError(
            f"sources {', '.join(config.sources)} need codes of images, but the model has no "
            "encoder",
            hint="--set 'sources=[\"prior\"]'",
        )
    return ["prior"]


def describe_densities(sources: Mapping[str, CodeSource], count: int) -> str:
    """Define code_log_density for `count` test images: where the densities are evaluated."""
    text = (
        "code_log_density: mean log density in nats under each source at the posterior modes of "
        f"{counted(count, 'test image')}"
    )
    if any(source.by_class and source.log_prob for source in sources.values()):
        text += ", in p(z | class) under the label of the image"
    if "prior" in sources and not sources.keys().isdisjoint(FITTED):
        text += (
            "; gaussian and mixture are fitted to posterior modes, but a prior describes posterior "
            "samples, which spread more, so the densities of the two kinds are not comparable"
        )
    return text


def describe_codebook(context: ExploreContext, sources: Mapping[str, CodeSource]) -> list[str]:
    """Return notes on samples of a model whose codes are entries of a codebook."""
    notes = [] if sources.keys() <= {"aggregate"} else codebook_note(context.provides)
    if not sources.keys().isdisjoint(FITTED):
        notes.append("no code_log_density of a fitted density: entries of a codebook have none")
    if context.model.latent.prior is None:
        notes.append(
            "a prior over the entries is a second model that is trained on the codes of this run: "
            "see Other runs in docs/contracts.md"
        )
    return notes


def describe_tests(encodes: bool) -> str:
    if not encodes:
        return "test are test images"
    return (
        "test and test_recon are test images and their reconstructions, which are as blurred as "
        "samples"
    )


def draw_grid(
    sources: Mapping[str, CodeSource], x: Mapping[str, Tensor], config: SampleConfig, no_prior: bool
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


def draw_classes(
    context: ExploreContext, source: CodeSource, x: Tensor, z: Tensor, y: Tensor, columns: int
) -> ImageGrid:
    """Draw a row of images for each class, at most MAX_CLASSES rows. All rows have the same codes,
    unless the source has other codes for each class."""
    present = y.unique()
    classes, which = present[:MAX_CLASSES], "each class"
    if len(present) > MAX_CLASSES:
        which = f"the first {MAX_CLASSES} of {len(present)} classes"
    title = f"Samples of {which}, {source.title}"
    if source.by_class:
        rows = [x[y == label][:columns] for label in classes]
    else:
        title += ", one code per column"
        shared = z[:columns]
        labels = classes.repeat_interleave(len(shared))
        images = decode(context.model, shared.repeat(len(classes), 1), labels)
        rows = list(images.split(len(shared)))
    titles = [context.data.classes[label] for label in classes.tolist()]
    return ImageGrid(f"samples-{source.name}", title, rows, row_titles=titles)


def class_agreement(
    context: ExploreContext,
    classifier: Any,
    image_sets: Mapping[str, Tensor],
    classes: Mapping[str, Tensor | None],
) -> dict[str, float]:
    """Compute the fraction of each set that a classifier assigns to the right class: that in
    `classes`, (n,), or the class of the condition."""
    metrics = {}
    for name, x in image_sets.items():
        y = classes[name]
        wanted = context.condition if y is None else y
        agrees = probabilities(classifier, x).argmax(1) == wanted
        metrics[f"class_agreement_{name}"] = float(agrees.double().mean())
    return metrics


def log_densities(sources: Mapping[str, CodeSource], codes: Tensor, y: Any) -> dict[str, float]:
    """Compute the mean log density in nats of codes (N, D) under each source that has a density.
    `y` are the labels (N,) of a conditional model."""
    values = codes.double().cpu()
    return {
        f"code_log_density_{name}": float(source.log_prob(values, y).double().mean())
        for name, source in sources.items()
        if source.log_prob is not None
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
