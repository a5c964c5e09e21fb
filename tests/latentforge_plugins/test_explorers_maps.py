"""latent-map and neighbours: against scikit-learn, numpy and known codes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from torch import nn

from latentforge import Forge, LatentSpec, neighbours
from latentforge.errors import MissingError, UsageError
from latentforge.latent import Point


class PixelCodes(nn.Module):
    """The code is the first `size` values of the example."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.latent = LatentSpec((size,))

    def encode(self, x):
        return Point(x.flatten(1)[:, : self.latent.shape[0]])


class Levels(PixelCodes):
    """Decodes two values into the two rows of a 2 x 2 image."""

    def decode(self, z):
        return z[:, [0, 0, 1, 1]].sigmoid().view(-1, 1, 2, 2)


@pytest.fixture
def explore(explore):
    """Runs an explorer on arrays (x, y); returns its items by name and its findings."""

    def call(name, model, test, train=None, *, provides=("encode",), **options):
        found = explore(name, model, *test, train=train, provides=provides, **options)
        return {item.name: item for item in found.items}, found

    return call


def blobs(count: int, size: int, seed: int = 0):
    """Return overlapping clusters of three classes, as grey images one pixel high."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=generator)
    x = torch.rand(count, 1, 1, size, generator=generator) * 0.6
    x[:, 0, 0, :2] += 0.2 * torch.stack([y, 2 - y], 1)
    return x, y


# ---------------------------------------------------------------- latent-map


@pytest.mark.parametrize("at_once", [2**22, 5000])
def test_metrics_of_a_pca_map_match_scikit_learn(explore, at_once, monkeypatch):
    monkeypatch.setattr(neighbours, "DISTANCES", at_once)
    x, y = blobs(400, 6)
    items, found = explore("latent-map", PixelCodes(6), (x, y), method="pca", k=7)
    codes = x.flatten(1).double().numpy()
    reference = PCA(2).fit(codes)
    points = reference.transform(codes)
    ours = items["map"].points.double().numpy()
    assert np.abs(ours) == pytest.approx(np.abs(points), abs=1e-6)
    assert found.metrics["explained_variance"] == pytest.approx(
        reference.explained_variance_ratio_.sum()
    )
    for name, positions in (("codes", codes), ("map", points)):
        nearest = NearestNeighbors(n_neighbors=7).fit(positions).kneighbors(return_distance=False)
        vote = y[torch.from_numpy(nearest)].mode(1).values  # the smallest of ties, as ours
        expected = float((vote == y).double().mean())
        assert found.metrics[f"knn_accuracy_{name}"] == pytest.approx(expected)
        assert 0.5 < expected < 0.98
    assert found.metrics["trustworthiness"] == pytest.approx(
        trustworthiness(codes, points, n_neighbors=7)
    )
    assert "k=7 nearest" in found.protocol
    assert "the same 400 images" in found.protocol
    shares = reference.explained_variance_ratio_
    axes = (f"PC 1 ({shares[0]:.0%} of the variance)", f"PC 2 ({shares[1]:.0%})")
    assert items["map"].axes == axes


@pytest.mark.parametrize(
    ("size", "options", "notes"),
    [
        (1, {"method": "tsne"}, ["method tsne had no effect: one-dimensional codes are shown"]),
        (1, {"perplexity": 5}, ["perplexity 5 had no effect: this map shows codes directly"]),
        (4, {"method": "pca", "perplexity": 5}, ["perplexity 5 had no effect: this map shows PCA"]),
        (1, {}, []),
        (2, {}, []),
        (2, {"method": "tsne", "perplexity": 5}, []),
    ],
)
def test_an_option_without_effect_is_reported(explore, size, options, notes):
    x, y = blobs(40, 4)
    items, found = explore("latent-map", PixelCodes(size), (x, y), **options)
    assert len(found.notes) == len(notes)
    assert all(note.startswith(start) for note, start in zip(found.notes, notes, strict=True))
    assert ("t-SNE of 2" in items["map"].title) is (options.get("method") == "tsne" and size == 2)


def test_two_dimensions_are_mapped_unchanged_over_decoded_images(explore):
    x, y = blobs(60, 4)
    square = x.view(-1, 1, 2, 2)
    items, found = explore("latent-map", Levels(2), (square, y), provides=("encode", "decode"))
    scatter = items["map"]
    assert torch.equal(scatter.points, square.flatten(1)[:, :2])
    assert scatter.axes == ("z0", "z1")
    assert torch.equal(scatter.codes, scatter.points)
    assert torch.equal(scatter.images, square)
    assert torch.equal(scatter.labels, y)
    assert found.metrics["knn_accuracy_map"] == found.metrics["knn_accuracy_codes"]
    plane = scatter.plane
    low, high = scatter.points.min(0).values, scatter.points.max(0).values
    assert plane.x == pytest.approx(
        (low - 0.05 * (high - low))[0].item() * np.array([1, 0])
        + (high + 0.05 * (high - low))[0].item() * np.array([0, 1])
    )
    rows, columns = plane.images.shape[:2]
    for r, c in ((0, 0), (0, columns - 1), (rows - 1, 0), (5, 20)):
        z0 = np.interp(c, [0, columns - 1], plane.x)
        z1 = np.interp(r, [0, rows - 1], plane.y)
        expected = torch.tensor([z0, z0, z1, z1]).sigmoid().view(1, 2, 2)
        assert plane.images[r, c].numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_a_model_without_decode_has_no_plane(explore):
    x, y = blobs(60, 4)
    items, _ = explore("latent-map", Levels(2), (x, y), provides=("encode",))
    assert items["map"].plane is None


def test_one_dimension_is_drawn_on_a_line(explore):
    x, y = blobs(40, 3)
    items, _ = explore("latent-map", PixelCodes(1), (x, y))
    assert torch.equal(items["map"].points[:, 0], x[:, 0, 0, 0])
    assert not items["map"].points[:, 1].any()
    assert items["map"].axes == ("z0", "")
    assert items["map"].plane is None


def test_spatial_codes_are_flattened(explore):
    class Spatial(PixelCodes):
        def __init__(self):
            super().__init__(6)
            self.latent = LatentSpec((3, 1, 2))

        def encode(self, x):
            return Point(x.view(-1, 3, 1, 2))

    x, y = blobs(40, 6)
    items, found = explore("latent-map", Spatial(), (x, y), method="pca")
    flat, _ = explore("latent-map", PixelCodes(6), (x, y), method="pca")
    assert torch.equal(items["map"].points, flat["map"].points)
    assert found.notes == ("codes of shape (3, 1, 2) are flattened",)


def test_t_sne_separates_clusters_and_is_deterministic(explore):
    x, y = blobs(150, 5)
    x[:, 0, 0, 0] = 0.3 * x[:, 0, 0, 0] + 0.3 * y  # leaves gaps between the classes
    first, found = explore("latent-map", PixelCodes(5), (x, y), k=5)
    again, _ = explore("latent-map", PixelCodes(5), (x, y), k=5)
    assert torch.equal(first["map"].points, again["map"].points)
    assert found.metrics["knn_accuracy_map"] > found.metrics["knn_accuracy_codes"] - 0.03
    assert found.metrics["knn_accuracy_map"] > 0.9
    expected = trustworthiness(
        x.flatten(1).numpy(), first["map"].points.double().numpy(), n_neighbors=5
    )
    assert found.metrics["trustworthiness"] == pytest.approx(expected, abs=1e-3)
    assert first["map"].title.endswith("t-SNE of 5 dimensions")
    assert first["map"].axes == ("t-SNE 1", "t-SNE 2")
    assert "explained_variance" not in found.metrics


def test_n_selects_images_at_random_and_is_reported(explore):
    x, y = blobs(300, 4)
    items, found = explore("latent-map", PixelCodes(4), (x, y), n=50, method="pca")
    index = items["index"].arrays["index"]
    assert len(index) == len(set(index.tolist())) == 50
    assert index.tolist() != list(range(50))
    assert torch.equal(items["map"].images, x[index])
    assert torch.equal(items["map"].labels, y[index])
    assert torch.equal(items["map"].codes, x[index].flatten(1))
    assert found.notes == ("50 of 300 images are shown, selected at random (n)",)
    again, _ = explore("latent-map", PixelCodes(4), (x, y), n=50, method="pca")
    other, _ = explore("latent-map", PixelCodes(4), (x, y), n=50, method="pca", seed=1)
    assert torch.equal(again["index"].arrays["index"], index)
    assert not torch.equal(other["index"].arrays["index"], index)


def set_free_memory(monkeypatch, megabytes: int) -> None:
    free = SimpleNamespace(available=megabytes * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def test_t_sne_limits_its_points_to_the_free_memory(explore, monkeypatch):
    x, y = blobs(300, 4)
    set_free_memory(monkeypatch, 81)
    items, found = explore("latent-map", PixelCodes(4), (x, y), perplexity=10)
    count = len(items["map"].points)
    assert 5 <= count < 300
    assert found.notes == (
        f"t-SNE of 300 images needs more than the 81 MB of free memory; {count} of them, "
        "selected at random, are shown",
    )
    assert len(items["map"].images) == count
    everything, found = explore("latent-map", PixelCodes(4), (x, y), method="pca")
    assert (len(everything["map"].points), found.notes) == (300, ())
    set_free_memory(monkeypatch, 30)
    with pytest.raises(UsageError, match="30 MB of free memory") as error:
        explore("latent-map", PixelCodes(4), (x, y))
    assert "method=pca" in error.value.hint


def test_a_perplexity_too_large_for_the_points_is_lowered(explore):
    x, y = blobs(61, 4)
    items, found = explore("latent-map", PixelCodes(4), (x, y), perplexity=1e7)
    assert found.notes == ("perplexity 1e+07 is lowered to 12.2, the largest for 61 points",)
    assert len(items["map"].points) == 61
    most, found = explore("latent-map", PixelCodes(4), (x, y), perplexity=12.2)
    assert found.notes == ()
    assert torch.equal(most["map"].points, items["map"].points)


def test_thumbnails_are_downsampled_above_the_size_limit(explore, monkeypatch):
    from latentforge_plugins.latent_map import mapping

    x = torch.rand(12, 3, 16, 32)
    items, _ = explore("latent-map", PixelCodes(4), (x,), method="pca")
    assert torch.equal(items["map"].images, x)
    monkeypatch.setattr(mapping, "THUMBNAILS", x.numel() // 4)
    items, _ = explore("latent-map", PixelCodes(4), (x,), method="pca")
    assert items["map"].images.shape == (12, 3, 8, 16)
    halved = x.unflatten(2, (8, 2)).unflatten(4, (16, 2)).mean((3, 5))
    assert items["map"].images.numpy() == pytest.approx(halved.numpy(), abs=1e-6)


def test_unlabelled_vectors_have_no_thumbnails_and_no_class_metrics(explore):
    x = torch.rand(30, 6)
    items, found = explore("latent-map", PixelCodes(6), (x,), method="pca")
    assert items["map"].labels is None
    assert items["map"].images is None
    assert set(found.metrics) == {"explained_variance", "trustworthiness"}
    assert found.notes == ("examples of shape (6,) cannot be drawn; the points have no thumbnails",)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((20, 3), 0.5), "all codes are the same"),
        (torch.rand(4, 3), "4 images are too few for a map by tsne"),
    ],
)
def test_identical_or_too_few_codes_are_refused(explore, x, message):
    with pytest.raises(UsageError, match=message):
        explore("latent-map", PixelCodes(3), (x,))


def test_codes_that_are_not_finite_are_refused(explore):
    class Broken(PixelCodes):
        def encode(self, x):
            return Point(x.flatten(1).log())

    with pytest.raises(UsageError, match="NaN or infinite"):
        explore("latent-map", Broken(2), (torch.eye(6),))


def test_missing_pacmap_names_the_extra_to_install(cli, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pacmap", None)  # makes `import pacmap` fail
    answer = cli("explore", "latent-map", "runs/ae", "--set", "method=pacmap")
    assert answer.code == 4
    assert "pip install 'latentforge[maps]'" in answer.err


@pytest.mark.slow
def test_pacmap_separates_clusters(explore):
    x, y = blobs(200, 5)
    x[:, 0, 0, 0] = 0.3 * x[:, 0, 0, 0] + 0.3 * y
    items, found = explore("latent-map", PixelCodes(5), (x, y), method="pacmap")
    assert found.metrics["knn_accuracy_map"] > 0.9
    assert items["map"].axes == ("PaCMAP 1", "PaCMAP 2")


def test_the_command_writes_identical_files_twice(cli, runs):
    command = ("explore", "latent-map", "runs/ae", "--set", "method=pca", "--set", "n=100")
    first = cli(*command, "--out", "one", "--json").json
    cli(*command, "--out", "two")
    assert {"map.png", "map.npz", "findings.json"} <= {Path(f).name for f in first["files"]}
    for name in ("map.png", "map.npz"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert "on 100 of the images" in first["protocol"]
    assert cli("explore", "latent-map", "runs/ae", "--set", "n=0").code == 2
    assert cli("explore", "latent-map", "runs/cnn").code == 2


# ---------------------------------------------------------------- neighbours


@pytest.mark.parametrize(("space", "size"), [("codes", 2), ("pixels", 5)])
def test_neighbours_and_distances_match_numpy(explore, space, size):
    train, test = blobs(1300, 5, seed=1), blobs(20, 5, seed=2)
    items, found = explore(
        *("neighbours", PixelCodes(2), test, train), images=(3, 0, 7), n=6, space=space
    )
    codes, queries = (x.flatten(1)[:, :size].double().numpy() for x in (train[0], test[0]))
    away = np.sqrt(((queries[[3, 0, 7], None] - codes) ** 2).sum(2))
    expected = away.argsort(1)[:, :6]
    arrays = items["nearest"].arrays
    assert arrays[f"index_{space}"].numpy().tolist() == expected.tolist()
    distances = np.take_along_axis(away, expected, 1)
    assert arrays[f"distance_{space}"].numpy() == pytest.approx(distances, rel=1e-5)
    share = (train[1].numpy()[expected] == test[1].numpy()[[3, 0, 7], None]).mean()
    assert found.metrics == {f"same_class_share_{space}": pytest.approx(share)}
    grid = items["neighbours"]
    assert torch.equal(grid.rows[2], torch.cat([test[0][[7]], train[0][expected[2]]]))
    assert grid.captions[1][0] == str(int(test[1][0]))
    assert grid.captions[1][1] == f"{train[1][expected[1, 0]]}  ({distances[1, 0]:.3g})"
    assert grid.row_titles == ["test 3", "test 0", "test 7"]


def test_space_both_draws_a_row_for_codes_and_a_row_for_pixels(explore):
    train, test = blobs(50, 5, seed=1), blobs(20, 5, seed=2)
    items, found = explore("neighbours", PixelCodes(2), test, train, images=(1, 2), space="both")
    assert len(items["neighbours"].rows) == 4
    titles = ["test 1, by code", "test 1, by pixels", "test 2, by code", "test 2, by pixels"]
    assert items["neighbours"].row_titles == titles
    assert set(found.metrics) == {"same_class_share_codes", "same_class_share_pixels"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_training_image_is_not_its_own_neighbour(explore, split):
    train = blobs(50, 5)  # used for both splits
    items, _ = explore("neighbours", PixelCodes(5), train, images=(4, 5), n=3, split=split)
    index = items["nearest"].arrays["index_codes"]
    assert 4 not in index[0]
    assert 5 not in index[1]
    assert (items["nearest"].arrays["distance_codes"] > 0).all()
    with pytest.raises(UsageError, match="n is 11, but only 10 training images"):
        explore("neighbours", PixelCodes(5), blobs(11, 5), images=(0,), n=11)


def save_png(path: Path, x: torch.Tensor, mode: str = "L") -> Path:
    """Save an image (H, W) in [0, 1] as a PNG."""
    Image.fromarray((x * 255).round().byte().numpy()).convert(mode).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_file_has_the_neighbours_of_the_image_it_contains(explore, tmp_path, mode):
    train = (torch.rand(40, 1, 4, 6).mul(255).round() / 255, None)
    test = (torch.rand(3, 1, 4, 6).mul(255).round() / 255, None)
    by_index, _ = explore("neighbours", PixelCodes(24), test, train, images=(1,))
    file = save_png(tmp_path / "mine.png", test[0][1, 0], mode)
    by_file, found = explore("neighbours", PixelCodes(24), test, train, file=file)
    for key in ("index_codes", "distance_codes"):
        assert torch.equal(by_file["nearest"].arrays[key], by_index["nearest"].arrays[key])
    assert by_file["neighbours"].row_titles == ["mine.png"]
    assert (found.metrics, found.notes) == ({}, ())
    assert "nearest neighbours of the file" in found.protocol


def test_a_file_is_binarized_like_the_data(explore, tmp_path):
    train = (torch.rand(40, 1, 4, 4), None)
    grey = torch.rand(4, 4)
    file = save_png(tmp_path / "grey.png", grey)
    items, _ = explore("neighbours", PixelCodes(16), train, file=file, binarize="threshold")
    assert torch.equal(items["nearest"].arrays["x"][0, 0], (grey >= 0.5).float())


def test_a_negative_image_is_reported(explore, tmp_path):
    train = (torch.rand(40, 1, 4, 4) * 0.2, None)
    file = save_png(tmp_path / "paper.png", 1 - train[0][0, 0])
    _, found = explore("neighbours", PixelCodes(16), train, file=file)
    assert found.notes == (
        "paper.png looks like a negative of the run's images, which are dark: invert it",
    )


def test_unsuitable_files_are_refused_with_the_reason(explore, tmp_path):
    data = (torch.rand(30, 1, 4, 6), None)
    wide = save_png(tmp_path / "wide.png", torch.rand(5, 7))
    with pytest.raises(UsageError, match=r"is 5 x 7 .*, but the run's images are 4 x 6"):
        explore("neighbours", PixelCodes(3), data, file=wide)
    colour = tmp_path / "colour.png"
    Image.new("RGB", (6, 4), "red").save(colour)
    with pytest.raises(UsageError, match="is colour, but the run's images are grey"):
        explore("neighbours", PixelCodes(3), data, file=colour)
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(UsageError, match="cannot be read"):
        explore("neighbours", PixelCodes(3), data, file=text)
    with pytest.raises(MissingError, match="does not exist"):
        explore("neighbours", PixelCodes(3), data, file=tmp_path / "none.png")
    with pytest.raises(UsageError, match="is a folder"):
        explore("neighbours", PixelCodes(3), data, file=tmp_path)
    with pytest.raises(UsageError, match="data of this run has shape"):
        explore("neighbours", PixelCodes(3), (torch.rand(30, 6), None), file=wide)


def test_options_out_of_range_are_refused(cli, runs):
    def refused(option):
        answer = cli("explore", "neighbours", "runs/ae", "--set", option)
        assert answer.code == 2
        return answer.err

    assert "no image 359: this split has 359" in refused("images=[359]")
    assert "images[0]: must be greater than or equal to 0" in refused("images=[-1]")
    assert "images: must have at least 1 value," in refused("images=[]")
    assert "n: must be greater than or equal to 1" in refused("n=0")
    assert "no split 'tset'" in refused("split=tset")


def test_the_command_finds_the_neighbours_of_the_codes(cli, runs):
    options = ("--set", "space=both", "--set", "n=4", "--set", "images=[8, 30]")
    answer = cli("explore", "neighbours", "runs/ae", *options, "--json").json
    model, data = Forge().open_run("runs/ae").load_model(), Forge().load_data("digits")
    train, test = data.split("train"), data.split("test")
    with torch.no_grad():
        codes, queries = (model.encode(split.x / 255).mode().double() for split in (train, test))
    nearest = NearestNeighbors(n_neighbors=4).fit(codes)
    index = nearest.kneighbors(queries[[8, 30]], return_distance=False)
    with np.load(Path(answer["out"], "nearest.npz")) as found:
        assert found["index_codes"].tolist() == index.tolist()
    alike = train.y[torch.from_numpy(index)] == test.y[[8, 30], None]
    assert answer["metrics"]["same_class_share_codes"] == pytest.approx(float(alike.float().mean()))
    assert answer["metrics"]["same_class_share_pixels"] > 0.5
    assert "neighbours.png" in {Path(f).name for f in answer["files"]}


def test_neighbours_of_vectors_have_a_panel_each(explore):
    x = torch.rand(30, 6)
    items, found = explore("neighbours", PixelCodes(3), (x, None), images=(0,), n=4)
    assert set(items) == {"neighbours", "neighbours-values", "nearest"}
    [row] = items["neighbours"].rows
    assert len(row) == 5
    assert all(panel.shape == (1, 1, 6) for panel in row)
    assert not found.notes
