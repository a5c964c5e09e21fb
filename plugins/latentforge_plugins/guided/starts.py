"""Where a search begins, and what density of codes keeps it where codes lie."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge_plugins.densities import fit_gaussian, standard

WIDE = 10.0
"""The standard deviation of wide starts: far off the data, as the first write-up has it."""


def own_prior(model: Any, codes: Tensor) -> Distribution:
    """N(0, I) where the model has that prior, else the Gaussian of its codes (N, D)."""
    return standard(codes) if model.latent.prior == "normal" else fit_gaussian(codes)


def data_starts(
    context: ExploreContext, codes: Tensor, restarts: int, *, other: bool
) -> tuple[Tensor, Tensor]:
    """The places (restarts, N) of random training images, and their codes (restarts, N, D); with
    `other`, only images of other classes than the objective asks for."""
    y, count = context.images("train").y, len(context.objective.requests)
    classes = getattr(context.objective, "classes", None)
    places = torch.randint(len(codes), (restarts, count), device=codes.device)
    if other and classes is not None and y is not None:
        for label in classes.unique():
            allowed = (y != label).nonzero().squeeze(1)
            if not len(allowed):
                raise UsageError(
                    f"every training image is of class {int(label)}: there is no other to start at",
                    remedy="--set any_class=true",
                )
            wanted = (classes == label).nonzero().squeeze(1)
            pick = torch.randint(len(allowed), (restarts, len(wanted)), device=codes.device)
            places[:, wanted] = allowed[pick]
    return places, codes[places]
