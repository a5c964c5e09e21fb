"""Data in other ranges than [0, 1]: what a model sees, what is refused, and what is stored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from latentforge import Arrays, DataSpec, Forge
from latentforge.config.data_range import from_json, to_json
from latentforge.contracts import RANGES
from latentforge.errors import ConfigError, UsageError
from latentforge.latent import to_range

FORGE = Forge()
BYTES = np.arange(256, dtype=np.uint8).repeat(4).reshape(64, 4, 4)
COUNTS = np.random.default_rng(0).poisson(4, (50, 7))


def seen(x, range=None, **options):
    """The training examples as a model sees them, in order, and their spec."""
    options |= {} if range is None else {"range": range}
    data = FORGE.load_data({"train": x, "test": x, **options})
    train = data.split("train")
    return train.batch(torch.arange(len(train))).x, data


def test_bytes_in_the_signed_range_go_from_minus_one_to_one():
    x, data = seen(BYTES, "signed")
    assert torch.equal(x[:, 0, 0, 0], 2 * (torch.arange(0, 256, 4).float() / 255) - 1)
    assert data.spec.range == (-1.0, 1.0)
    assert data.spec.extent == (-1.0, 1.0)


def test_signed_floats_are_kept_exactly():
    values = torch.rand(9, 1, 5, 5) * 2 - 1
    x, data = seen(values, "signed")
    assert torch.equal(x, values)
    assert data.levels == (-1.0, 1.0)


def test_positive_floats_in_the_signed_range_are_announced(caplog):
    x, _ = seen(torch.rand(9, 1, 5, 5), "signed")
    assert x.min() >= 0
    assert "if 0 is black, try" in caplog.text
    assert "'range': 'signed', 'black': 0.0, 'white': 1.0}" in caplog.text


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64])
def test_counts_of_every_type_are_kept(dtype):
    x, data = seen(COUNTS.astype(dtype), "counts")
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), COUNTS)
    assert data.spec.range == (0.0, math.inf)
    assert data.spec.limits == (0.0, float(COUNTS.max()))
    assert data.levels is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x - 1.0, "not whole numbers from 0, such as -1"),
        (lambda x: x + 0.5, "not whole numbers from 0, such as "),
        (lambda x: np.where(x > 5, np.nan, x), "NaN or infinite"),
        (lambda x: x * 10_000_000.0, "only up to 16777216"),
    ],
)
def test_values_that_are_no_counts_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        seen(change(COUNTS), "counts")


@pytest.mark.parametrize("values", ["counts", "any"])
def test_streamed_values_are_those_in_memory(tmp_path, values):
    np.save(tmp_path / "x.npy", COUNTS.astype("int16"))
    options = {"name": "arrays", "path": tmp_path / "x.npy", "range": values}
    memory, stream = (FORGE.load_data({**options, "stream": s}) for s in ("never", "always"))
    assert memory.spec == stream.spec
    for split in ("train", "test"):
        a, b = (next(data.split(split).batches(40)).x for data in (memory, stream))
        assert torch.equal(a, b)


def test_real_numbers_keep_their_values_and_their_levels():
    values = np.random.default_rng(0).normal(300, 50, (40, 6))
    x, data = seen(values, "any")
    assert np.array_equal(x.numpy(), values.astype("float32"))
    assert data.spec.range is None
    images = np.arange(64 * 16, dtype=np.uint16).reshape(64, 4, 4)
    assert np.array_equal(seen(images, "any")[0][:, 0].numpy(), images)


def test_values_that_float32_cannot_represent_are_refused():
    with pytest.raises(UsageError, match="float32 cannot represent"):
        seen(np.array([[1e300, 1.0], [0.0, 2.0]] * 9), "any")


def test_a_dataset_declares_its_range_and_an_option_overrides_it():
    counts = Arrays(COUNTS, range="counts")
    assert seen(counts)[1].spec.range_name == "counts"
    assert seen(counts, "any")[1].spec.range_name == "any"
    with pytest.raises(UsageError, match="declare the ranges any and counts"):
        FORGE.load_data({"train": counts, "test": Arrays(COUNTS, range="any")})
    with pytest.raises(UsageError, match="range is 'count'"):
        FORGE.load_data(Arrays(COUNTS, range="count"))


def test_options_without_a_meaning_for_the_range_are_refused():
    for options in ({"white": 4.0}, {"binarize": "threshold"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            seen(COUNTS, "counts", **options)
        with pytest.raises(UsageError, match=next(iter(options))):
            seen(Arrays(COUNTS, range="counts"), **options)


def test_drawing_scales_the_extent_to_the_unit_interval():
    x = torch.tensor([0.0, 5.0, 20.0])
    counts = DataSpec((3,), "vector", range=(0.0, math.inf), limits=(0.0, 10.0))
    assert counts.to_unit(x).tolist() == [0.0, 0.5, 2.0]
    assert counts.from_unit(torch.tensor([0.0, 0.52, 1.0])).tolist() == [0.0, 5.0, 10.0]
    unit = DataSpec((3,), "vector")
    assert unit.to_unit(x) is x
    assert DataSpec((3,), range=(-1.0, 1.0)).to_unit(torch.tensor([-1.0, 0.0])).tolist() == [0, 0.5]


def test_a_network_output_is_mapped_into_each_range():
    raw = torch.linspace(-4, 4, 50)
    for bounds in RANGES.values():
        low, high = bounds or (-math.inf, math.inf)
        x = to_range(raw, bounds)
        assert low <= x.min() < x.max() <= high
        assert (x.diff() > 0).all()
    assert to_range(raw, None) is raw
    assert torch.equal(to_range(raw, (0.0, 1.0)), raw.sigmoid())


def test_ranges_survive_json():
    for bounds in RANGES.values():
        assert from_json(json.loads(json.dumps(to_json(bounds), allow_nan=False))) == bounds


# ---------------------------------------------------------------- suggested ranges

SIGNALS = 100 + 20 * np.random.default_rng(1).normal(size=(60, 2, 12))
WAVES = 5 * np.random.default_rng(1).normal(size=(60, 3, 9))
MANY = np.random.default_rng(2).negative_binomial(1, 0.01, (60, 9))


def suggestions(cli, x, *options):
    """The suggested options for a file with `x`, in order."""
    np.savez("x.npz", x=x)
    line = ["train", "vae", "--epochs", "1", "--quiet", "--data", "arrays"]
    line += ["--set", "data.path=x.npz", *options]
    hint = cli(*line).err.partition("try: ")[2].strip()
    parts = [part.partition(" for ")[0].split() for part in hint.split(", or ")]
    assert all(part[::2] == ["--set"] * (len(part) // 2) for part in parts)
    return line, [part[1::2] for part in parts]


@pytest.mark.parametrize(
    ("x", "options", "ranges"),
    [
        (MANY, (), ["counts", "any"]),
        (MANY.astype(float), (), ["counts", "any"]),
        (np.minimum(MANY, 14).reshape(60, 3, 3), (), ["counts", "any"]),
        (-MANY, (), ["any"]),
        (SIGNALS, ("--set", "data.layout=signal"), ["any"]),
        (WAVES, (), ["any"]),
        (np.arange(256).repeat(9).reshape(256, 3, 3), (), []),
        (COUNTS[:, :4].reshape(50, 2, 2) / 7, (), []),
    ],
    ids=["counts", "floats", "images", "negative", "signals", "waves", "8 bits", "grey"],
)
def test_values_suggest_the_ranges_that_they_may_have(work, cli, x, options, ranges):
    line, found = suggestions(cli, x, *options)
    assert [part[0] for part in found[:-1]] == [f"data.range={name}" for name in ranges]
    assert found[-1][-1].startswith("data.white=")
    for part in found[:-1]:  # each suggestion leads to a run
        run = f"{part[0]}-run"
        assert cli(*line, "--run", run, *(f"--set={text}" for text in part)).code == 0
        assert json.loads(Path(run, "run.json").read_text())["status"] == "done"


def test_suggested_ranges_have_the_options_that_the_loss_needs(work, cli):
    _, found = suggestions(cli, MANY)
    assert found[0] == ["data.range=counts", "loss.likelihood=poisson"]
    assert found[1] == ["data.range=any", "data.normalize=true", "loss.likelihood=gaussian"]
    with pytest.raises(UsageError) as caught:
        FORGE.train("vae", data=MANY, loss="beta-elbo", quiet=True)
    loss = {"name": "beta-elbo", "likelihood": "poisson"}
    text = f"data={{'train': x, 'range': 'counts'}}, loss={loss} for counts, or data="
    assert caught.value.hint.startswith(text)


def test_ranges_that_the_options_exclude_are_not_suggested(work, cli):
    assert suggestions(cli, MANY, "--set", "data.white=50")[1] == [["data.white=1023"]]
    assert len(suggestions(cli, MANY, "--set", "data.binarize=threshold")[1]) == 1
    shown = cli("data", "show", "arrays", "--set", "data.path=x.npz").err
    assert "try: --set data.range=counts for counts, or --set data.range=any" in shown
