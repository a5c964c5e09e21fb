"""Factors: several labels for each example, from the dataset to losses and measures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from latentforge import (
    Arrays,
    DataSpec,
    Factor,
    FactorName,
    Forge,
    LossSpec,
    MeasureSpec,
    hookimpl,
)
from latentforge.config.schema import DataConfig
from latentforge.contracts import Batch
from latentforge.data.loading import as_splits
from latentforge.data.preparation import prepare, prepare_whole
from latentforge.errors import UsageError
from latentforge.rendering.findings_store import read_findings

N = 60
RAGGED = np.array([[0], [0, 1]] * (N // 2), object)
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (N, 6, 5), dtype=np.uint8)
Y = np.arange(N) % 3
ANGLE = np.linspace(-90, 90, N)
SHAPE = np.arange(N) % 2
COLOUR = np.array(["red", "green", "blue"])[np.arange(N) % 3]
FACTORS = {"angle": ANGLE, "shape": (SHAPE, ["square", "disc"]), "colour": COLOUR}


def arrays(factors=FACTORS, y=Y):
    return Arrays(X, y, ("a", "b", "c") if y is not None else (), factors=factors)


def whole(factors, **options):
    data = prepare_whole({"train": arrays(factors, **options)}, "d")
    return data.split("train")


def refusal(factors):
    with pytest.raises(UsageError) as error:
        whole(factors)
    return str(error.value)


# ---------------------------------------------------------------- the contract


def test_factors_are_described_and_the_class_is_the_first():
    images = whole(FACTORS)
    assert images.spec.factors == (
        Factor("class", ("a", "b", "c")),
        Factor("angle"),
        Factor("shape", ("square", "disc")),
        Factor("colour", ("blue", "green", "red")),  # in natural order
    )
    assert [*images.factors] == ["class", "angle", "shape", "colour"]
    assert images.factors["angle"].dtype == torch.float32
    assert {images.factors[name].dtype for name in ("class", "shape", "colour")} == {torch.int64}
    names = images.spec.factors[3].names
    assert [names[i] for i in images.factors["colour"]] == COLOUR.tolist()


def test_data_without_factors_has_the_class_or_none():
    labelled, unlabelled = whole(None), whole(None, y=None)
    assert [*labelled.factors] == ["class"]
    assert torch.equal(labelled.batch_at([1, 2]).factors["class"], torch.tensor([1, 2]))
    assert (unlabelled.spec.factors, unlabelled.factors) == ((), {})
    assert dict(unlabelled.batch_at([0]).factors) == {}


def test_other_classes_change_the_first_factor():
    spec = DataSpec((3,), "vector", ("a",), factors=(Factor("angle"),))
    assert spec.factors == (Factor("class", ("a",)), Factor("angle"))
    assert DataSpec((3,), "vector", factors=spec.factors).factors == (Factor("angle"),)


def test_a_batch_selects_the_factors_of_its_examples():
    images = whole(FACTORS)
    batch = images.batch_at([5, 0, 7])
    assert torch.equal(batch.factors["angle"], torch.tensor(ANGLE, dtype=torch.float32)[[5, 0, 7]])
    assert batch.factors["shape"].tolist() == [1, 0, 1]
    part = batch.select(slice(1, 3))
    assert part.factors["shape"].tolist() == [0, 1]
    assert torch.equal(part.factors["class"], part.y)
    assert len(batch.factors) == 4
    for factors in (batch.factors, images.factors):
        assert "size" not in factors
        assert factors.get("size") is None
        missing = "the data has no factor 'angel'; its factors: class, angle, shape, colour"
        with pytest.raises(UsageError, match=missing) as error:
            factors["angel"]
        assert isinstance(error.value, KeyError)  # as for every mapping
        assert error.value.hint == "did you mean 'angle'?"


def test_a_batch_can_be_made_by_hand():
    alone = Batch(torch.zeros(2, 3), torch.tensor([1, 0]), torch.tensor([5, 0]))
    assert dict(alone.factors) == {"class": alone.y}
    batch = Batch(alone.x, None, alone.index, whole(FACTORS))
    assert batch.factors["shape"].tolist() == [1, 0]


def test_factors_that_nobody_reads_are_not_selected(monkeypatch):
    images = whole(FACTORS)
    monkeypatch.setattr(torch.Tensor, "index_select", None)
    assert torch.equal(images.batch(torch.tensor([3])).y, torch.tensor([0]))


@pytest.mark.parametrize("stream", ["never", "always"])
def test_factors_follow_their_images_into_the_splits(stream, tmp_path):
    marked = X.copy()
    marked[:, 0, 0] = np.arange(N)  # each image contains its position
    path = tmp_path / "x.npy"
    np.save(path, marked)
    mapped = np.load(path, mmap_mode="r")
    config = DataConfig(validation=0.2, test=0.3, stream=stream)
    data = prepare(lambda split: Arrays(mapped, Y, factors=FACTORS), ("train",), "d", config)
    seen = []
    for images in data.splits.values():
        moved = images.to("cpu")
        for batch in moved.batches(7):
            place = (batch.x[:, 0, 0, 0] * 255).round().long()
            assert torch.equal(batch.factors["angle"], torch.tensor(ANGLE).float()[place])
            assert torch.equal(batch.factors["shape"], torch.tensor(SHAPE)[place])
            again = images.batch(batch.index)
            assert torch.equal(again.factors["angle"], batch.factors["angle"])
            seen += place.tolist()
    assert sorted(seen) == [*range(N)]


def test_binarization_keeps_factors():
    images = prepare_whole({"train": arrays()}, "d", DataConfig(binarize="fixed")).split("train")
    assert torch.equal(images.factors["angle"], torch.tensor(ANGLE).float())


# ---------------------------------------------------------------- what is accepted


@pytest.mark.parametrize(
    ("given", "names", "values"),
    [
        (ANGLE.tolist(), (), ANGLE),
        (torch.tensor(ANGLE)[:, None], (), ANGLE),
        (SHAPE, (), SHAPE),  # integers without names are numeric
        ((SHAPE, None), (), SHAPE),
        (SHAPE == 1, ("False", "True"), SHAPE),
        ((SHAPE.astype(float), ("s", "d")), ("s", "d"), SHAPE),
        ((["b", "a"] * (N // 2), ["b", "a", "c"]), ("b", "a", "c"), SHAPE),
        (np.array(["10", "9"] * (N // 2), object), ("9", "10"), 1 - SHAPE),
    ],
)
def test_accepted_forms(given, names, values):
    images = whole({"f": given})
    assert images.spec.factors[1] == Factor("f", names)
    expected = torch.tensor(np.asarray(values))
    assert torch.equal(images.factors["f"], expected.long() if names else expected.float())


def test_a_pandas_table_of_factors():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"angle": ANGLE, "colour": COLOUR})
    splits = as_splits(Arrays(X, factors=table))
    images = prepare_whole(splits, "d").split("train")
    assert images.spec.factors == (Factor("angle"), Factor("colour", ("blue", "green", "red")))


def test_names_are_matched_across_splits():
    test = Arrays(X, Y, ("a", "b", "c"), factors={"shape": (1 - SHAPE, ["disc", "square"])})
    data = prepare_whole({"train": arrays({"shape": FACTORS["shape"]}), "test": test}, "d")
    one, other = (data.split(split).factors["shape"] for split in ("train", "test"))
    assert data.spec.factors[1].names == ("square", "disc")
    assert torch.equal(one, other)


class Items:
    """A map-style dataset with the attribute `factors`."""

    def __init__(self, factors, start=0, stop=N):
        self.x, self.factors = X[start:stop], factors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], int(Y[i])


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_dataset_has_factors_also_inside_subset_and_concat(stream):
    def cut(start, stop):
        return {
            name: (given[0][start:stop], given[1])
            if isinstance(given, tuple)
            else given[start:stop]
            for name, given in FACTORS.items()
        }

    parts = ConcatDataset([Items(cut(0, 20), 0, 20), Items(cut(20, N), 20, N)])
    chosen = [50, 3, 21]
    dataset = Subset(parts, chosen)
    images = prepare_whole({"train": dataset}, "d", DataConfig(stream=stream)).split("train")
    assert torch.equal(images.factors["angle"], torch.tensor(ANGLE).float()[chosen])
    assert images.factors["shape"].tolist() == SHAPE[chosen].tolist()
    names = images.spec.factors[-1].names
    assert [names[i] for i in images.factors["colour"]] == COLOUR[chosen].tolist()


def test_an_attribute_of_another_kind_is_announced(caplog):
    images = prepare_whole({"train": Items(3)}, "d").split("train")
    assert [*images.factors] == ["class"]
    assert "its attribute factors is no mapping and is not used" in caplog.text


def test_rounded_integers_are_announced(caplog):
    whole({"time": np.arange(N) + 2**24})
    assert "factor 'time': large integers are rounded to float32" in caplog.text


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"f": ANGLE[:-1]}, "factor 'f' has 59 values, but x has 60 examples"),
        ({"f": np.where(SHAPE, np.nan, 1.0)}, "factor 'f': 30 of 60 values are NaN or infinite"),
        ({"f": [None, *ANGLE[1:]]}, "factor 'f': some values are missing"),
        ({"f": [math.inf, *ANGLE[1:]]}, "factor 'f': 1 of 60 values is NaN or infinite"),
        ({"f": (COLOUR, ["red", "green"])}, "'blue' is not one of its names: 'red', 'green'"),
        ({"f": (Y, ["red", "green"])}, "from 0 to 2, but they must be integers from 0 to 1"),
        ({"f": (SHAPE - 1, ["red", "green"])}, "from -1 to 0, but they must be integers from 0"),
        ({"f": (ANGLE, ["red", "green"])}, "they must be integers from 0 to 1 that index its 2"),
        ({"f": (SHAPE, ["red", "red"])}, "two of its names are the same"),
        ({"f": np.zeros((N, 2))}, "factor 'f' has type float64 and shape (60, 2)"),
        ({"f": 3.0}, "factor 'f' has type float64 and shape ()"),
        ({"f": "red"}, "factor 'f' has type <U3 and shape ()"),
        ({"f": [1, "two"] * (N // 2)}, "its values are numbers and strings"),
        ({"f": np.array([1, "two"] * (N // 2), object)}, "its values are numbers and strings"),
        ({"f": RAGGED}, "its values have different shapes"),
        ({"f": [[1], [1, 2]] * (N // 2)}, "its values have different shapes"),
        ({"f": np.zeros(N, complex)}, "factor 'f' has type complex128"),
        ({"class": SHAPE}, "a factor is named 'class'"),
        ({"": SHAPE}, "a factor has no name"),
        ({"f": SHAPE, " f": SHAPE}, "two factors are named 'f'"),
        ([ANGLE], "factors is a list, but it must map names to values"),
    ],
)
def test_bad_factors_are_refused(factors, message):
    assert message in refusal(factors)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"angle": ANGLE}, "the train split has the factor 'shape', the test split does not"),
        (
            {**FACTORS, "size": ANGLE},
            "the test split has the factor 'size', the train split does not",
        ),
        ({**FACTORS, "shape": SHAPE}, "'shape' is numeric, but d, split train, factor 'shape' is"),
    ],
)
def test_splits_with_different_factors_are_refused(test, message):
    with pytest.raises(UsageError) as error:
        prepare_whole({"train": arrays(), "test": arrays(test)}, "d")
    assert message in str(error.value)


def test_parts_with_different_factors_are_refused():
    parts = ConcatDataset([Items({"angle": ANGLE}), Items(None)])
    with pytest.raises(UsageError, match="the datasets of the ConcatDataset have factors"):
        prepare_whole({"train": parts}, "d")


# ---------------------------------------------------------------- the fingerprint


def test_the_fingerprint_covers_values_and_names_of_factors():
    def fingerprint(factors, stream="never"):
        config = DataConfig(stream=stream)
        return prepare_whole({"train": arrays(factors)}, "d", config).fingerprint

    plain = fingerprint(None)
    assert fingerprint({}) == plain
    found = {
        plain,
        fingerprint({"angle": ANGLE}),
        fingerprint({"angle": ANGLE + 1}),
        fingerprint({"turn": ANGLE}),
        fingerprint({"shape": (SHAPE, ["a", "b"])}),
        fingerprint({"shape": (SHAPE, ["a", "c"])}),
    }
    assert len(found) == 6
    assert fingerprint(FACTORS) == fingerprint(FACTORS)
    assert fingerprint(FACTORS, "always").startswith("sample-")


def test_factors_are_shown_with_the_dataset(work):
    facts = Forge().describe_data(arrays())
    assert facts["factors"] == {
        "angle": [-90, 90],
        "shape": ["square", "disc"],
        "colour": ["blue", "green", "red"],
    }
    assert "factors" not in Forge().describe_data(arrays(None))


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


class Plugin:
    @hookimpl
    def latentforge_losses(self):
        yield LossSpec(
            name="angle-loss", summary="s", build=build_loss, needs={"encode"}, factors=True
        )

    @hookimpl
    def latentforge_measures(self):
        yield MeasureSpec(
            name="mean-angle",
            summary="s",
            build=lambda config, context: MeanAngle(),
            protocol="degrees, the mean over the split",
            factors=True,
            default=False,
        )


@pytest.fixture
def forge(work):
    return Forge([Plugin()])


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
    class Angle:
        @hookimpl
        def latentforge_measures(self):
            yield MeasureSpec(
                name="default-angle",
                summary="the mean angle",
                build=lambda config, context: MeanAngle(),
                protocol="degrees",
                factors=True,
            )

    forge = Forge([Angle()])
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

    class Angles:
        @hookimpl
        def latentforge_measures(self):
            for name, measure in (("one", MeanAngle), ("two", Refusing)):
                yield MeasureSpec(
                    name=name,
                    summary="the mean angle",
                    build=lambda config, context, measure=measure: measure(),
                    protocol="degrees",
                    factors=True,
                )

    forge = Forge([Angles()])
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


class Named:
    @hookimpl
    def latentforge_measures(self):
        yield MeasureSpec(
            name="mean",
            summary="s",
            build=lambda config, context: Mean(config),
            config=MeanConfig,
            protocol="the mean over the split",
        )


def test_options_that_name_a_factor_are_checked(work):
    forge = Forge([Named()])
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
