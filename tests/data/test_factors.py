"""Factors: several labels for each example, from the dataset to its splits and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from latentforge import (
    Arrays,
    DataSpec,
    Factor,
    Forge,
)
from latentforge.config.schema import DataConfig
from latentforge.contracts import Batch
from latentforge.data.loading import as_splits
from latentforge.data.preparation import prepare, prepare_whole
from latentforge.errors import UsageError

from .factors import ANGLE, COLOUR, FACTORS, SHAPE, N, X, Y, arrays

RAGGED = np.array([[0], [0, 1]] * (N // 2), object)


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
        ({"f": ANGLE * 1e37}, "factor 'f': it has values up to 9e+38, which float32 cannot"),
        ({"class": SHAPE}, "a factor is named 'class'"),
        ({"": SHAPE}, "a factor has no name"),
        ({"f": SHAPE, " f": SHAPE}, "two factors are named 'f'"),
        ([ANGLE], "factors is a list, but it must map names to values"),
    ],
)
def test_bad_factors_are_refused(factors, message):
    assert message in refusal(factors)


def test_two_columns_of_one_name_are_refused():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.stack([ANGLE, SHAPE], 1), columns=["angle", "angle"])
    with pytest.raises(UsageError, match="two factors are named 'angle'"):
        as_splits(arrays(table))


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
