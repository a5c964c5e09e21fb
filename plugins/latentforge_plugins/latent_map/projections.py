"""Projects codes (N, D) to a plane (N, 2) by PCA, seeded t-SNE (openTSNE) or seeded PaCMAP."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec

import torch
from torch import Tensor

from latentforge.errors import MissingError, UsageError
from latentforge.io.text import are, counted
from latentforge.seeding import mix
from latentforge_plugins.walks import principal_directions

FEW = 150  # points
MIN_POINTS = 5  # minimum number of points, so that their neighbours can differ
FRACTION = 0.8  # of the free memory that a projection may use
FIXED = 64 * 2**20  # bytes for the grid of the Fourier transform and for libraries
PER_NEIGHBOUR = 60  # bytes for its index and distance, twice in a sparse matrix, and for copies
PER_POINT = 1000  # bytes for the trees of the neighbour search


def max_points(dimensions: int, perplexity: float, free: int) -> int:
    """Return the number of points that t-SNE or PaCMAP can process with `free` bytes."""
    per_point = PER_POINT + 3 * perplexity * PER_NEIGHBOUR + 4 * 8 * dimensions
    return max(0, int((FRACTION * free - FIXED) / per_point))


def pca(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two principal components (N, 2) and the fraction of the variance in each, (2,)."""
    mean, axes, shares = principal_directions(codes)
    return (codes - mean) @ axes.T, shares


def tsne(codes: Tensor, perplexity: float, seed: int) -> Tensor:
    """Project with t-SNE (van der Maaten and Hinton 2008), which uses the Fourier transform of
    Linderman et al. 2019 and is initialised by PCA. The perplexity is lowered if there are too few
    points."""
    from openTSNE import TSNE

    estimator = TSNE(
        perplexity=min(perplexity, max_perplexity(len(codes))),
        initialization="pca",
        n_jobs=torch.get_num_threads(),
        random_state=mix("t-SNE", seed) % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about versions of its dependencies
        return torch.tensor(estimator.fit(codes.numpy()))


def max_perplexity(count: int) -> float:
    """Return the largest perplexity for `count` points. t-SNE uses three times as many neighbours
    as the perplexity. If these are most of few points, the map is a single cloud."""
    return max(1.0, count / 5) if count < FEW else (count - 1) / 3


def pacmap(codes: Tensor, seed: int) -> Tensor:
    """Project with PaCMAP (Wang et al. 2021) and its default options. Raises MissingError if PaCMAP
    is not installed."""
    if find_spec("pacmap") is None:
        raise MissingError(
            "method pacmap needs the package pacmap, which is not installed",
            hint="pip install 'latentforge[maps]', or --set method=tsne",
        )
    log = logging.getLogger("pacmap")
    level = log.level
    log.setLevel(logging.ERROR)  # it logs a warning for every seed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pacmap import PaCMAP

            estimator = PaCMAP(n_components=2, random_state=mix("PaCMAP", seed) % 2**32)
            return torch.from_numpy(estimator.fit_transform(codes.float().numpy(), init="pca"))
    finally:
        log.setLevel(level)


def check(codes: Tensor, method: str) -> None:
    """Raise UsageError for codes that cannot be mapped."""
    if not bool(codes.isfinite().all()):
        raise UsageError("some codes are NaN or infinite and cannot be mapped")
    if len(codes) < MIN_POINTS and method != "codes":
        raise UsageError(
            f"{counted(len(codes), 'image')} {are(len(codes))} too few for a map by {method}, "
            f"which needs at least {MIN_POINTS}"
        )
    if method != "codes" and bool((codes == codes[0]).all()):
        raise UsageError(
            "all codes are the same, so there is nothing to map", hint="`latentforge doctor RUN`"
        )
