"""psnr and ssim against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from latentforge import LatentSpec
from latentforge.errors import UsageError
from latentforge.latent import Point


class Blur(nn.Module):
    """Reconstructs a darkened mixture of each image and its horizontal shift by one pixel."""

    latent = LatentSpec((1,))

    def encode(self, x):
        return Point(x)

    def decode(self, z):
        return 0.8 * (0.6 * z + 0.4 * z.roll(1, -1)) + 0.05


def images(*shape: int) -> torch.Tensor:
    """Return smooth images after a black and a white one, whose variances are 0."""
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(5))
    if len(shape) == 4:
        x = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    x[0], x[1] = 0.0, 1.0
    return x


SHAPES = [(1003, 1, 28, 20), (4, 3, 17, 32), (3, 1, 11, 11)]


def pairs(x: torch.Tensor):
    return zip(x.double().numpy(), Blur().decode(x).double().numpy(), strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_matches_scikit_image(evaluate, shape):
    x = images(*shape)
    expected = np.mean(
        [
            structural_similarity(
                *(a, b),
                data_range=1.0,
                channel_axis=0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in pairs(x)
        ]
    )
    metrics, protocol = evaluate("ssim", Blur(), x)
    assert metrics["ssim"] == pytest.approx(expected, abs=1e-6)
    assert "11x11 Gaussian window of sigma 1.5, data range 1" in protocol["ssim"]


@pytest.mark.parametrize("shape", [*SHAPES, (1203, 30)])
def test_psnr_matches_the_mean_of_scikit_image(evaluate, shape):
    x = images(*shape)
    expected = np.mean([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs(x)])
    assert evaluate("psnr", Blur(), x)[0]["psnr"] == pytest.approx(expected, rel=1e-5)


def test_the_psnr_of_an_exact_image_is_limited_to_100_db(evaluate):
    class Perfect(Blur):
        def decode(self, z):
            return z + 0.1 * (z > 0.5)  # the first image is black

    x = images(2, 1, 4, 4)
    metrics, _ = evaluate("psnr ssim", Perfect(), x[:1])
    assert metrics == {"psnr": 100.0, "ssim": 1.0}
    assert evaluate("psnr", Perfect(), x)[0]["psnr"] == pytest.approx((100 + 20) / 2, rel=1e-5)


@pytest.mark.parametrize(("side", "size"), [((8, 6), 5), ((3, 40), 3), ((2, 2), 1)])
def test_the_window_shrinks_to_the_largest_odd_size_that_fits(evaluate, side, size):
    x = images(3, 1, *side)
    away = np.arange(size) - size // 2
    weights = np.exp(-(away**2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    values = []
    for a, b in pairs(x):
        for top in range(side[0] - size + 1):
            for left in range(side[1] - size + 1):
                p, q = (v[0, top : top + size, left : left + size] for v in (a, b))
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = ((weights * (v - m) ** 2).sum() for v, m in ((p, mp), (q, mq)))
                cov = (weights * (p - mp) * (q - mq)).sum()
                light = (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4)
                values.append(light * (2 * cov + 9e-4) / (vp + vq + 9e-4))
    metrics, protocol = evaluate("ssim", Blur(), x)
    assert metrics["ssim"] == pytest.approx(np.mean(values), abs=1e-6)
    assert f"{size}x{size} Gaussian window of sigma 1.5, the largest that fits" in protocol["ssim"]


def test_chunks_of_images_give_the_same_ssim(evaluate, monkeypatch):
    from latentforge_plugins.image_quality import quality

    x = images(7, 1, 28, 20)
    whole, _ = evaluate("ssim", Blur(), x)
    monkeypatch.setattr(quality, "CHUNK", 3 * 560)
    assert evaluate("ssim", Blur(), x)[0] == pytest.approx(whole, rel=1e-12)


def test_ssim_of_vectors_is_refused(evaluate):
    with pytest.raises(UsageError, match="not vectors of size 30"):
        evaluate("ssim", Blur(), images(3, 30))


def test_bytes_and_floats_give_the_same_metrics(evaluate):
    x = (images(5, 3, 12, 12) * 255).round().to(torch.uint8)
    names = "psnr ssim mse_per_pixel"
    of_floats, _ = evaluate(names, Blur(), x.float() / 255)
    assert evaluate(names, Blur(), x)[0] == pytest.approx(of_floats, rel=1e-6)


def two_units(*shape: int) -> torch.Tensor:
    """Return examples (N, 2, ...) whose channels have different units: 0 to 1, and 300 to 700."""
    x = images(*shape)
    x[:, 1] = 300 + 400 * x[:, 1]
    return x


@pytest.mark.parametrize(
    ("shape", "kind"), [((40, 2, 30), "signal"), ((40, 2, 12, 9), None)], ids=["signal", "image"]
)
def test_each_channel_without_declared_bounds_has_its_own_data_range(evaluate, shape, kind):
    train, test = two_units(*shape), two_units(*shape)[2:9]
    train[:, 0] *= 2
    arrays = {"range": "any", "kind": kind}
    spans = np.ptp(np.moveaxis(train.double().numpy(), 1, 0).reshape(2, -1), axis=1)
    errors = Blur().decode(test).double().numpy() - test.double().numpy()
    squares = (errors / spans.reshape(1, 2, *[1] * (len(shape) - 2))) ** 2
    expected = np.mean(-10 * np.log10(squares.reshape(len(test), -1).mean(1)))
    metrics, protocol = evaluate("psnr", Blur(), test, train=(train,), arrays=arrays)
    assert metrics["psnr"] == pytest.approx(expected, rel=1e-4)
    assert "each channel divided by its own data range" in protocol["psnr"]
    assert "of 40 training" in protocol["psnr"]


def test_the_ranges_of_channels_are_in_the_units_of_the_data(evaluate):
    class Offset(Blur):
        def decode(self, z):
            return z + 0.1  # a tenth of the standard deviation of each channel

    x, arrays = two_units(40, 2, 30), {"range": "any", "kind": "signal"}
    deviations, spans = x.double().numpy().std((0, 2)), np.ptp(x.double().numpy(), axis=(0, 2))
    expected = -10 * np.log10(np.mean((0.1 * deviations / spans) ** 2))
    metrics, _ = evaluate("psnr", Offset(), x, arrays=arrays, scaled=True)
    assert metrics["psnr"] == pytest.approx(expected, rel=1e-4)


def test_channels_that_are_constant_have_no_data_range(evaluate):
    x = two_units(40, 2, 30)
    three, arrays = torch.cat([x, torch.full((40, 1, 30), 9.0)], 1), {"range": "any"}
    arrays |= {"kind": "signal"}
    metrics, protocol = evaluate("psnr", Blur(), three, arrays=arrays)
    assert metrics == evaluate("psnr", Blur(), x, arrays=arrays)[0]
    assert "without 1 of 3 channels, which are constant in them" in protocol["psnr"]


def test_ssim_of_images_without_declared_bounds_scales_each_channel(evaluate):
    x = two_units(5, 2, 12, 12)
    spans = x.amax((0, 2, 3)) - x.amin((0, 2, 3))
    expected = np.mean(
        [
            structural_similarity(
                *(a[channel], b[channel]),
                data_range=float(spans[channel]),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in pairs(x - x.amin((0, 2, 3), keepdim=True))
            for channel in range(2)
        ]
    )

    class Shifted(Blur):  # the structural similarity depends on where the values begin
        def decode(self, z):
            low = x.amin((0, 2, 3), keepdim=True)
            return Blur.decode(self, z - low) + low

    metrics, protocol = evaluate("ssim", Shifted(), x, arrays={"range": "any"})
    assert metrics["ssim"] == pytest.approx(expected, abs=1e-5)
    assert "each channel divided by its own data range" in protocol["ssim"]


@pytest.mark.parametrize("values", ["unit", "signed"])
def test_channels_with_declared_bounds_share_the_data_range(evaluate, values):
    x = 0.5 * images(6, 2, 12, 9)
    expected = peak = np.mean([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs(x)])
    if values == "signed":
        expected = peak + 20 * np.log10(2)
    metrics, protocol = evaluate("psnr", Blur(), x, arrays={"range": values})
    assert metrics["psnr"] == pytest.approx(expected, rel=1e-5)
    assert f"data range {1 if values == 'unit' else 2}," in protocol["psnr"]
