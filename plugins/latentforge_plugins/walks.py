"""Helpers of the explorers: the explored runs, decoding, class means, quantiles and principal
directions of codes, class probabilities, and notes on examples that cannot be drawn. Codes are
flattened here to (N, D)."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.errors import UsageError
from latentforge.findings import Finding, ImageGrid, NamedArrays
from latentforge.latent import declared_kl, dimension_names, given, prior_of
from latentforge_plugins.curves import Style, as_curves

BATCH = 1000  # codes per call of the decoder
PRIOR_SAMPLES = 10_000  # codes that represent a prior whose quantiles are not known


def title_role(role: str, other: Any) -> str:
    """Return the role of another run and the name of the run, as in `judge mlp-2`, or only the role
    if the run has its name."""
    return role if other.name == role else f"{role} {other.name}"


def short_number(value: float) -> str:
    """Format a number with three significant digits, or as a whole number if it is larger."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


@dataclass(frozen=True)
class Side:
    """A run to explore. Titles contain its `name`. The names of its metrics and arrays begin with
    `prefix`. If two runs are shown, its row titles and notes begin with `label`. `provides` are the
    capabilities of its model."""

    name: str
    prefix: str
    label: str
    model: Any
    provides: Set[str]


def sides(context: ExploreContext) -> list[Side]:
    """Return the explored run and, if given, the run with the role `other`."""
    other = context.roles.get("other")
    if other is None:
        return [Side(context.name, "", "", context.model, context.provides)]
    other_name = f"{other.name} (other)" if other.name == context.name else other.name
    return [
        Side(context.name, "", f"{context.name}: ", context.model, context.provides),
        Side(other_name, "other_", f"{other_name}: ", other.model, other.provides),
    ]


@dataclass(frozen=True)
class Spread:
    """The distribution of codes that an explorer covers: N(0, I) if `normal`, otherwise that of
    `codes` (N, D), which are samples of the model's own prior or the training codes."""

    owner: str  # "the prior's" or "the codes'", for titles
    name: str  # for the protocol
    centre_name: str
    centre: Tensor  # (D,)
    codes: Tensor
    normal: bool
    prior: bool  # whether the model has a prior

    def quantiles(self, p: Tensor) -> Tensor:
        """The quantiles at p (P,) of each dimension, (D, P)."""
        if self.normal:
            return prior_quantiles(p).to(self.codes).expand(self.codes.shape[1], -1)
        return code_quantiles(self.codes, p.to(self.codes))


def spread_of(model: Any, codes: Tensor) -> Spread:
    """Return what the codes of a model cover: its prior or, if it has none, its training codes
    (N, D). An own prior is represented by samples from torch's default generator."""
    if model.latent.prior == "normal":
        zero = torch.zeros_like(codes[0])
        return Spread("prior's", "the prior N(0, I)", "0", zero, codes, normal=True, prior=True)
    if (prior := prior_of(model)) is not None:
        samples = prior.sample(PRIOR_SAMPLES).flatten(1).to(codes)
        name = f"the model's prior, from {PRIOR_SAMPLES} samples"
        at = "the prior's mean"
        return Spread("prior's", name, at, samples.mean(0), samples, normal=False, prior=True)
    name, at = "its training codes", "the mean code"
    return Spread("codes'", name, at, codes.mean(0), codes, normal=False, prior=False)


def axis_names(context: ExploreContext) -> tuple[str, str]:
    """Return the names of the first two dimensions of a code. The second one of a code with a
    single dimension is empty."""
    first, second = [*dimension_names(context.model.latent)[:2], ""][:2]
    return first, second


def decode(model: Any, z: Tensor, y: Tensor | None = None) -> Tensor:
    """Decode codes (N, D) or (N, *latent.shape) to images (N, *data.shape), those of a conditional
    model under the labels `y`, int64 (N,)."""
    codes = z.reshape(-1, *model.latent.shape)
    if y is None:
        return torch.cat([model.decode(part) for part in codes.split(BATCH)])
    parts = zip(codes.split(BATCH), y.split(BATCH), strict=True)
    return torch.cat([model.given(labels).decode(part) for part, labels in parts])


def is_conditional(context: ExploreContext) -> bool:
    """Whether the model needs labels, because no class was chosen with `condition`."""
    return "conditional" in context.provides


def view_for(context: ExploreContext, y: Tensor | None) -> Any:
    """Return the model, under the labels `y` (B,) if it is conditional."""
    return given(context.model, y, context.provides)


def probabilities(classifier: Any, x: Tensor) -> Tensor:
    """Return the class probabilities of images, (N, classes)."""
    return torch.cat([classifier(part).softmax(1) for part in x.split(BATCH)])


def class_means(context: ExploreContext, model: Any, labels: Sequence[int]) -> Tensor:
    """Return the mean code of the training images of each class: (len(labels), D)."""
    images = context.images("train")
    # of_class raises for an unknown class, before the codes are computed
    indices_by_class = [images.of_class(label) for label in labels]
    for label, indices in zip(labels, indices_by_class, strict=True):
        if not len(indices):
            if (only := context.condition) is not None:
                raise UsageError(
                    f"condition={only} uses only images of class {only}, so there is no mean code "
                    f"of class {label}",
                    hint="a run of a model that is not conditional, whose codes contain the class",
                )
            raise UsageError(
                f"class {label} has no training images, so there is no mean code for it",
                hint="choose a class that has training images",
            )
    codes = context.codes("train", model).flatten(1)
    return torch.stack([codes[indices].mean(0) for indices in indices_by_class])


