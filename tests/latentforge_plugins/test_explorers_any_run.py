"""Latent explorers on vectors, colour images, spatial codes, bad options and trained runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latentforge import DataSpec, Forge
from latentforge.errors import ConfigError, UsageError
from latentforge.findings import CurveGrid, Table

SHAPE = (1, 2, 3)
EXPLORERS = ("interpolate", "sample", "manifold", "traverse", "arithmetic")


@pytest.fixture(scope="module")
def x():
    return torch.rand(400, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", EXPLORERS)
def test_examples_that_cannot_be_drawn_give_arrays_and_metrics_and_a_note(explore, affine, name):
    x, y = torch.rand(30, 2, 5, 1), torch.arange(30) % 2
    found = explore(name, affine.Affine((2, 5, 1), (3,)), x, y)
    assert [i.name for i in found.items] == ["codes"]
    assert any("(2, 5, 1) cannot be drawn" in note for note in found.notes)
    assert found.metrics
    assert found.protocol


@pytest.mark.parametrize("name", EXPLORERS)
def test_vectors_are_drawn_as_curves_and_short_ones_have_a_table(explore, affine, name):
    y = torch.arange(30) % 2
    for size in (5, 17):
        found = explore(name, affine.Affine((size,), (3,)), torch.rand(30, size), y)
        assert not any("cannot be drawn" in note for note in found.notes)
        [curves] = [item for item in found.items if isinstance(item, CurveGrid)]
        assert all(panel.shape[1:] == (1, size) for row in curves.rows for panel in row)
        tables = [item for item in found.items if isinstance(item, Table)]
        assert [table.name for table in tables] == [f"{curves.name}-values"] * (size == 5)
        assert found.metrics


def test_a_traversal_is_a_panel_for_each_dimension_with_a_curve_for_each_step(explore, affine):
    x, y = torch.rand(30, 5), torch.arange(30) % 2
    model = affine.Affine((5,), (3,), log_var=[0.0] * 3)
    curves, table, kl, codes = explore("traverse", model, x, y, steps=7).items
    assert (curves.sequence, curves.ends, kl.name) == (True, False, "kl")
    drawn = torch.stack([panel for [panel] in curves.rows])  # (dimensions, steps, 1, 5)
    assert torch.equal(drawn.squeeze(2), codes.arrays["x"])
    assert curves.curves[3] == "0.00"
    values = torch.tensor([row[2:] for row in table.rows]).unflatten(0, (3, 7))
    torch.testing.assert_close(values, codes.arrays["x"], atol=1e-6, rtol=0)
    assert [row[:2] for row in table.rows[:2]] == [
        [curves.row_titles[0], name] for name in curves.curves[:2]
    ]


def test_the_ends_of_an_interpolation_are_the_data(explore, affine):
    x, y = torch.rand(30, 5), torch.arange(30) % 2
    found = explore("interpolate", affine.Affine((5,), (3,)), x, y, images=(3, 8), steps=4)
    curves = found.items[0]
    assert curves.ends
    assert curves.title.endswith("; dashed: the data")
    for [panel] in curves.rows:
        assert torch.equal(panel[[0, -1], 0], x[[3, 8]])


@pytest.mark.parametrize("name", ["interpolate", "neighbours"])
def test_titles_and_protocols_of_vectors_are_about_examples_and_values(explore, affine, name):
    """`adapt` is what the core applies to the findings of an explorer."""
    x, y = torch.rand(30, 5), torch.arange(30) % 2
    spec = DataSpec((5,), "vector", range=None)
    found = explore(name, affine.Affine((5,), (3,)), x, y).adapt(spec)
    [curves] = [item for item in found.items if isinstance(item, CurveGrid)]
    titles = [*curves.curves, *curves.column_titles]
    assert "example" in titles
    assert "image" not in titles
    for text in ("values (values)", "values, values"):
        assert text not in found.protocol


def test_the_protocol_of_a_traversal_names_the_values_once(explore, affine):
    x = torch.rand(30, 1, 2, 3)
    found = explore("traverse", affine.Affine((1, 2, 3), (3,)), x, steps=3)
    assert "mean squared difference of values in [0, 1] from those of the image" in found.protocol


def test_each_channel_of_a_signal_has_its_own_column(explore, affine):
    x, y = torch.rand(30, 8, 20), torch.arange(30) % 2
    found = explore("traverse", affine.Affine((8, 20), (3,)), x, y, layout="NCL")
    curves, codes = found.items[0], found.items[-1]
    assert curves.column_titles == [f"channel {c}" for c in range(6)]
    assert "traversal: the first 6 of 8 channels are drawn" in found.notes
    assert torch.equal(curves.rows[1][4].squeeze(1), codes.arrays["x"][1, :, 4])
    assert not any(isinstance(item, Table) for item in found.items)


def test_a_manifold_of_curves_names_the_rows_that_are_drawn(explore, affine):
    found = explore("manifold", affine.Affine((5,), (3,)), torch.rand(30, 5), torch.arange(30) % 2)
    curves, codes = found.items[0], found.items[-1]
    assert "manifold: 3 of 21 rows are drawn" in found.notes
    assert "the colour shows" in curves.title
    middle = len(codes.arrays["x"]) // 2
    assert torch.equal(curves.rows[1][0].squeeze(1), codes.arrays["x"][middle])


def test_charts_of_vectors_are_drawn(explore, affine):
    x, y = torch.rand(30, 5), torch.arange(30) % 2
    model = affine.Affine((5,), (3,), log_var=[0.0] * 3)
    found = explore("arithmetic", model, x, y, roles={"classifier": torch.nn.Linear(5, 2)})
    names = [i.name for i in found.items]
    assert names == ["arithmetic", "arithmetic-values", "shares", "codes"]


@pytest.mark.parametrize("name", EXPLORERS)
def test_spatial_codes_and_colour_images_are_supported(explore, affine, name):
    x, y = torch.rand(30, 3, 2, 4), torch.arange(30) % 2
    model = affine.Affine((3, 2, 4), (2, 2, 3), log_var=torch.zeros(2, 2, 3))
    found = explore(name, model, x, y)
    for key, value in found.items[-1].arrays.items():
        if key.split("_")[0] == "z":
            assert value.shape[-3:] == (2, 2, 3)
    for row in found.items[0].rows:
        assert row.shape[1:] == (3, 2, 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("interpolate", {"images": [0, 400]}),
        ("interpolate", {"classes": [0, 2]}),
        ("interpolate", {"classes": [0, 2], "between": "class_means"}),
        ("traverse", {"image": 400}),
    ],
)
def test_images_and_classes_out_of_range_are_refused(explore, affine, x, name, options):
    y = torch.arange(400) % 2
    with pytest.raises(UsageError, match=r"no (image|class) \d+"):
        explore(name, affine.Affine(SHAPE, (6,)), x, y, **options)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("interpolate", {"steps": 1}),
        ("interpolate", {"steps": 1001}),
        ("interpolate", {"images": [3]}),
        ("interpolate", {"pairs": 0}),
        ("sample", {"n": 0}),
        ("sample", {"sources": []}),
        ("sample", {"components": 0}),
        ("manifold", {"size": 0}),
        ("manifold", {"size": 500}),
        ("manifold", {"reach": 0.0}),
        ("traverse", {"rows": 0}),
        ("traverse", {"steps": 1}),
        ("traverse", {"quantiles": [0.9, 0.1]}),
        ("traverse", {"quantiles": [0.0, 1.0]}),
        ("arithmetic", {"scales": []}),
        ("arithmetic", {"images": []}),
    ],
)
def test_counts_and_ranges_out_of_bounds_are_refused(explore, affine, x, name, option):
    with pytest.raises(ConfigError):
        explore(name, affine.Affine(SHAPE, (6,)), x, torch.arange(400) % 2, **option)


# ---------------------------------------------------------------- by command line, on digits

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    path = tmp_path_factory.mktemp("walks") / "vae"
    model = {"encoder": [32], "decoder": [32], "latent_dim": 3}
    train = {"epochs": 2, "batch_size": 128, "lr": 3e-3}
    return Forge().train("vae", data="digits", model=model, train=train, run=path, quiet=True).path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "roles", "images"),
    [
        ("interpolate", ["other", "classifier"], {"interpolation", "confidence"}),
        ("sample", ["classifier"], {"samples"}),
        pytest.param("manifold", [], {"manifold"}, marks=SLOW),
        pytest.param("traverse", ["other"], {"traversal", "traversal-other"}, marks=SLOW),
        pytest.param("arithmetic", ["classifier"], {"arithmetic", "shares"}, marks=SLOW),
    ],
)
def test_the_same_seed_gives_the_same_files_for_a_trained_run(cli, runs, vae, name, roles, images):
    others = {"other": runs / "ae", "classifier": runs / "cnn"}
    arguments = [part for role in roles for part in ("--with", f"{role}={others[role]}")]
    first, second = (
        cli("explore", name, vae, *arguments, "--out", out, "--json") for out in ("one", "two")
    )
    assert first.code == 0, first.err
    one, two = ({p.name: p for p in Path(out).iterdir()} for out in ("one", "two"))
    assert {f"{image}.png" for image in images} <= set(one)
    with np.load(one["codes.npz"]) as a, np.load(two["codes.npz"]) as b:
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    for image in images:
        assert one[f"{image}.png"].read_bytes() == two[f"{image}.png"].read_bytes()
    findings = json.loads(one["findings.json"].read_text())
    assert findings["metrics"] == first.json["metrics"] == second.json["metrics"]
    assert all(np.isfinite(value) for value in findings["metrics"].values())
    named = {key.split("_")[0] for key in findings["metrics"]} - {"other"}
    assert all(name in findings["protocol"] for name in named)


def test_arithmetic_without_labels_is_refused(cli, work):
    np.savez("plain.npz", x=np.random.default_rng(0).random((40, 6, 6), dtype=np.float32))
    data = ["--data", "arrays", "--set", "data.path=plain.npz"]
    assert cli("train", "ae", *data, "--epochs", 1, "--quiet", "--run", "run").code == 0
    answer = cli("explore", "arithmetic", "run")
    assert answer.code == 2
    assert "explorer 'arithmetic' needs labels" in answer.err
