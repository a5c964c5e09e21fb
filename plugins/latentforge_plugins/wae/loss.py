"""The loss `wae`: -log p(x | z) + weight MMD^2(q(z), p(z)), where q(z) is the distribution of all
codes (Tolstikhin, Bousquet, Gelly and Schoelkopf 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentforge.contracts import Batch, Step, Terms
from latentforge.errors import UsageError
from latentforge.latent import prior_of, widened
from latentforge_plugins.reconstruction.loss import Reconstruction

from .config import WaeConfig


class Wae(Reconstruction):
    """The codes of the batch are compared with as many samples of the prior. `mmd` is an unbiased
    estimate, so it can be negative."""

    config: WaeConfig

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        z = model.encode(batch.x).sample()
        if step.first and len(z) == 1:
            raise UsageError(
                "the loss wae compares pairs of codes, but a batch, or each of its parts, has one",
                hint="--set train.batch_size=64 or, with train.accumulate, larger parts",
            )
        terms = self.recon(model, z, batch.x, step)
        prior = prior_of(model)
        assert prior is not None  # the loss needs `prior`
        codes, samples = widened(z).flatten(1), prior.sample(len(z)).flatten(1)
        squared = mmd(codes, samples, self.config.scales)
        weights = {**terms.weights, "mmd": self.config.weight}
        return terms._replace(values={**terms.values, "mmd": squared}, weights=weights)


def mmd(z: Tensor, other: Tensor, scales: Sequence[float]) -> Tensor:
    """Estimate MMD^2 between the distributions of codes z (N, D) and `other` (N, D) without bias:
    Gretton et al. 2012, eq. 3, without the pairs of a code with itself. 0-d. It is 0 for one code,
    which has no pair: the last batch of an epoch may have one."""
    n = len(z)
    if n == 1:
        return 0 * z.sum()
    pairs = n * (n - 1)
    # k(z, z) = 1 for each scale, so the diagonal sums to N times the number of scales
    within = kernel(z, z, scales).sum() + kernel(other, other, scales).sum() - 2 * n * len(scales)
    return within / pairs - 2 * kernel(z, other, scales).mean()


def kernel(a: Tensor, b: Tensor, scales: Sequence[float]) -> Tensor:
    """The sum over scales s of C / (C + |a - b|^2), C = 2 D s, for all pairs of rows: (N, M)."""
    # by differences: the expanded square is not exact enough, least of all in bfloat16
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    constants = (2 * a.shape[1] * scale for scale in scales)
    return torch.stack([c / (c + distance.square()) for c in constants]).sum(0)
