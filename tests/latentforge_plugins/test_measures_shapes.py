"""Every metric supports one image, bytes, floats, vectors and any number of channels."""

from __future__ import annotations

import math

import pytest
import torch

from latentforge import Forge
from latentforge.config.validation import Faults, check
from latentforge.contracts import DataSpec

BOUND = "recon recon_mean kl elbo elbo_mean active_units nll"
LABELS = "knn_accuracy probe_accuracy"
ERRORS = "bce_per_pixel mse_per_pixel psnr"
METRICS = {*f"{BOUND} {LABELS} {ERRORS} nll_ess loss loss_se recon_se elbo_se".split()}


def build(kind: str, name: str, data: DataSpec, **options):
    entry = Forge().registry.get(kind, name)
    torch.manual_seed(0)
    return entry.spec.build(check(entry.spec.config, options, name, Faults()), data).eval()


@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 8, 8), (30,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_all_metrics_support_the_count_shape_and_dtype(evaluate, count, shape, dtype):
    x = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))
    x = (255 * x).to(torch.uint8) if dtype == torch.uint8 else x
    y = torch.arange(60) % 2
    image = len(shape) == 3
    data = DataSpec(shape, "image" if image else "vector")
    metrics, protocol = evaluate(
        f"{BOUND} {LABELS} {ERRORS} loss {'ssim' if image else ''}",
        build("models", "vae", data, encoder=[8], decoder=[8], latent_dim=3),
        x[:count],
        y[:count],
        train=(x, y),
        loss=build("losses", "elbo", data),
        nll={"samples": 20},
    )
    expected = METRICS | {"nll_se"} | ({"ssim"} if image else set())
    assert set(metrics) == expected | ({"nll_image_se"} if count > 1 else set())
    assert all(math.isfinite(value) for value in metrics.values())
    assert set(protocol) == set(metrics)
    assert metrics["nll"] <= -metrics["elbo"] + 4 * metrics["nll_se"] + 0.5
