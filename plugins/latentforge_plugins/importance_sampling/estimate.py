"""Importance sampling: -log p(x) = -log E_q[w], w = p(x|z) p(z) / q(z|x).

E_q is estimated from K samples of each image's posterior. The weights are accumulated, so memory
does not depend on K.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.latent import log_ratio, select_rows
from latentforge_plugins.measures import describe_likelihood, likelihood_of, select_random

from .config import NllConfig

VALUES = 2**18  # values per decoder call: 1 MB, which fits in the cache; 334 images of MNIST


class Nll:
    """Computes `nll`, `nll_se`, `nll_image_se`, `nll_ess`; omits undefined standard errors."""

    def __init__(self, config: NllConfig, context: EvaluateContext) -> None:
        images = context.images(context.split)
        count = min(config.images or len(images), len(images))
        self.selected = select_random(count, len(images), images.device)
        self.samples = config.samples
        self.rows = max(1, VALUES // context.data.size)
        self.likelihood = likelihood_of(context)
        self.sums: list[tuple[Tensor, Tensor]] = []  # from sum_weights, per chunk of images
        self.protocol = (
            f"nats per image, -log of the mean of p(x|z) p(z) / q(z|x) over K={config.samples} "
            "samples of q(z|x), in expectation an upper bound; "
            f"{describe_likelihood(self.likelihood)}; {count} of {len(images)} images of the "
            "split. nll_se: standard error of the sampling (delta method); nll_image_se: of the "
            "mean over images; nll_ess: effective number of the K samples of an image, from 1 to "
            "K, mean over images"
        )

    def update(self, seen: Seen) -> None:
        selected = self.selected[seen.batch.index].nonzero().squeeze(1)
        for rows in selected.split(self.rows) if len(selected) else ():
            self.sums.append(self.sum_weights(select_rows(seen.model, rows), seen.batch.x[rows]))

    def sum_weights(self, model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log sum_k w_k and log sum_k w_k^2 over all K samples, float64 (B,) each."""
        copies = min(self.samples, max(1, self.rows // len(x)))  # more per call for few images
        rows = torch.arange(len(x), device=x.device).repeat_interleave(copies)  # (B * copies,)
        model, repeated = select_rows(model, rows), x[rows]
        posterior = model.encode(repeated)
        log_sum = torch.full((len(x),), -math.inf, dtype=torch.float64)
        log_square = log_sum
        for done in range(0, self.samples, copies):
            z = posterior.sample()
            log_p_q = -log_ratio(model, posterior, z)  # log p(z) / q(z|x)
            log_w = log_p_q - self.likelihood.nll(model, z, repeated)  # (B * copies,)
            log_w = log_w.view(-1, copies)[:, : self.samples - done].cpu().double()
            log_sum = torch.logaddexp(log_sum, log_w.logsumexp(1))
            log_square = torch.logaddexp(log_square, (2 * log_w).logsumexp(1))
        return log_sum, log_square

    def compute(self) -> Mapping[str, float]:
        log_sum, log_square = map(torch.cat, zip(*self.sums, strict=True))
        k, images = self.samples, len(log_sum)
        nll = math.log(k) - log_sum  # (N,)
        effective = torch.exp(2 * log_sum - log_square)  # (sum w)^2 / sum w^2, from 1 to K
        metrics = {"nll": float(nll.mean())}
        if k > 1:
            # Var(log mean w) = Var(w) / (K E[w]^2), to first order
            variance = ((k / effective - 1) / (k - 1)).clamp(min=0)
            metrics["nll_se"] = math.sqrt(float(variance.sum())) / images
        if images > 1:
            metrics["nll_image_se"] = float(nll.std()) / math.sqrt(images)
        metrics["nll_ess"] = float(effective.mean())
        return metrics
