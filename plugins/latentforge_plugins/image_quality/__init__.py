"""Measures of reconstruction quality: `bce_per_pixel`, `mse_per_pixel`, `psnr`, `ssim`."""

from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

PSNR = (
    "decibels, 10 log10({} / squared error per pixel) of each image, mean over images, {}, z the "
    "posterior mode; an image without error counts as 100 dB"
)


def build_bce(config: Any, context: EvaluateContext):
    from latentforge.latent import bernoulli_nll
    from latentforge.metrics import MeanPerImage

    size = context.data.size
    return MeanPerImage(
        "bce_per_pixel", lambda seen: bernoulli_nll(seen.recon_logits, seen.batch.x) / size
    )


def build_mse(config: Any, context: EvaluateContext):
    from latentforge.metrics import MeanPerImage

    from .quality import mse

    values = context.data.describe_values()
    protocol = f"squared error of {values}, mean over pixels and images, z the posterior mode"
    measure = MeanPerImage("mse_per_pixel", lambda seen: mse(seen.recon, seen.batch.x))
    measure.protocol = protocol
    return measure


def build_psnr(config: Any, context: EvaluateContext):
    from latentforge.metrics import MeanPerImage

    from .quality import find_data_range, psnr

    used = find_data_range(context)
    measure = MeanPerImage("psnr", lambda seen: psnr(*map(used.scale, (seen.recon, seen.batch.x))))
    measure.protocol = PSNR.format(used.square, used.text)
    return measure


def build_ssim(config: Any, context: EvaluateContext):
    from .quality import Ssim

    return Ssim(context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="bce_per_pixel",
        summary="Binary cross-entropy, mean over pixels",
        build=build_bce,
        protocol="nats per pixel, mean over pixels and images, z the posterior mode, from logits",
        needs={"encode", "decode_logits"},
        ranges={"unit"},
    )
    yield MeasureSpec(
        name="mse_per_pixel",
        summary="Squared error, mean over pixels",
        build=build_mse,
        protocol="squared error of values in [0, 1], mean over pixels and images, "
        "z the posterior mode",
        needs={"encode", "decode"},
    )
    yield MeasureSpec(
        name="psnr",
        summary="Peak signal-to-noise ratio of reconstructions",
        build=build_psnr,
        protocol=PSNR.format(1, "data range 1"),
        needs={"encode", "decode"},
        default=False,
        better="higher",
    )
    yield MeasureSpec(
        name="ssim",
        summary="Structural similarity of reconstructions",
        build=build_ssim,
        protocol="structural similarity (Wang et al. 2004), Gaussian window of sigma 1.5",
        needs={"encode", "decode"},
        default=False,
        better="higher",
    )
