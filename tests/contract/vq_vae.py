"""A VQ-VAE as a stranger would write it (van den Oord et al. 2017): spatial codes, no prior, a loss
that the posterior itself takes part in. It exists to prove the contracts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentforge import (
    CallbackSpec,
    DataSpec,
    LatentSpec,
    LossSpec,
    MeasureSpec,
    ModelSpec,
    NonNegative,
    Size,
    hookimpl,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from latentforge.contracts import Batch, Engines, EvaluateContext, Seen, Step, Terms


@dataclass(frozen=True)
class VqVaeConfig:
    """`entries` of the codebook, each of `dim` numbers."""

    entries: Size = 32
    dim: Size = 8
    width: Size = 16


def build_model(config: VqVaeConfig, data: DataSpec) -> nn.Module:
    import torch
    from torch import nn

    if data.kind != "image" or any(side % 4 for side in data.shape[1:]):
        raise ValueError(f"vq-vae takes images with sides divisible by 4, not {data.shape}")

    class Quantised:
        """Both the encoder's codes and the entries nearest to them, (B, D, h, w)."""

        def __init__(self, continuous: Tensor, codebook: Tensor) -> None:
            flat = continuous.movedim(1, -1)  # (B, h, w, D)
            # |c - e|^2 up to |c|^2, which does not change the nearest entry
            distance = codebook.square().sum(1) - 2 * flat @ codebook.T  # (B, h, w, K)
            self.entry = distance.detach().argmin(-1)  # (B, h, w)
            self.continuous = continuous
            self.quantised = codebook[self.entry].movedim(-1, 1)  # (B, D, h, w)

        def mode(self) -> Tensor:
            return self.quantised

        def sample(self) -> Tensor:
            """The entries, whose gradient goes straight through to the encoder."""
            return self.continuous + (self.quantised - self.continuous).detach()

        def commitment(self) -> Tensor:
            return (self.continuous - self.quantised.detach()).square().flatten(1).sum(1)  # (B,)

        def codebook(self) -> Tensor:
            return (self.quantised - self.continuous.detach()).square().flatten(1).sum(1)  # (B,)

    class VqVae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            channels, height, width = data.shape
            inner, dim = config.width, config.dim
            self.latent = LatentSpec(shape=(dim, height // 4, width // 4), prior=None)
            self.codebook = nn.Parameter(torch.randn(config.entries, dim) * 0.5)
            self.encoder = nn.Sequential(
                nn.Conv2d(channels, inner, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(inner, inner, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(inner, dim, 1),
            )
            self.decoder = nn.Sequential(
                nn.Conv2d(dim, inner, 3, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(inner, inner, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(inner, channels, 4, stride=2, padding=1),
            )

        def encode(self, x: Tensor) -> Quantised:
            return Quantised(self.encoder(x), self.codebook)

        def decode_logits(self, z: Tensor) -> Tensor:
            return self.decoder(z)

        def decode(self, z: Tensor) -> Tensor:
            return self.decode_logits(z).sigmoid()

    return VqVae()


@dataclass(frozen=True)
class VqConfig:
    """`commitment` is the paper's beta."""

    commitment: NonNegative = 0.25


def build_loss(config: VqConfig, data: DataSpec) -> nn.Module:
    from torch import nn
    from torch.nn import functional as F

    from latentforge.contracts import Terms
    from latentforge.latent import bernoulli_nll

    class Vq(nn.Module):
        def forward(self, model: Any, batch: Batch, step: Step) -> Terms:
            posterior = model.encode(batch.x)
            recon = bernoulli_nll(model.decode_logits(posterior.sample()), batch.x)
            used = F.one_hot(posterior.entry, len(model.codebook)).float().mean((0, 1, 2))  # (K,)
            return Terms(
                {
                    "recon": recon.mean(),
                    "codebook": posterior.codebook().mean(),
                    "commitment": posterior.commitment().mean(),
                    "perplexity": perplexity(used),
                },
                {"commitment": config.commitment, "perplexity": 0.0},
            )

    return Vq()


def perplexity(used: Tensor) -> Tensor:
    """How many entries are in use: exp of the entropy of their shares (K,)."""
    import torch

    return torch.exp(-torch.xlogy(used, used).sum())


class Perplexity:
    """Over the whole split, which is not the mean over its batches: hence an accumulator."""

    def __init__(self) -> None:
        self.counts: Any = 0

    def update(self, seen: Seen) -> None:
        entries = len(seen.model.codebook)
        self.counts = self.counts + seen.posterior.entry.flatten().bincount(minlength=entries)

    def compute(self) -> Mapping[str, float]:
        counts = self.counts.double()
        return {"perplexity": float(perplexity(counts / counts.sum())), "codes": counts.sum()}


class WatchCodebook:
    """Which entries ever had a gradient, and how far they have gone."""

    def attach(self, engines: Engines) -> None:
        from ignite.engine import Events

        codebook: Tensor = engines.model.codebook
        start = codebook.detach().clone()
        self.reached = start.new_zeros(len(start)).bool()

        @engines.trainer.on(Events.ITERATION_COMPLETED)
        def note() -> None:
            self.reached |= codebook.grad.abs().sum(1) > 0

        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def log() -> None:
            moved = (codebook.detach() - start).norm(dim=1)
            engines.log("codebook/reached", float(self.reached.sum()))
            engines.log("codebook/moved", float(moved[self.reached].min()))


def build_rate(config: Any, context: EvaluateContext) -> Any:
    raise AssertionError("no model here provides kl, so nothing may build this")


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="vq-vae",
        summary="Convolutional VQ-VAE",
        build=build_model,
        config=VqVaeConfig,
        provides={"encode", "decode", "decode_logits", "codebook"},
        default_loss="vq",
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="vq",
        summary="-log p(x|z), codebook and commitment in squared distances per image",
        build=build_loss,
        config=VqConfig,
        needs={"encode", "decode_logits", "codebook"},
    )
    yield LossSpec(name="rate", summary="KL alone", build=build_rate, needs={"encode", "kl"})


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="perplexity",
        summary="Entries of the codebook in use",
        build=lambda config, context: Perplexity(),
        protocol="exp of the entropy, in nats, of the entries' shares over all codes of the split",
        needs={"encode", "codebook"},
    )
    yield MeasureSpec(
        name="rate", summary="KL", build=build_rate, protocol="nats per image", needs={"kl"}
    )


@hookimpl
def latentforge_callbacks():
    yield CallbackSpec(
        name="watch-codebook",
        summary="Entries with a gradient, and the shortest way one has gone",
        build=lambda config: WatchCodebook(),
    )
