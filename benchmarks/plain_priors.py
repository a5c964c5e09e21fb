"""Plain PyTorch implementations of the models that priors.py compares: their references.

Nothing of LatentForge is imported. The prior of z, the bounds and the estimate of log p(x) are
written here a second time. x is (N, P), float32, binary; losses and nll are in nats per image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 4096  # codes per call of the decoder when log p(x) is estimated
LOG_2PI = math.log(2 * math.pi)

# ---------------------------------------------------------------- priors of z, (R, D) to (R,)


class Normal(nn.Module):
    """N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)


class RealNvp(nn.Module):
    """A RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) that maps z to noise of N(0, I). Coupling i
    scales and shifts the dimensions whose number plus i is odd, by at most e^2 and as a function
    of the others, and is the identity at the start."""

    def __init__(self, size: int, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        self.networks = nn.ModuleList()
        for _ in range(couplings):
            last = nn.Linear(width, 2 * size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = (nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            self.networks.append(nn.Sequential(*first, last))

    def log_prob(self, z: Tensor) -> Tensor:
        size, log_det = z.shape[1], z.new_zeros(len(z))
        for i, network in enumerate(self.networks):
            changed = torch.arange(1 - i % 2, size, 2, device=z.device)
            others = z.index_fill(1, changed, 0.0)
            raw_scale, shift = network(others).view(len(z), 2, size)[:, :, changed].unbind(1)
            log_scale = 2 * torch.tanh(raw_scale / 2)
            z = others.index_copy(1, changed, z[:, changed] * torch.exp(log_scale) + shift)
            log_det = log_det + log_scale.sum(1)
        return log_det - 0.5 * (z**2).sum(1) - 0.5 * size * LOG_2PI


class Vamp(nn.Module):
    """The mean of the posteriors of learnt pseudo-inputs (Tomczak and Welling 2018)."""

    def __init__(self, pixels: int, encode: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(500, pixels) - 3.0)  # mostly dark images
        self.encode = encode

    def log_prob(self, z: Tensor) -> Tensor:
        mean, log_var = (v.double() for v in self.encode(torch.sigmoid(self.raw)))  # (500, D)
        precision = torch.exp(-log_var)
        # -2 log N(z; mean, var) = sum (z^2 - 2 z mean + mean^2) / var + log var + log 2 pi
        powers = torch.cat([z.double() ** 2, z.double()], 1)
        weights = torch.cat([precision, -2 * mean * precision], 1)
        constant = (mean**2 * precision + log_var + LOG_2PI).sum(1)
        return ((powers @ weights.T + constant) / -2).logsumexp(1).float() - math.log(len(mean))


# ---------------------------------------------------------------- the autoencoder


class PlainVae(nn.Module):
    """The network of `vae`, P-256-128-16-128-256-P with ELU after the layers of 256 and after the
    decoder's layer of 128. `variant` is vae, iwae, flow or vamp."""

    def __init__(self, variant: str, pixels: int, latent: int = 16) -> None:
        super().__init__()
        self.variant, self.latent = variant, latent
        self.encoder = nn.Sequential(nn.Linear(pixels, 256), nn.ELU(), nn.Linear(256, 128))
        self.to_mean, self.to_log_var = nn.Linear(128, latent), nn.Linear(128, latent)
        self.decoder = nn.Sequential(
            *(nn.Linear(latent, 128), nn.ELU(), nn.Linear(128, 256), nn.ELU()),
            nn.Linear(256, pixels),
        )
        self.prior: nn.Module = Normal()
        if variant == "flow":
            self.prior = RealNvp(latent)
        if variant == "vamp":
            self.prior = Vamp(pixels, self.encode)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.to_mean(h), self.to_log_var(h)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x | z) of codes (R, D) and images (R, P), (R,)."""
        return -F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)

    def log_weights(self, x: Tensor, count: int) -> Tensor:
        """log p(x, z) / q(z | x) of `count` samples of q(z | x), (count, B)."""
        mean, log_var = self.encode(x)
        q = torch.distributions.Normal(mean, torch.exp(0.5 * log_var))
        z = q.rsample((count,))  # (count, B, D)
        log_q, z = q.log_prob(z).sum(2), z.flatten(0, 1)
        log_joint = self.log_likelihood(z, x.repeat(count, 1)) + self.prior.log_prob(z)
        return log_joint.view(count, -1) - log_q

    def loss(self, x: Tensor, iwae_samples: int) -> Tensor:
        """-L_K for iwae, and else -ELBO from one sample, with the KL in closed form for vae."""
        if self.variant == "vae":
            mean, log_var = self.encode(x)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)
            return (kl - self.log_likelihood(z, x)).mean()
        count = iwae_samples if self.variant == "iwae" else 1
        return -(self.log_weights(x, count).logsumexp(0) - math.log(count)).mean()


@torch.no_grad()
def image_nll(model: PlainVae, x: Tensor, samples: int) -> Tensor:
    """-log p(x) of each image (N,) by importance sampling with `samples` samples of q(z | x)."""
    at_once = max(1, ROWS // samples)
    values = x.new_empty(len(x), dtype=torch.float64)  # small tensors, kept, fragment the memory
    for part, found in zip(x.split(at_once), values.split(at_once), strict=True):
        counts = split_evenly(samples, max(1, ROWS // len(part)))
        weights = torch.cat([model.log_weights(part, count) for count in counts]).double()
        found.copy_(math.log(samples) - weights.logsumexp(0))
    return values


def split_evenly(total: int, most: int) -> Iterator[int]:
    """Numbers of at most `most` with the sum `total`."""
    for done in range(0, total, most):
        yield min(most, total - done)


@dataclass(frozen=True)
class PlainResult:
    """The nll of each test image, float64 (N,), the mean loss of each epoch, and the seconds of the
    training."""

    nll: Tensor
    losses: list[float]
    seconds: float


def run(
    variant: str,
    seed: int,
    train: Tensor,
    test: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    clip: float,
    iwae_samples: int,
    nll_samples: int,
) -> PlainResult:
    """Train a variant with Adam on the images `train` and estimate -log p(x) of those in `test`.
    `clip` is the maximum norm of the gradient."""
    torch.manual_seed(seed)
    model = PlainVae(variant, train.shape[1]).to(train.device)
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    losses, start_time = [], time.monotonic()
    for _ in range(epochs):
        total = torch.zeros((), device=train.device)
        for index in torch.randperm(len(train)).to(train.device).split(batch_size):
            loss = model.loss(train[index], iwae_samples)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            adam.step()
            total += loss.detach() * len(index)
        losses.append(float(total) / len(train))
    seconds = time.monotonic() - start_time
    return PlainResult(image_nll(model.eval(), test, nll_samples).cpu(), losses, seconds)
