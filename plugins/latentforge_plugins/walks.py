"""What the walks through a latent space share: runs side by side, decoding many codes, class means,
quantiles and principal directions of codes, what a classifier thinks, and examples that are no
pictures. Codes are flat here, (N, D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.findings import Finding, ImageGrid, NamedArrays

AT_ONCE = 1000  # codes that are decoded together


@dataclass(frozen=True)
class Side:
    """A run to look at: `name` for titles, `prefix` of its figures, arrays and files, and `says`,
    which begins its row titles where another run stands beside it."""

    name: str
    prefix: str
    says: str
    model: Any


def sides(context: ExploreContext) -> list[Side]:
    """The run itself, and the one handed over as `other`."""
    other = context.roles.get("other")
    if other is None:
        return [Side(context.name, "", "", context.model)]
    theirs = f"{other.name} (other)" if other.name == context.name else other.name
    return [
        Side(context.name, "", f"{context.name}: ", context.model),
        Side(theirs, "other_", f"{theirs}: ", other.model),
    ]


def has_prior(model: Any) -> bool:
    return bool(model.latent.prior == "normal")


def decode(model: Any, z: Tensor) -> Tensor:
    """The images of codes (N, D) or (N, *latent.shape): (N, *data.shape)."""
    shaped = z.reshape(-1, *model.latent.shape)
    return torch.cat([model.decode(part) for part in shaped.split(AT_ONCE)])


def probabilities(classifier: Any, x: Tensor) -> Tensor:
    """The class probabilities of images, (N, classes)."""
    return torch.cat([classifier(part).softmax(1) for part in x.split(AT_ONCE)])


def class_means(context: ExploreContext, model: Any, labels: Sequence[int]) -> Tensor:
    """The mean code of the training images of each class: (len(labels), D)."""
    images = context.images("train")
    places = [images.of_class(label) for label in labels]  # refuses before the codes are made
    for label, found in zip(labels, places, strict=True):
        if not len(found):
            raise UsageError(
                f"no training image is of class {label}, so it has no mean code",
                remedy="another class",
            )
    codes = context.codes("train", model).flatten(1)
    return torch.stack([codes[found].mean(0) for found in places])


def prior_quantiles(p: Tensor) -> Tensor:
    """Where the standard normal's distribution function is p, of p's own precision: of float64 it
    is finite for every p between 0 and 1."""
    return torch.special.ndtri(p)


def code_quantiles(codes: Tensor, p: Tensor) -> Tensor:
    """The quantiles p, (P,), of each column of the codes (N, D): (D, P)."""
    # one by one, because torch.quantile takes no more than 2^24 numbers
    return torch.stack([column.quantile(p) for column in codes.T])


def principal_directions(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of codes (N, D), N and D above 1: their mean (D,), the two directions of largest variance
    (2, D), and the share of the variance that each has, (2,). All float64.

    A direction's sign is chance; here its largest entry is positive, so that the same codes make
    the same map on every machine.
    """
    known = codes.double()
    mean = known.mean(0)
    centred = known - mean
    if codes.shape[1] > len(codes):
        _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
        variances, axes = scale.square(), directions[:2]
    else:  # the covariance is the smaller matrix
        variances, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
        variances, axes = variances.flip(0), directions[:, [-1, -2]].T
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return mean, axes * largest.sign(), variances[:2] / variances.sum().clamp(min=1e-300)


def shape_note(model: Any) -> list[str]:
    """A line for people where codes are not vectors."""
    shape = tuple(model.latent.shape)
    if len(shape) == 1:
        return []
    return [f"codes of shape {shape} are taken flat: z5 is the entry 5 of {codes_in(model)}"]


def codes_in(model: Any) -> int:
    """The numbers in one code."""
    return int(torch.Size(model.latent.shape).numel())


def drawn(
    context: ExploreContext, shown: Sequence[Finding], numbers: NamedArrays
) -> tuple[list[Finding], list[str]]:
    """The findings, without grids of images where an example is no picture, and the note on it."""
    if context.data.drawable:
        return [*shown, numbers], []
    charts = [item for item in shown if not isinstance(item, ImageGrid)]
    return [*charts, numbers], [no_picture(context, f"their values are in {numbers.name}.npz")]


def no_picture(context: ExploreContext, so: str) -> str:
    """The line for people where examples cannot be drawn, and what follows."""
    return f"examples of shape {context.data.shape} are no pictures: {so}"
