"""Measures and explorers of a conditional model whose exact results are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from latentforge import LatentSpec
from latentforge.errors import UsageError
from latentforge.latent import DiagonalGaussian, Gaussian, Given

PROVIDES = {"encode", "decode", "kl", "log_prob", "conditional"}
SHAPE = (1, 2, 3)
STEP = 0.5  # the class adds this much to the first pixel


@pytest.fixture(scope="module")
def shifted(affine):
    """A model that subtracts STEP y from the first pixel before it encodes, and adds it after it
    decodes. Images that differ only by this have equal codes."""

    class Shifted(affine.Affine):
        def given(self, y):
            return Given(self, y)

        def shift(self, y):
            shift = torch.zeros(len(y), *SHAPE)
            shift[:, 0, 0, 0] = STEP * y
            return shift

        def encode(self, x, y):
            return super().encode(x - self.shift(y))

        def decode(self, z, y):
            return super().decode(z) + self.shift(y)

    return lambda latent=(6,), **options: Shifted(SHAPE, latent, **options).eval()


@pytest.fixture(scope="module")
def data():
    """Images whose first pixel is in [0, 0.5] plus STEP y."""
    generator = torch.Generator().manual_seed(1)
    base = 0.5 * torch.rand(60, *SHAPE, generator=generator)
    y = torch.arange(60) % 2
    base[:, 0, 0, 0] += STEP * y
    return base, y


def item(found, name):
    [one] = [i for i in found.items if i.name == name]
    return one


class FirstPixel(nn.Module):
    """Predicts class 1 if the first pixel is at least 1/2."""

    def forward(self, x):
        one = (x[:, 0, 0, 0] >= 0.5).float()
        return torch.stack([1 - one, one], 1)


# ---------------------------------------------------------------- measures


class Ppca(nn.Module):
    """x ~ N(W z + b y, sigma^2 I) with the exact posterior, so each sample has the same weight."""

    def __init__(self):
        super().__init__()
        self.latent = LatentSpec((1,), "normal")
        self.w, self.b, self.sigma = torch.tensor([0.3, -0.4]), torch.tensor([0.2, 0.5]), 0.3

    def given(self, y):
        return Given(self, y)

    def encode(self, x, y):
        precision = self.w.square().sum() / self.sigma**2 + 1
        mean = (x - y[:, None] * self.b) @ self.w / self.sigma**2 / precision
        return DiagonalGaussian(mean[:, None], -precision.log().expand(len(x), 1))

    def decode(self, z, y):
        return z * self.w + y[:, None] * self.b

    def exact_nll(self, x, y):
        covariance = torch.outer(self.w, self.w) + self.sigma**2 * torch.eye(2)
        normal = torch.distributions.MultivariateNormal(torch.zeros(2), covariance)
        return -normal.log_prob(x - y[:, None] * self.b)


@pytest.mark.parametrize(("images", "samples"), [(0, 3), (40, 1)])
def test_nll_repeats_the_label_of_each_image(evaluate, images, samples):
    x = torch.rand(1100, 2, generator=torch.Generator().manual_seed(2))
    y = (torch.arange(1100) % 7 > 2).long()
    model, loss = Ppca(), nn.Module()
    loss.likelihood = Gaussian(model.sigma)
    options = {"nll": {"images": images, "samples": samples}}
    metrics, _ = evaluate("nll", model, x, y, loss=loss, provides=PROVIDES, **options)
    exact = model.exact_nll(x, y)
    if images:
        from latentforge_plugins.measures import select_random

        exact = exact[select_random(images, len(x), torch.device("cpu"))]
    assert metrics["nll"] == pytest.approx(float(exact.mean()), rel=1e-5)


def test_the_sampling_error_of_the_loss_uses_parts_of_the_labels(evaluate):
    class Loss(nn.Module):
        def forward(self, model, batch, step):
            from latentforge.contracts import Terms

            z = model.encode(batch.x).sample()
            error = (model.decode(z) - batch.x).square().sum(1).mean()
            return Terms({"recon": error})

    x, y = torch.rand(200, 2), torch.arange(200) % 2
    metrics, _ = evaluate("loss", Ppca(), x, y, loss=Loss(), provides=PROVIDES)
    assert metrics["loss_se"] > 0


@pytest.mark.parametrize("name", ["knn_accuracy", "probe_accuracy"])
def test_protocol_says_that_codes_were_computed_under_the_true_labels(
    evaluate, affine, shifted, data, name
):
    _, protocol = evaluate(name, shifted(), *data, provides=PROVIDES)
    assert protocol[name].endswith("; codes computed under the true labels, which they may contain")
    _, protocol = evaluate(name, affine.Affine(SHAPE, (6,)), *data)
    assert "true labels" not in protocol[name]


def test_protocol_of_a_measure_that_reads_no_labels_is_unchanged(evaluate, shifted, data):
    _, protocol = evaluate("mse_per_pixel", shifted(), *data, provides=PROVIDES)
    assert "true labels" not in protocol["mse_per_pixel"]


# ---------------------------------------------------------------- explorers


def test_samples_are_of_all_classes_in_turn(explore, shifted, data):
    model = shifted(log_var=[-2.0] * 6)
    found = explore(
        "sample", model, *data, sources=["prior", "aggregate"], n=40, columns=4,
        provides=PROVIDES, roles={"classifier": FirstPixel()},
    )  # fmt: skip
    arrays = item(found, "codes").arrays
    assert arrays["y"].tolist() == [0, 1] * 20
    for name in ("prior", "aggregate"):
        expected = model.given(arrays["y"]).decode(arrays[f"z_{name}"])
        assert torch.equal(arrays[f"x_{name}"], expected)
    grid = item(found, "samples-prior")
    assert list(grid.row_titles) == ["0", "1"]
    one_class, other = grid.rows  # of the same codes
    torch.testing.assert_close(other - one_class, model.shift(torch.ones(4, dtype=torch.int64)))
    assert found.metrics["class_agreement_test"] == 1.0
    assert found.metrics["class_agreement_test_recon"] == 1.0
    agrees = (arrays["x_prior"][:, 0, 0, 0] >= 0.5) == arrays["y"].bool()
    assert found.metrics["class_agreement_prior"] == pytest.approx(float(agrees.double().mean()))


def test_the_density_under_an_own_prior_is_that_of_the_label_of_each_image(explore, shifted, data):
    model, (x, y) = shifted(log_var=[-2.0] * 6), data
    model.latent = LatentSpec((6,), "own")
    means = torch.randn(2, 6)

    def prior(y):
        rows = DiagonalGaussian(means[y], torch.zeros(len(y), 6))
        return SimpleNamespace(log_prob=rows.log_prob, sample=lambda n: rows.sample())

    model.prior = prior
    found = explore("sample", model, x, y, sources=["prior"], n=len(x), provides=PROVIDES)
    distance = (model.given(y).encode(x).mode() - means[y]).square().sum(1)
    expected = -0.5 * distance.mean() - 3 * math.log(2 * math.pi)
    assert found.metrics["code_log_density_prior"] == pytest.approx(float(expected), rel=1e-5)
    assert "in p(z | class) under the label of the image" in found.protocol


def test_figure_says_that_it_does_not_show_all_classes(explore, shifted):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(62, *SHAPE, generator=generator), torch.arange(62) % 31
    options = {"sources": ["prior"], "n": 31, "columns": 2, "provides": PROVIDES}
    for classes, title in (
        (31, "Samples of the first 30 of 31 classes, "),
        (30, "Samples of each "),
    ):
        kept = y < classes
        found = explore("sample", shifted(log_var=[-2.0] * 6), x[kept], y[kept], **options)
        grid = item(found, "samples-prior")
        assert grid.title.startswith(title)
        assert len(grid.rows) == 30


def test_aggregate_samples_are_posterior_samples_of_images_of_their_class(explore, shifted, data):
    """The class is coded by a pixel that the model does not shift, so codes show the class."""
    x, y = data[0].clone(), data[1]
    x[:, 0, 1, 1] = y.float()
    found = explore(
        "sample", shifted(log_var=[-20.0] * 6), x, y, sources=["aggregate"], n=30,
        provides=PROVIDES,
    )  # fmt: skip
    arrays = item(found, "codes").arrays
    assert torch.equal(arrays["z_aggregate"][:, 4] > 0, arrays["y"].bool())


def test_reconstructions_are_under_the_labels_of_the_images(explore, shifted, data):
    found = explore("reconstruct", shifted(), *data, provides=PROVIDES)
    assert found.metrics["mse_per_pixel"] < 1e-12
    arrays = item(found, "errors").arrays
    torch.testing.assert_close(arrays["recon_some"], arrays["x_some"])


def test_neighbours_by_code_ignore_what_the_class_determines(explore, shifted, data):
    x, y = data
    x = x.clone()
    x[1] = x[0]  # the same picture in the other class
    x[1, 0, 0, 0] += STEP
    found = explore("neighbours", shifted(), x, y, images=[0], n=1, provides=PROVIDES)
    arrays = item(found, "nearest").arrays
    assert arrays["index_codes"].tolist() == [[1]]
    assert float(arrays["distance_codes"]) < 1e-6


def test_an_image_file_has_no_class_for_its_code(explore, shifted, data, tmp_path):
    file = tmp_path / "query.png"
    Image.fromarray(np.full((2, 3), 90, np.uint8)).save(file)
    with pytest.raises(UsageError, match="has no class"):
        explore("neighbours", shifted(), *data, file=str(file), provides=PROVIDES)
    explore("neighbours", shifted(), *data, file=str(file), space="pixels", provides=PROVIDES)


def test_arithmetic_of_classes_is_refused(explore, shifted, data):
    with pytest.raises(UsageError, match="which is not in its codes"):
        explore("arithmetic", shifted(), *data, provides=PROVIDES)


def test_a_map_of_all_classes_has_no_decoded_plane(explore, shifted, data):
    found = explore("latent-map", shifted((2,)), *data, provides=PROVIDES)
    scatter = item(found, "map")
    assert scatter.plane is None
    assert any("condition=0" in note for note in found.notes)
    x, y = data
    model = shifted((2,))
    expected = model.given(y).encode(x).mode()
    torch.testing.assert_close(scatter.points, expected)


def test_a_map_says_that_codes_were_computed_under_the_true_labels(explore, affine, shifted, data):
    found = explore("latent-map", shifted((2,)), *data, provides=PROVIDES)
    assert item(found, "map").title.endswith(
        "; codes computed under the true labels, which they may contain"
    )
    assert "codes computed under the true labels" in found.protocol
    found = explore("latent-map", affine.Affine(SHAPE, (2,)), *data)
    assert "true labels" not in item(found, "map").title + found.protocol


@pytest.mark.parametrize(("space", "says"), [("codes", True), ("pixels", False)])
def test_neighbours_by_code_say_under_which_labels(explore, shifted, data, space, says):
    found = explore("neighbours", shifted(), *data, n=1, space=space, provides=PROVIDES)
    assert ("codes computed under the true labels" in found.protocol) is says
