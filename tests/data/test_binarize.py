"""Binarization: the images that training and measures see in each mode."""

from __future__ import annotations

import pytest
import torch

from latentforge import Forge
from latentforge.config.schema import DataConfig
from latentforge.contracts import Arrays
from latentforge.data.preparation import prepare, prepare_whole

GREY = torch.rand(4000, 4, 5, generator=torch.Generator().manual_seed(0))


def splits(mode, x=GREY, seed=0):
    config = DataConfig(split_seed=seed, binarize=mode)
    return prepare(lambda split: Arrays(x), ["train"], "grey", config)


def values(images):
    return torch.cat([batch.x for batch in images.batches(700)])


def test_none_leaves_the_grey_values():
    assert torch.equal(values(splits("none").split("train")).unique(), GREY_TRAIN.unique())


GREY_TRAIN = values(splits("none").split("train"))


@pytest.mark.parametrize("x", [GREY, (GREY * 255).to(torch.uint8)], ids=["float", "uint8"])
def test_threshold_is_white_from_one_half(x):
    grey = values(splits("none", x).split("test"))
    white = values(splits("threshold", x).split("test"))
    assert torch.equal(white, (grey >= 0.5).float())
    assert splits("threshold", x).split("test").x.dtype == torch.uint8


@pytest.mark.parametrize("mode", ["fixed", "dynamic"])
def test_the_grey_value_is_the_probability_of_white(mode):
    images = splits(mode).split("train")
    white = values(images)
    assert white.unique().tolist() == [0.0, 1.0]
    for low in (0.0, 0.3, 0.8):
        chosen = (low <= GREY_TRAIN) & (low + 0.2 > GREY_TRAIN)
        count = int(chosen.sum())
        expected = GREY_TRAIN[chosen].mean().item()
        error = 4 * (expected * (1 - expected) / count) ** 0.5
        assert white[chosen].mean().item() == pytest.approx(expected, abs=error)


def test_fixed_images_never_change_and_depend_on_the_seed():
    first, again, other = splits("fixed"), splits("fixed"), splits("fixed", seed=1)
    index = torch.arange(100)
    train = first.split("train")
    assert torch.equal(train.batch(index).x, train.batch(index).x)
    assert torch.equal(values(train), values(again.split("train")))
    assert not torch.equal(values(train)[:50], values(other.split("train"))[:50])


def test_dynamic_mode_resamples_only_the_training_images():
    drawn = splits("dynamic")
    index = torch.arange(100)
    train, test = drawn.split("train"), drawn.split("test")
    assert train.batch(index).x.unique().tolist() == [0.0, 1.0]
    assert not torch.equal(train.batch(index).x, train.batch(index).x)
    assert torch.equal(test.batch(index).x, test.batch(index).x)
    assert torch.equal(values(train), values(train))  # measures see the same at every pass
    assert torch.equal(values(test), values(splits("fixed").split("test")))


def test_dynamic_batches_are_a_function_of_the_default_generator():
    train = splits("dynamic").split("train").to("cpu")
    torch.manual_seed(3)
    first = train.batch(torch.arange(50)).x
    torch.manual_seed(3)
    assert torch.equal(train.batch(torch.arange(50)).x, first)


def test_binarization_changes_the_preprocessing_not_the_fingerprint():
    assert splits("fixed").fingerprint == splits("none").fingerprint
    assert splits("fixed").preprocessing["binarize"] == "fixed"
    whole = prepare_whole({"train": Arrays(GREY)}, "grey", DataConfig(binarize="threshold"))
    assert values(whole.split("train")).unique().tolist() == [0.0, 1.0]


def test_a_run_trains_and_evaluates_on_binarized_images(tmp_path):
    run = Forge().train(
        "ae",
        data={"name": "digits", "binarize": "threshold"},
        model={"hidden": [16], "latent_dim": 2},
        train={"epochs": 1},
        run=tmp_path / "a",
        quiet=True,
    )
    assert run.config["data"]["binarize"] == "threshold"
    assert run.evaluate()["recon"] == run.metrics["test"]["recon"]
    grey = torch.rand(40, 28, 28)
    measures = ["mse_per_pixel"]
    binarized = run.evaluate(data=grey, measures=measures)
    assert binarized == run.evaluate(data=(grey >= 0.5).float(), measures=measures)
    plain = Forge().train(
        "ae",
        data="digits",
        model={"hidden": [16], "latent_dim": 2},
        train={"epochs": 1},
        run=tmp_path / "b",
        quiet=True,
    )
    assert plain.metrics["train"] != run.metrics["train"]
    assert plain.evaluate(data=grey, measures=measures) != binarized
