"""The TensorBoard events of a run, read with TensorBoard's own reader."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from latentforge import Forge
from latentforge.runs.tensorboard import tile_pairs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ae"
    train = {"epochs": 3, "log_every": 10, "evaluate_every": 1}
    return Forge().train("ae", model={"hidden": [32]}, train=train, run=folder, quiet=True)


@pytest.fixture(scope="module")
def events(run):
    accumulator = EventAccumulator(str(run.path), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_every_term_is_logged_per_step_and_per_epoch(run, events):
    steps = run.manifest["steps"]
    every_ten = [e.step for e in events.Scalars("step/recon")]
    assert [step for step in every_ten if step % 10 == 0] == list(range(10, steps + 1, 10))
    per_epoch = events.Scalars("train/recon")
    assert [e.step for e in per_epoch] == [steps // 3, 2 * steps // 3, steps]
    expected = [line["train"]["recon"] for line in run.history()]
    assert [e.value for e in per_epoch] == pytest.approx(expected, rel=1e-6)


def test_metrics_of_every_split_and_the_throughput_are_logged(events):
    tags = set(events.Tags()["scalars"])
    required = {
        f"{s}/{m}" for s in ("validation", "test") for m in ("loss", "recon", "bce_per_pixel")
    }
    assert required | {"train/loss", "train/images_per_second", "step/loss", "step/lr"} <= tags


def test_training_and_validation_share_a_chart(events):
    layout = layout_pb2.Layout()
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    [category] = layout.category
    charts = {chart.title: [*chart.multiline.tag] for chart in category.chart}
    assert charts["loss"] == ["train/loss", "validation/loss", "test/loss"]
    assert "bce_per_pixel" not in charts or "train/bce_per_pixel" not in charts["bce_per_pixel"]
    assert {tag for tags in charts.values() for tag in tags} <= set(events.Tags()["scalars"])


def test_latent_dimensions_follow_the_metrics(tmp_path):
    train = {"epochs": 1}
    run = Forge().train("vae", model={"latent_dim": 2}, train=train, run=tmp_path / "r", quiet=True)
    accumulator = EventAccumulator(str(run.path))
    accumulator.Reload()
    tags = sorted(accumulator.Tags()["scalars"])
    assert tags[-2:] == ["z/kl_00", "z/kl_01"]


def test_originals_are_shown_above_their_reconstructions(run, events):
    pictures = events.Images("reconstructions")
    assert len(pictures) == 3
    sheet = Image.open(io.BytesIO(pictures[-1].encoded_image_string))
    assert sheet.size == (8 * 28, 2 * 28)
    first = Forge().load_data("digits").split("validation").x[0, 0]
    assert [sheet.getpixel((c, 14))[0] for c in range(28)] == first[14].tolist()


def test_hyperparameters_are_in_the_events_file_of_the_run(run, events):
    tags = events.PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(tags)
    stored = tags["_hparams_/session_start_info"]
    changed = (b"train.lr", b"train.evaluate_every", b"model.hidden", b"loss.name", b"data.name")
    assert all(name in stored for name in changed)
    assert not any(name in stored for name in (b"train.patience", b"data.workers", b"schedule"))
    assert len(list(run.path.rglob("events.out.tfevents.*"))) == 1


def test_signals_are_drawn_as_curves_in_black_below_their_reconstructions_in_blue():
    flat = torch.zeros(2, 1, 50)
    flat[:, :, 25:] = 1.0  # a step: the data is in the middle half of the panel
    picture = tile_pairs(flat, flat + 0.5)
    assert picture.shape == (3, 80, 240)
    dark, blue = picture.sum(0) < 0.1, (picture[2] > 0.8) & (picture[0] < 0.3)
    assert 55 <= dark[:, 30].nonzero().float().mean() <= 64  # a low value
    assert 16 <= dark[:, 90].nonzero().float().mean() <= 24  # a high value
    assert blue[:, 30].nonzero().float().mean() < dark[:, 30].nonzero().float().mean() - 15
    assert dark[:, 210].any()  # the second example


def test_each_channel_of_a_signal_has_a_row_and_vectors_have_one():
    assert tile_pairs(torch.rand(3, 2, 9), torch.rand(3, 2, 9)).shape == (3, 160, 360)
    assert tile_pairs(torch.rand(3, 9, 9), torch.rand(3, 9, 9)).shape == (3, 320, 360)  # four
    assert tile_pairs(torch.rand(3, 9), torch.rand(3, 9)).shape == (3, 80, 360)
    constant = torch.ones(2, 9)
    assert tile_pairs(constant, torch.full((2, 9), float("nan"))).isfinite().all()


def test_reconstructions_of_vectors_are_in_tensorboard(tmp_path):
    x = np.random.default_rng(0).random((60, 5), np.float32)
    train = {"epochs": 2}
    run = Forge().train("ae", data=x, train=train, run=tmp_path / "ae", quiet=True)
    accumulator = EventAccumulator(str(run.path))
    accumulator.Reload()
    first, second = accumulator.Images("reconstructions")
    assert (first.width, first.height) == (5 * 120, 80)  # of the validation split
    assert first.encoded_image_string != second.encoded_image_string