def prior_quantiles(p: Tensor) -> Tensor:
    """Return the standard normal quantiles of p in the dtype of p. In float64 they are finite for
    every p between 0 and 1."""
    return torch.special.ndtri(p)


def code_quantiles(codes: Tensor, p: Tensor) -> Tensor:
    """Return the quantiles at p (P,) of each column of codes (N, D): (D, P)."""
    # column by column, because torch.quantile accepts at most 2^24 values
    return torch.stack([column.quantile(p) for column in codes.T])


def principal_directions(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (D,) of codes (N, D), their two directions of largest variance (2, D), and
    the fraction of the variance along each direction (2,), all in float64. N and D must be above 1.

    The sign of a direction is arbitrary. The entry of largest magnitude is made positive, so that
    the same codes give the same map on every machine.
    """
    values = codes.double()
    mean = values.mean(0)
    centred = values - mean
    if codes.shape[1] > len(codes):
        _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
        variances, axes = scale.square(), directions[:2]
    else:  # the covariance (D, D) is cheaper to decompose than the codes
        variances, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
        variances, axes = variances.flip(0), directions[:, [-1, -2]].T
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return mean, axes * largest.sign(), variances[:2] / variances.sum().clamp(min=1e-300)


def across_classes(images: Images, count: int) -> list[int]:
    """Return the indices of `count` images of different classes: the first image of each class,
    then the second, and so on. If there are more classes, some of them, evenly spaced. Without
    labels, the first images."""
    count = min(count, len(images))
    if images.y is None:
        return list(range(count))
    of_class = [images.of_class(int(label)).tolist() for label in images.y.unique()]
    if len(of_class) > count:
        of_class = [of_class[i * len(of_class) // count] for i in range(count)]
    turns = zip_longest(*of_class)
    return [index for turn in turns for index in turn if index is not None][:count]


def shape_note(model: Any) -> list[str]:
    """Return a note for the user if codes are not vectors."""
    shape = tuple(model.latent.shape)
    if len(shape) == 1:
        return []
    return [f"codes of shape {shape} are flattened: z5 is entry 5 of the {code_size(model)} values"]


def codebook_note(provides: Set[str]) -> list[str]:
    """Return a note for the user if the decoder was trained on entries of a codebook only."""
    if "codebook" not in provides:
        return []
    return [
        "the vectors of these codes need not be entries of the codebook, and the decoder was "
        "trained only on entries"
    ]


def code_size(model: Any) -> int:
    """Return the number of values in one code."""
    return int(torch.Size(model.latent.shape).numel())


class MeanKl(NamedTuple):
    """KL(q(z|x) || p(z)) of each dimension in nats, averaged over images. If it is estimated, `how`
    says so in brackets."""

    values: Tensor  # (D,)
    how: str = ""


def mean_kl(model: Any, provides: Set[str], images: Images) -> MeanKl | None:
    """Compute the mean KL of each dimension in closed form or from terms of the posterior, or
    return None if the model declares neither."""
    total: Any = 0
    how = ""
    for batch in images.batches(1000):
        posterior = model.encode(batch.x)
        each = declared_kl(model, posterior, provides)
        if each is None and {"log_ratio_terms", "variational"} <= provides:
            each = posterior.log_ratio_terms(posterior.sample())
            how = " (estimated with one sample of z for each image)"
        if each is None:
            return None
        total = total + each.flatten(1).sum(0)
    return MeanKl(total / len(images), how)


def select_drawable(
    context: ExploreContext,
    findings: Sequence[Finding],
    arrays: NamedArrays,
    style: Style = "steps",
) -> tuple[list[Finding], list[str]]:
    """Return the findings with the arrays, and notes. The rows of image grids are examples: images
    are scaled for drawing, and vectors and signals become panels of curves of a `style`. If they
    cannot be drawn, the grids are dropped and a note says so."""
    if context.data.drawable:
        to_unit = context.data.to_unit
        scaled: list[Finding] = [
            replace(item, rows=[to_unit(row) for row in item.rows])
            if isinstance(item, ImageGrid)
            else item
            for item in findings
        ]
        return [*scaled, arrays], []
    if context.data.drawn_as_curves:
        items, notes = [], []
        for item in findings:
            drawn, more = [item], []
            if isinstance(item, ImageGrid):
                drawn, more = as_curves(item, context.data, style)
            items, notes = [*items, *drawn], [*notes, *more]
        return [*items, arrays], notes
    charts = [item for item in findings if not isinstance(item, ImageGrid)]
    return [*charts, arrays], [not_drawable_note(context, f"their values are in {arrays.name}.npz")]


def not_drawable_note(context: ExploreContext, consequence: str) -> str:
    """Return a note which says that examples cannot be drawn and states the `consequence`."""
    return f"examples of shape {context.data.shape} cannot be drawn; {consequence}"
