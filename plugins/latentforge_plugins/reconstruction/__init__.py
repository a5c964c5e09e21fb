"""The loss `reconstruction` and the measures of how well images come back."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from latentforge import DataSpec, LossSpec, MeasureSpec, Positive, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from latentforge.contracts import EvaluateContext, Measure


@dataclass(frozen=True)
class ReconstructionConfig:
    """`sigma` is the standard deviation of the gaussian likelihood."""

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    sigma: Positive = 1.0


def needs(config: ReconstructionConfig) -> Set[str]:
    return {"encode", "decode_logits" if config.likelihood == "bernoulli" else "decode"}


def build_loss(config: ReconstructionConfig, data: DataSpec) -> nn.Module:
    from .loss import Reconstruction

    return Reconstruction(config)


def build_recon(config: Any, context: EvaluateContext) -> Measure:
    from latentforge.latent import Bernoulli
    from latentforge.measuring import MeanPerImage

    likelihood = getattr(context.loss, "likelihood", None) or Bernoulli()
    return MeanPerImage("recon", lambda seen: likelihood.nll(seen.model, seen.z, seen.batch.x))


def build_bce(config: Any, context: EvaluateContext) -> Measure:
    from latentforge.latent import bernoulli_nll
    from latentforge.measuring import MeanPerImage

    size = context.data.size
    return MeanPerImage(
        "bce_per_pixel", lambda seen: bernoulli_nll(seen.recon_logits, seen.batch.x) / size
    )


def build_mse(config: Any, context: EvaluateContext) -> Measure:
    from latentforge.measuring import MeanPerImage

    return MeanPerImage(
        "mse_per_pixel", lambda seen: (seen.recon - seen.batch.x).square().flatten(1).mean(1)
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="reconstruction",
        summary="-log p(x|z) in nats per image, Bernoulli from logits or Gaussian",
        build=build_loss,
        config=ReconstructionConfig,
        needs=needs,
    )


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="recon",
        summary="-log p(x|z) under the loss's likelihood",
        build=build_recon,
        protocol="nats per image, summed over pixels, z the posterior mode, the loss's likelihood "
        "(Bernoulli from logits where the loss names none)",
        needs={"encode", "decode", "decode_logits"},
    )
    yield MeasureSpec(
        name="bce_per_pixel",
        summary="Binary cross-entropy, mean over pixels",
        build=build_bce,
        protocol="nats per pixel, mean over pixels and images, z the posterior mode, from logits",
        needs={"encode", "decode_logits"},
    )
    yield MeasureSpec(
        name="mse_per_pixel",
        summary="Squared error, mean over pixels",
        build=build_mse,
        protocol="squared error of values in [0, 1], mean over pixels and images, "
        "z the posterior mode",
        needs={"encode", "decode"},
    )
