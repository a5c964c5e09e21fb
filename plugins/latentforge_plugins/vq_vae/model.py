"""The network of `vq-vae`, and its codebook, which follows the encoder by moving averages (van den
Oord, Vinyals and Kavukcuoglu 2017, appendix A.1) and restarts entries that are not used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import noise_like, to_range, widened
from latentforge_plugins.grids import GridDecoder, GridEncoder, Quantized, nearest
from latentforge_plugins.networks import image_shape, network_input

from .config import VqVaeConfig

SHARPNESS, USUAL = 20.0, 2.0  # of the softmax, and a usual maximum
LARGEST = 80.0  # log of the largest weight: the exponential overflows in float32 at 88.7


class VqVae(nn.Module):
    def __init__(self, config: VqVaeConfig, data: DataSpec) -> None:
        super().__init__()
        self.range = data.range
        shape = image_shape("vq-vae", data, "ae")
        self.encoder = GridEncoder(shape, config.width, config.dim)
        self.decoder = GridDecoder(shape, config.width, config.dim)
        self.latent = LatentSpec(shape=self.encoder.shape)
        self.decay, self.restart = config.decay, config.restart
        entries, dim = config.entries, config.dim
        self.register_buffer("codebook", torch.randn(entries, dim))
        self.register_buffer("share", torch.zeros(entries))  # moving average of n / sum(n)
        # Sums over a step's codes, for each entry: their number, their sum, and a weighted proposal
        # for a restart with its weight. Sums, so that parts of a batch can be added.
        self.register_buffer("seen", torch.zeros(entries, 2 * dim + 2), persistent=False)

    def encode(self, x: Tensor) -> Quantized:
        z = widened(self.encoder(network_input(x, self.range)))
        vectors = z.movedim(1, -1)  # (B, H, W, D)
        entry = nearest(vectors, self.codebook)
        if self.training:
            self.observe(vectors.detach().flatten(1, 2), entry.flatten())
        return Quantized(z, self.codebook[entry].movedim(-1, 1), entry)

    @torch.no_grad()
    def observe(self, vectors: Tensor, entry: Tensor) -> None:
        """Add the codes (B, P, D) of some images, and their entries (B*P,), to `seen`."""
        number = torch.arange(len(self.codebook), device=entry.device)
        used = (entry[:, None] == number).to(vectors.dtype)  # (B*P, K)
        sums = used.T @ vectors.flatten(0, 1)  # (K, D)
        # An entry's proposal is the output at a fixed place for the image with the largest random
        # number. A sharp softmax selects it, because maxima of several parts could not be added.
        place = number % vectors.shape[1]
        score = noise_like(vectors.new_empty(len(vectors), len(number)))  # (B, K)
        weight = proposal_weight(score)
        proposal = torch.einsum("bk,bkd->kd", weight, vectors[:, place])
        found = used.sum(0)[:, None], sums, proposal, weight.sum(0)[:, None]
        self.seen += torch.cat(found, 1)

    def after_step(self) -> None:
        """Move the codebook once per step, after the codes of the whole batch have been added."""
        dim = self.codebook.shape[1]
        number, sums, proposal, weight = self.seen.split([1, dim, dim, 1], 1)
        total = number.sum().clamp(min=1e-12)
        number, sums = number / total, sums / total
        share = self.decay * self.share[:, None] + (1 - self.decay) * number  # (K, 1)
        step = (1 - self.decay) * (sums - number * self.codebook) / share.clamp(min=1e-12)
        dead = (share < self.restart / len(share)) & (weight > 0)
        self.codebook.copy_(torch.where(dead, proposal / weight, self.codebook + step))
        self.share.copy_(torch.where(dead, 1 / len(share), share).squeeze(1))
        self.seen.zero_()

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)


def proposal_weight(score: Tensor) -> Tensor:
    """The weight of a proposal in the softmax. A score of 6.5, which normal noise reaches on a GPU,
    would have an infinite weight, and the restarted entry would be NaN."""
    return (SHARPNESS * (score - USUAL)).clamp(max=LARGEST).exp()
