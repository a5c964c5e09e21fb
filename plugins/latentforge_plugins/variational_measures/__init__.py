"""Measures of the evidence lower bound (`recon`, `kl` and `elbo`), and `active_units`."""

from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

from .config import ActiveUnitsConfig


def build_recon(config: Any, context: EvaluateContext):
    from .bound import Recon

    return Recon("recon", context, sampled=True)


def build_recon_mean(config: Any, context: EvaluateContext):
    from .bound import Recon

    return Recon("recon_mean", context, sampled=False)


def build_kl(config: Any, context: EvaluateContext):
    from .bound import Kl

    return Kl(context)


def build_elbo(config: Any, context: EvaluateContext):
    from .bound import Elbo

    return Elbo("elbo", context, sampled=True)


def build_elbo_mean(config: Any, context: EvaluateContext):
    from .bound import Elbo

    return Elbo("elbo_mean", context, sampled=False)


def build_active_units(config: ActiveUnitsConfig, context: EvaluateContext):
    from .active import ActiveUnits

    return ActiveUnits(config)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="recon",
        summary="-log p(x|z) of a sampled z, under the loss's likelihood",
        build=build_recon,
        likelihood=True,
        protocol="nats per image, summed over pixels, one seeded posterior sample",
        needs={"encode", "decode"},
    )
    yield MeasureSpec(
        name="recon_mean",
        summary="-log p(x|z) of the posterior's mean, under the loss's likelihood",
        build=build_recon_mean,
        likelihood=True,
        protocol="nats per image, summed over pixels, z the posterior mean",
        needs={"encode", "decode", "variational"},
    )
    yield MeasureSpec(
        name="kl",
        summary="KL(q(z|x) || p(z))",
        build=build_kl,
        protocol="nats per image, summed over latent dimensions, in closed form",
        needs={"encode", "variational"},
    )
    yield MeasureSpec(
        name="elbo",
        summary="Evidence lower bound, -(recon + kl)",
        build=build_elbo,
        likelihood=True,
        protocol="nats per image, -(recon + kl), one seeded posterior sample",
        needs={"encode", "decode", "variational"},
        better="higher",
    )
    yield MeasureSpec(
        name="elbo_mean",
        summary="-(recon_mean + kl), which is not a bound",
        build=build_elbo_mean,
        likelihood=True,
        protocol="nats per image, -(recon_mean + kl), z the posterior mean",
        needs={"encode", "decode", "kl"},
        better="higher",
    )
    yield MeasureSpec(
        name="active_units",
        summary="Latent dimensions whose posterior mean varies over the images",
        build=build_active_units,
        protocol="latent dimensions whose posterior mean varies over the split",
        config=ActiveUnitsConfig,
        needs={"encode", "variational"},
        better="higher",
    )
