"""The TensorBoard events of a run, read with TensorBoard's own reader."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from latentforge import Forge


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
