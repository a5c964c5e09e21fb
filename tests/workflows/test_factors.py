"""Factors in losses, measures, explorers, encoded codes and resumed runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from latentforge import Arrays, Factor, FactorName, Forge, LossSpec, MeasureSpec
from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare_whole
from latentforge.errors import UsageError
from latentforge.rendering.findings_store import read_findings

from ..data.factors import ANGLE, COLOUR, FACTORS, SHAPE, N, X, arrays
from ..plugin import plugin_of

# ---------------------------------------------------------------- losses and measures


def build_loss(config, data):
    """Predicts the factor angle from the code, if the data has it."""
    from torch import nn

    from latentforge.contracts import Terms

    assert Factor("angle") in data.factors

    class Angle(nn.Module):
        def forward(self, model, batch, step):
            angle = batch.factors["angle"] / 90  # (B,)
            code = model.encode(batch.x).mode()
            assert batch.factors["class"] is batch.y
            return Terms({"angle": (code[:, 0] - angle).square().mean()})

    return Angle()


class MeanAngle:
    def __init__(self):
        self.total, self.count = 0.0, 0

    def update(self, seen):
        self.total += float(seen.batch.factors["angle"].sum())
        self.count += len(seen.batch.x)

    def compute(self):
        return {"mean_angle": self.total / self.count}


def angle_measure(name, cls=MeanAngle, **options):
    how = {"summary": "s", "protocol": "degrees, the mean over the split", "factors": True}
    return MeasureSpec(name=name, build=lambda config, context: cls(), **how, **options)


@pytest.fixture
def forge(work):
    needs = {"encode"}
    loss = LossSpec(name="angle-loss", summary="s", build=build_loss, needs=needs, factors=True)
    return Forge([plugin_of(loss, angle_measure("mean-angle", default=False))])


TRAIN = {"epochs": 1, "batch_size": 16, "device": "cpu", "threads": 1}


def fit(forge, data, loss="angle-loss", **train):
    options = {"hidden": [8], "latent_dim": 2}
    return forge.train("ae", data=data, loss=loss, model=options, train=TRAIN | train, quiet=True)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loss_and_a_measure_read_factors(forge, accumulate):
    data = {"train": arrays(), "test": arrays()}
    run = fit(forge, data, accumulate=accumulate)
    assert run.manifest["data"]["factors"] == [
        {"name": "angle"},
        {"name": "shape", "names": ["square", "disc"]},
        {"name": "colour", "names": ["blue", "green", "red"]},
    ]
    assert run.metrics["test"]["loss"] > 0
    found = forge.evaluate(run, measures=["mean-angle"], data=data)["metrics"]
    assert found["mean_angle"] == pytest.approx(ANGLE.mean(), abs=1e-4)


def test_data_without_factors_is_refused(forge):
    with pytest.raises(UsageError, match="loss 'angle-loss' needs factors; in-memory has none"):
        fit(forge, Arrays(X))
    run = fit(forge, Arrays(X), loss="reconstruction")
    with pytest.raises(UsageError, match="measure 'mean-angle' needs factors; the data has none"):
        forge.evaluate(run, measures=["mean-angle"])
    labelled = fit(forge, arrays(None), loss="reconstruction")  # labels are a factor
    refused = "'mean-angle'.*: the data has no factor 'angle'; its factors: class\n  try: give data"
    with pytest.raises(UsageError, match=refused):
        forge.evaluate(labelled, measures=["mean-angle"])


def test_a_default_measure_is_skipped_for_other_data_that_it_does_not_fit(work, caplog):
    forge = Forge([plugin_of(angle_measure("default-angle"))])
    run = fit(forge, arrays(), loss="reconstruction")
    assert "mean_angle" in forge.evaluate(run, data=arrays())["metrics"]
    assert "skipped" not in caplog.text
    found = forge.evaluate(run, data={"test": X})["metrics"]
    assert "skipped measures: default-angle" in caplog.text
    assert "mse_per_pixel" in found
    assert "mean_angle" not in found
    with pytest.raises(UsageError, match="measure 'default-angle' needs factors; the data has"):
        forge.evaluate(run, data={"test": X}, measures=["default-angle"])


def test_a_default_measure_of_another_factor_does_not_abort_a_run(work, caplog):
    """Labels are a factor, so the measure is tried for all data with labels."""

    class Refusing(MeanAngle):
        def compute(self):
            raise UsageError("there is only one angle")

    forge = Forge([plugin_of(angle_measure("one"), angle_measure("two", Refusing))])
    run = fit(forge, arrays(None), loss="reconstruction")
    assert run.status == "done"
    assert "measure 'one': the data has no factor 'angle'" in caplog.text
    caplog.clear()
    assert "mean_angle" in fit(forge, arrays(), loss="reconstruction").metrics["test"]
    assert "measure 'two': there is only one angle; the measure is skipped" in caplog.text
    with pytest.raises(UsageError, match="has no factor 'angle'"):
        forge.evaluate(run, data=arrays(None), measures=["one"])


def test_other_data_is_matched_to_the_factors_of_the_run(forge):
    run = fit(forge, arrays())
    swapped = arrays({**FACTORS, "shape": (1 - SHAPE, ["disc", "square"])})
    loaded = forge.evaluate(run, data=swapped, measures=["loss"])
    assert loaded["metrics"]["loss"] > 0
    with pytest.raises(UsageError, match="factor 'shape' of the train split has examples of 'sta"):
        forge.evaluate(run, data=arrays({**FACTORS, "shape": (SHAPE, ["square", "star"])}))
    with pytest.raises(UsageError, match="factor 'shape' of the train split is numeric, but that"):
        forge.evaluate(run, data=arrays({**FACTORS, "shape": SHAPE}))
    with pytest.raises(UsageError, match="reads factors, and the data has no factor 'angle'"):
        forge.evaluate(run, data=arrays({"shape": FACTORS["shape"]}), measures=["loss"])


# ---------------------------------------------------------------- options that name a factor


@dataclass(frozen=True)
class MeanConfig:
    """`factors` are averaged."""

    factors: tuple[FactorName, ...] = ("angle",)


class Mean:
    def __init__(self, config):
        self.names, self.values = config.factors, []

    def update(self, seen):
        self.values.append(torch.stack([seen.batch.factors[name] for name in self.names]))

    def compute(self):
        return {"mean": float(torch.cat(self.values, 1).mean())}


def test_options_that_name_a_factor_are_checked(work):
    mean = MeasureSpec(
        name="mean",
        summary="s",
        build=lambda config, context: Mean(config),
        config=MeanConfig,
        protocol="the mean over the split",
    )
    forge = Forge([plugin_of(mean)])
    run = fit(forge, arrays(), loss="reconstruction")
    assert "mean" in run.metrics["test"]  # a default measure
    wrong = {"mean": {"factors": ["angel", "angle", "size"]}}
    with pytest.raises(UsageError) as error:  # without data, as it is not needed
        forge.evaluate(run, measures=["mean"], options=wrong)
    assert error.value.details == (
        "mean.factors: no factor 'angel'; did you mean 'angle'?",
        "mean.factors: no factor 'size'; factors of the data: class, angle, shape, colour",
    )
    other = arrays({**FACTORS, "size": ANGLE + 100})
    options = {"mean": {"factors": ["size"]}}
    found = forge.evaluate(run, data=other, measures=["mean"], options=options)["metrics"]
    assert found["mean"] == pytest.approx(100, abs=1e-3)
    with pytest.raises(UsageError, match=r"mean\.factors: no factor 'size'"):
        forge.evaluate(run, data=arrays(), measures=["mean"], options=options)
    plain = fit(forge, arrays(None), loss="reconstruction")  # the default measure does not fit
    assert "mean" not in plain.metrics["test"]


def test_a_map_is_coloured_by_a_factor(forge, work):
    run = fit(forge, arrays(), loss="reconstruction")

    def explored(colour, **options):
        out = forge.explore("latent-map", run, colour=colour, split="train", **options)["out"]
        stored = read_findings(Path(out))
        return stored.items[0].finding, stored.metrics

    data = forge.load_data(arrays()).split("train")
    angle, metrics = explored("angle", data=arrays())
    assert torch.equal(angle.values, data.factors["angle"])
    assert angle.values_title == "angle"
    assert torch.equal(angle.labels, data.y)  # the names under the pointer
    assert angle.title.endswith("images, coloured by angle")
    shape, same = explored("shape", data=arrays())
    assert torch.equal(shape.labels, data.factors["shape"])
    assert tuple(shape.classes) == ("square", "disc")
    assert shape.values is None
    assert metrics == same  # those of the classes
    by_class, _ = explored("class", data=arrays())
    assert torch.equal(by_class.labels, data.y)
    with pytest.raises(
        UsageError, match="the data has no factor 'size'; its factors: class, angle"
    ):
        explored("size", data=arrays())
    with pytest.raises(UsageError) as error:
        explored("angel")
    assert error.value.details == ("latent-map.colour: no factor 'angel'; did you mean 'angle'?",)
    assert "class, angle, shape, colour" in error.value.hint


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_encode_writes_a_column_for_each_factor(forge, tmp_path, suffix):
    from pyarrow import parquet

    path = tmp_path / f"codes.{suffix}"
    run = fit(forge, arrays(), loss="reconstruction")
    columns = forge.encode(run, path, data=arrays(), split="train")["columns"]
    assert [name for name in columns if name.startswith("factor")] == [
        *("factor_angle", "factor_shape", "factor_colour"),
    ]
    if suffix == "npz":
        with np.load(path, allow_pickle=False) as file:
            found, about = dict(file), json.loads(str(file["latentforge"]))
        assert found["factor_angle"].dtype == np.float32
    else:
        table = parquet.read_table(path)
        found = {name: np.array(table[name].to_pylist()) for name in table.schema.names}
        about = json.loads(table.schema.metadata[b"latentforge"])
    rows = found["source"]
    assert 30 < len(rows) < N
    assert np.array_equal(found["factor_angle"], ANGLE[rows].astype(np.float32))
    assert found["factor_shape"].tolist() == [["square", "disc"][i] for i in SHAPE[rows]]
    assert found["factor_colour"].tolist() == COLOUR[rows].tolist()
    assert about["encoded"]["factors"] == run.manifest["data"]["factors"]
    forge.decode(run, path, tmp_path / "decoded")  # the columns do not disturb it


def test_a_run_on_changed_factors_does_not_resume(forge):
    run = fit(forge, arrays(), epochs=1)
    with pytest.raises(UsageError, match="has changed since"):
        forge.resume(run, data=arrays({**FACTORS, "angle": ANGLE + 1}), train={"epochs": 2})
    assert len(forge.resume(run, data=arrays(), train={"epochs": 2}, quiet=True).history()) == 2


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_members_that_are_trained_together_read_factors(forge, binarize):
    from latentforge.config.request import draft_request
    from latentforge.config.resolve import resolve
    from latentforge.engine.build import build_trainee
    from latentforge.engine.step import StepRunner
    from latentforge.engine.vectorized.ensemble import Ensemble
    from latentforge.sweeps.grid import create_members, draft_member

    model = {"hidden": [8], "latent_dim": 2}
    parts = {"loss": "angle-loss", "model": model, "train": TRAIN}
    draft, _ = draft_request(forge.registry, "ae", data=arrays(), **parts)
    members = create_members({"train.seed": [0, 5]})
    configs = [resolve(draft_member(draft, member), forge.registry) for member in members]
    splits = prepare_whole({"train": arrays()}, "d", DataConfig(binarize=binarize))
    images = splits.split("train")

    def runners():
        trainees = [build_trainee(config, splits).train() for config in configs]
        return [
            StepRunner(trainee, images, config, torch.device("cpu"))
            for trainee, config in zip(trainees, configs, strict=True)
        ]

    alone = runners()
    ensemble = Ensemble(runners(), configs, splits.spec)
    for runner in (ensemble, *alone):
        runner.start_epoch(0)
    for done in range(3):
        stacked = ensemble.run(done)
        for member, runner in enumerate(alone):
            expected = runner.run(done).values["angle"]
            torch.testing.assert_close(stacked.terms(member).values["angle"], expected)
