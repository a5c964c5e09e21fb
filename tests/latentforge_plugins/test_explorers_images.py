"""reconstruct, activations and corruption: against numpy, scipy, direct loops, closed forms."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from latentforge_plugins.walks import short_number
from scipy import stats
from torch import nn

from latentforge import Forge, LatentSpec
from latentforge.errors import UsageError
from latentforge.latent import Bernoulli, Gaussian, Point


@pytest.fixture
def explore(explore):
    """Runs an explorer on arrays; returns its items by name and its findings."""

    def call(*arguments, **options):
        found = explore(*arguments, **options)
        return {item.name: item for item in found.items}, found

    return call


class ScaledImages(nn.Module):
    """Reconstructs every image as 0.9 times its values."""

    latent = LatentSpec((4,))

    def encode(self, x):
        return Point(x.flatten(1))

    def decode(self, z):
        return 0.9 * z.view(-1, 1, 2, 2)


AE = ("encode", "decode")


# ---------------------------------------------------------------- reconstruct


def test_best_and_worst_are_ranked_by_the_excess_over_the_entropy(cli, runs):
    answer = cli("explore", "reconstruct", "runs/ae", "--set", "n=5", "--json").json
    model, data = Forge().open_run("runs/ae").load_model(), Forge().load_data("digits")
    x = data.split("test").x / 255
    with torch.no_grad():
        recon = model.decode(model.encode(x).mode())
    p, q = (t.flatten(1).double().numpy() for t in (recon, x))
    nats = -(q * np.log(p) + (1 - q) * np.log1p(-p)).sum(1)
    nats -= torch.special.entr(x).add(torch.special.entr(1 - x)).flatten(1).sum(1).double().numpy()
    order = nats.argsort()
    worst = order[::-1][:5].copy()
    with np.load(Path(answer["out"], "errors.npz")) as found:
        assert found["error"] == pytest.approx(nats, abs=1e-3)
        assert found["x_best"] == pytest.approx(x[order[:5]].numpy())
        assert found["x_worst"] == pytest.approx(x[worst].numpy())
        assert found["recon_worst"] == pytest.approx(recon[worst].numpy(), abs=1e-6)
        y = data.split("test").y
        some = [int((y == label).nonzero()[0]) for label in (0, 2, 4, 6, 8)]
        assert found["x_some"] == pytest.approx(x[some].numpy())
    metrics = answer["metrics"]
    assert metrics["mse_per_pixel"] == pytest.approx(((p - q) ** 2).mean(), rel=1e-4)
    assert metrics["error_best"] == pytest.approx(nats.min(), rel=1e-4)
    assert metrics["error_median"] == pytest.approx(np.median(nats), rel=1e-4)
    assert metrics["error_worst"] == pytest.approx(nats.max(), rel=1e-4)
    assert "all 359 images" in answer["protocol"]
    assert "nats, summed over the values, Bernoulli from logits" in answer["protocol"]
    assert "minus the entropy of the image" in answer["protocol"]
    assert Path(answer["files"][0]).name == "reconstructions.png"


def test_without_a_likelihood_the_error_is_the_squared_error(explore):
    x = torch.rand(7, 1, 2, 2)
    items, found = explore("reconstruct", ScaledImages(), x, provides=AE, n=20)
    squared = (0.1 * x).square().flatten(1).mean(1)
    order = squared.argsort()
    grid = items["reconstructions"]
    assert torch.equal(grid.rows[2], x[order])
    assert torch.equal(grid.rows[3], 0.9 * x[order])
    assert torch.equal(grid.rows[4], x[order.flip(0)])
    assert grid.captions[4][0] == f"image {int(order[-1])}"
    assert grid.captions[5][0] == f"{squared.max():.3g}"
    assert found.metrics["error_worst"] == pytest.approx(float(squared.max()))
    assert found.notes == ("the split test has only 7 images",)
    assert grid.title.endswith("the mean squared error")


def test_a_perfect_reconstruction_of_grey_values_has_no_excess(explore):
    class Exact(ScaledImages):
        def decode(self, z):
            return z.view(-1, 1, 2, 2)

        def decode_logits(self, z):
            return self.decode(z).logit()

    class Loss(nn.Module):
        likelihood = Bernoulli()

    x = torch.cat([torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2).round().clamp(1e-6, 1 - 1e-6)])
    _, found = explore("reconstruct", Exact(), x, provides=AE, loss=Loss(), n=2)
    assert found.metrics["error_worst"] == pytest.approx(0, abs=1e-3)


def test_a_gaussian_likelihood_ranks_by_the_squared_error_and_captions_name_the_class(explore):
    class Loss(nn.Module):
        likelihood = Gaussian(0.5)

    x, y = torch.rand(7, 1, 2, 2), torch.arange(7) % 2
    items, found = explore("reconstruct", ScaledImages(), x, y, provides=AE, loss=Loss(), n=2)
    squared = (0.1 * x).square().flatten(1).mean(1)
    assert found.metrics["error_best"] == pytest.approx(float(squared.min()), rel=1e-4)
    assert "mean squared difference over the values" in found.protocol
    assert items["reconstructions"].captions[0] == ["image 0: 0", "image 1: 1"]


def test_reconstructions_of_vectors_are_curves_over_the_data(explore):
    class Vectors(ScaledImages):
        def decode(self, z):
            return 0.9 * z

    x = torch.rand(7, 4)
    items, found = explore("reconstruct", Vectors(), x, provides=AE, n=3)
    curves, error = items["reconstructions"], items["errors"].arrays["error"]
    assert set(items) == {"reconstructions", "reconstructions-values", "errors"}
    assert curves.row_titles == ["some", "best", "worst"]
    assert curves.curves == ("data", "reconstruction")
    worst = int(error.argmax())
    torch.testing.assert_close(curves.rows[2][0][:, 0], torch.stack([x[worst], 0.9 * x[worst]]))
    assert curves.captions[2][0] == f"vector {worst}\n{error[worst]:.3g}"
    assert not found.notes


def test_small_errors_and_distances_have_significant_digits(explore):
    class Vectors(ScaledImages):
        def decode(self, z):
            return 0.9 * z

    items, _ = explore("reconstruct", Vectors(), 1e-2 * torch.rand(7, 4), provides=AE, n=3)
    error, worst = items["errors"].arrays["error"], items["reconstructions"].captions[2][0]
    assert 0 < error.max() < 1e-4
    assert worst.endswith(f"\n{error.max():.3g}")
    texts = [short_number(value) for value in (1234.6, 999.4, 131.0, 0.0, 0.00012345, 1e-5)]
    assert texts == ["1235", "999", "131", "0", "0.000123", "1e-05"]


# ---------------------------------------------------------------- activations


@pytest.fixture
def digits(trained):
    """The trained CNN and the test images and labels of its data."""
    data = Forge().load_data("digits").split("test")
    return Forge().open_run(trained / "cnn").load_model(), data.x / 255, data.y


def test_mean_maps_and_features_match_a_direct_loop(explore, digits):
    model, x, y = digits
    items, found = explore("activations", model, x, y)
    h, after = F.pad(x, model.padding), {}
    with torch.no_grad():
        for i, layer in enumerate(model.features):
            h = layer(h)
            after[i] = h.clone()
    arrays = items["activations"].arrays
    grids, notes = {name for name in items if name.startswith("maps")}, set()
    assert grids == {"maps-features-2", "maps-features-5", "maps-features-8"}
    for i in (2, 5, 8):
        expected = torch.stack([after[i][y == c].mean(0) for c in range(10)])
        assert arrays[f"mean_features-{i}"].numpy() == pytest.approx(expected.numpy(), abs=1e-5)
        rows = torch.stack(list(items[f"maps-features-{i}"].rows), 1)[:, :, 0]  # (10, C, h, w)
        span = (expected - expected.mean(0)).abs().amax((0, 2, 3))
        living = (span > 1e-6 * expected.abs().amax((0, 2, 3))).nonzero().flatten()
        shown = expected[:, living[:8]]
        low, high = shown.amin((0, 2, 3)), shown.amax((0, 2, 3))
        scaled = (shown - low[:, None, None]) / (high - low)[:, None, None]
        assert rows.numpy() == pytest.approx(scaled.numpy(), abs=1e-4)
        title = items[f"maps-features-{i}"].row_titles[-1]
        assert title == f"channel {living[:8][-1]}: {low[-1]:.2g} to {high[-1]:.2g}"
        channels = expected.shape[1]
        if dead := channels - len(living):
            verb = "is" if dead == 1 else "are"
            notes.add(
                f"features.{i}: {dead} of {channels} channels {verb} the same for all classes"
            )
        if len(living) > 8:
            notes.add(f"features.{i}: only the first 8 of {len(living)} channels are shown")
    assert items["maps-features-2"].column_titles == [str(c) for c in range(10)]
    assert items["maps-features-2"].colours == "heat"
    features = F.avg_pool2d(after[6], 4).flatten(1)  # 8x8 to 2x2, before the ReLU
    assert arrays["features"].flatten(1).numpy() == pytest.approx(features.numpy(), abs=1e-5)
    panels = items["features"].panels
    assert list(panels)[:5] == [
        *(f"channel 0, cell {cell}" for cell in ("0,0", "0,1", "1,0", "1,1")),
        "channel 1, cell 0,0",
    ]
    assert len(panels) == 16
    assert panels["channel 0, cell 1,0"].numpy() == pytest.approx(features[:, 2].numpy(), abs=1e-5)
    assert items["features"].normal
    values = features.double().numpy()
    assert found.metrics == {
        "mean_abs_skewness": pytest.approx(np.abs(stats.skew(values)).mean(), rel=1e-4),
        "mean_abs_excess_kurtosis": pytest.approx(np.abs(stats.kurtosis(values)).mean(), rel=1e-4),
    }
    assert "128 features, the output of features.6 averaged to 2x2 cells" in found.protocol
    assert set(found.notes) == notes
    assert len(notes) >= 2


def test_dead_channels_are_left_out_and_counted(explore, digits):
    model, x, y = digits
    model = copy.deepcopy(model)
    with torch.no_grad():
        for channel in (0, 3):
            model.features[0].weight[channel] = 0
            model.features[0].bias[channel] = -1.0
    items, found = explore("activations", model, x, y, layers=["features.2"])
    titles = [title.partition(":")[0] for title in items["maps-features-2"].row_titles]
    assert not {"channel 0", "channel 3"} & {*titles}
    [note] = [note for note in found.notes if "the same for all classes" in note]
    assert f"{8 - len(titles)} of 8 channels" in note


class Units(nn.Module):
    """A classifier without maps: two hidden units, the second always 0.3."""

    def __init__(self, layers=("hidden", "relu")):
        super().__init__()
        self.hidden, self.relu, self.names = nn.Linear(4, 2), nn.ReLU(inplace=True), layers
        self.hidden.weight.data = torch.tensor([[1.0, -2, 0, 1], [0, 0, 0, 0]])
        self.hidden.bias.data = torch.tensor([-0.2, 0.3])

    def forward(self, x):
        return self.relu(self.hidden(x.flatten(1)))

    def layers(self):
        return self.names


def test_a_model_without_maps_has_histograms_of_its_units(explore):
    x, y = torch.rand(1300, 1, 2, 2), torch.arange(1300) % 3
    items, found = explore("activations", Units(), x, y)
    assert set(items) == {"features", "activations"}
    unit = (x.flatten(1) @ torch.tensor([1.0, -2, 0, 1]) - 0.2).double().numpy()
    panels = items["features"].panels
    assert list(panels) == ["unit 0", "unit 1"]
    assert panels["unit 0"].numpy() == pytest.approx(unit, abs=1e-6)  # before the in-place ReLU
    assert found.metrics["mean_abs_skewness"] == pytest.approx(abs(stats.skew(unit)), abs=1e-5)
    assert found.notes == (
        "no layer of the model has maps; only histograms of hidden units are drawn",
        "1 of 2 features is constant and is left out of skewness and kurtosis",
    )
    named, found = explore("activations", Units(), x, y, layers=["relu"])
    assert "relu: the output has no height and width" in found.notes[0]
    assert set(named) == {"features", "activations"}


def test_layers_and_classes_can_be_selected_and_must_exist(explore, digits):
    model, x, y = digits
    chosen = {"layers": ["features.1"], "classes": [3, 8], "channels": 2}
    items, _ = explore("activations", model, x, y, **chosen)
    grid = items["maps-features-1"]
    assert grid.column_titles == ["3", "8"]
    assert [len(row) for row in grid.rows] == [2, 2]
    with pytest.raises(UsageError, match=r"no layer 'features\.22'") as error:
        explore("activations", model, x, y, layers=["features.22"])
    assert "did you mean 'features.2'" in error.value.hint
    with pytest.raises(UsageError, match="no class 10: there are 10"):
        explore("activations", model, x, y, classes=[10])
    with pytest.raises(UsageError, match="no image of class 4"):
        explore("activations", model, *drop_fours(x, y), train=(x, y), classes=[4])
    shown, _ = explore("activations", model, *drop_fours(x, y), train=(x, y))
    assert shown["maps-features-2"].column_titles == [str(c) for c in range(10) if c != 4]
    with pytest.raises(UsageError, match="no layer with weights"):
        explore("activations", Units(layers=("relu",)), torch.rand(9, 1, 2, 2), torch.arange(9))


def drop_fours(x, y):
    return x[y != 4], y[y != 4]


@pytest.mark.slow  # draws the maps of every layer
def test_the_activations_command_accepts_classifiers_only(cli, runs):
    answer = cli("explore", "activations", "runs/cnn", "--json").json
    names = {Path(file).name for file in answer["files"]}
    assert {"maps-features-2.png", "maps-features-8.png", "features.png"} <= names
    refused = cli("explore", "activations", "runs/ae")
    assert refused.code == 2
    assert "needs classify, layers" in refused.err


# ---------------------------------------------------------------- corruption


def test_noise_matches_its_closed_form():
    from latentforge_plugins.corruption.noise import corrupt

    x, noise = torch.tensor([0.0, 0.3, 1.0]).repeat(40_000, 1), torch.randn(40_000, 3)
    for s in (0.0, 0.4, 1.0):
        noisy = corrupt(x, noise, s).double()
        mean = 0.5 + math.sqrt(1 - s**2) * (x[0] - 0.5)
        assert noisy.mean(0).numpy() == pytest.approx(mean.numpy(), abs=0.01)
        assert noisy.std(0).numpy() == pytest.approx(np.full(3, s / 2), abs=0.01)
    white = torch.randint(2, (40_000,)) * 2.0 - 1  # mean 0, variance 1, in [-1, 1]
    spread = [corrupt((white + 1) / 2, noise[:, 0], s).std() * 2 for s in (0.0, 0.5, 1.0)]
    assert torch.stack(spread).numpy() == pytest.approx(np.ones(3), abs=0.02)


def test_noise_scales_with_s_and_is_clamped_in_the_grid_only(explore):
    x = torch.rand(30, 1, 8, 8)
    items, found = explore("corruption", nn.Identity(), x, images=(4, 2), steps=5)
    arrays = items["noisy"].arrays
    assert arrays["s"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert torch.equal(arrays["index"], torch.tensor([4, 2]))
    noisy = arrays["x"]  # (2, 5, 1, 8, 8)
    assert noisy[:, 0].numpy() == pytest.approx(x[[4, 2]].numpy(), abs=1e-6)
    s = arrays["s"][1:].view(-1, 1, 1, 1)
    noise = (2 * noisy[:, 1:] - 1 - (1 - s**2).sqrt() * (2 * x[[4, 2], None] - 1)) / s
    assert noise.numpy() == pytest.approx(noise[:, :1].expand_as(noise).numpy(), abs=1e-4)
    assert noisy.min() < -0.2
    grid = items["corruption"]
    assert torch.equal(grid.rows[1], noisy[1].clamp(0, 1))
    assert grid.column_titles[1] == "s = 0.25"
    assert set(items) == {"corruption", "noisy"}  # without capabilities there is no curve
    for level in (0, 0.25, 0.5, 0.75, 1):
        lost = (1 - math.sqrt(1 - level**2)) ** 2 * (x - 0.5).square().mean()
        closed = float(lost) + level**2 / 4
        assert found.metrics[f"mse_noisy_at_{level:.2f}"] == pytest.approx(
            closed, rel=0.15, abs=1e-9
        )
    assert "30 images of the split test; x_s = sqrt(1 - s^2) x + s eps" in found.protocol
    again, _ = explore("corruption", nn.Identity(), x, images=(4, 2), steps=5)
    other, _ = explore("corruption", nn.Identity(), x, images=(4, 2), steps=5, seed=1)
    assert torch.equal(again["noisy"].arrays["x"], noisy)
    assert not torch.equal(other["noisy"].arrays["x"], noisy)


def test_corruption_reports_the_accuracy_of_a_classifier(explore, digits):
    model, x, y = digits
    items, found = explore(
        *("corruption", model, x, y), provides=("classify",), n=10_000, images=(1, 5)
    )
    with torch.no_grad():
        clean = model(x)
        seen = model(items["noisy"].arrays["x"][1])  # the second image
    accuracy = float((clean.argmax(1) == y).double().mean())
    assert found.metrics["accuracy_at_0.00"] == pytest.approx(accuracy)
    curve = items["accuracy"].series["accuracy"]
    assert curve[-1] < accuracy - 0.1
    assert curve[-1] == pytest.approx(found.metrics["accuracy_at_1.00"])
    expected = [f"{int(row.argmax())} ({row.softmax(0).max():.0%})" for row in seen]
    assert items["corruption"].captions[1] == expected
    assert "error" not in items


def test_corruption_reports_the_error_of_an_autoencoder(explore):
    x = torch.rand(50, 1, 2, 2)
    items, found = explore("corruption", ScaledImages(), x, provides=AE, images=(7,), steps=3)
    noisy, recon = items["noisy"].arrays["x"], items["noisy"].arrays["recon"]
    assert recon.numpy() == pytest.approx(0.9 * noisy.numpy(), abs=1e-6)
    assert torch.equal(items["corruption"].rows[1], recon[0])
    assert items["corruption"].row_titles == ["test 7", "decoded"]
    clean = (0.1 * x).square().mean()
    assert found.metrics["mse_recon_at_0.00"] == pytest.approx(float(clean), rel=1e-5)
    closed = 0.45**2 + float((0.45 - x).square().mean())  # for 0.9 times pure noise
    assert found.metrics["mse_recon_at_1.00"] == pytest.approx(closed, rel=0.2)
    assert set(items["error"].series) == {"noisy image", "its reconstruction"}
    _, found = explore("corruption", ScaledImages(), x, provides=AE, n=10)
    assert "10 images of the split test" in found.protocol


def test_a_split_of_two_images_is_shown_whole_by_default(explore):
    x = torch.rand(2, 1, 2, 2)
    items, _ = explore("corruption", ScaledImages(), x, provides=AE)
    assert items["noisy"].arrays["index"].tolist() == [0, 1]
    assert items["corruption"].row_titles == ["test 0", "decoded", "test 1", "decoded"]
    with pytest.raises(UsageError, match="no image 2: this split has 2"):
        explore("corruption", ScaledImages(), x, provides=AE, images=(0, 2))


def test_the_corruption_command_draws_images_and_vectors(explore, cli, runs):
    answer = cli("explore", "corruption", "runs/ae", "--set", "steps=4", "--json").json
    names = {Path(file).name for file in answer["files"]}
    assert {"corruption.png", "error.png", "noisy.npz"} <= names
    assert "mse_recon_at_0.33" in answer["metrics"]
    items, found = explore("corruption", nn.Identity(), torch.rand(30, 2, 3, 3))
    assert set(items) == {"noisy"}
    assert "cannot be drawn" in found.notes[0]
    items, found = explore("corruption", nn.Identity(), torch.rand(30, 6))
    assert items["corruption"].sequence
