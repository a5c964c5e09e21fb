from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, TensorDataset

from latentforge.config.schema import DataConfig
from latentforge.contracts import Arrays, DataSpec
from latentforge.data.images import ImageSplit
from latentforge.data.preparation import prepare
from latentforge.data.splits import DataSplits
from latentforge.errors import UsageError

DIGITS = load_digits()
BYTES = (DIGITS.images * 15).astype(np.uint8)  # (1797, 8, 8), 0 to 240
LABELS = DIGITS.target


def prepared(
    x: Any,
    y: Any = None,
    classes: Any = (),
    *,
    official: tuple[str, ...] = ("train",),
    validation: float | None = None,
    test: float | None = None,
    split_seed: int = 0,
) -> DataSplits:
    def load(split: str) -> Arrays:
        return Arrays(x, y, classes)

    return prepare(load, official, "d", DataConfig(validation, test, split_seed))


def whole(x: Any, y: Any = None, classes: Any = ()) -> ImageSplit:
    """All examples in the given order, as the unchanged test split."""
    return prepared(x, y, classes, official=("train", "test")).split("test")


# ---------------------------------------------------------------- batches


def test_a_byte_batch_is_bit_identical_to_division_by_255():
    x = np.arange(256, dtype=np.uint8).repeat(16).reshape(64, 1, 8, 8)
    images = whole(x)
    index = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    batch = images.batch(index)
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, torch.from_numpy(x)[index].float() / 255)
    assert torch.equal(batch.index, index)
    assert batch.y is None


def test_floats_reach_the_model_unchanged():
    x = torch.rand(10, 3, 5, 6)
    assert torch.equal(whole(x).batch(torch.tensor([7, 0])).x, x[[7, 0]])


def test_batches_in_order_cover_every_example_once_and_the_last_is_shorter():
    images = whole(BYTES, LABELS)
    batches = list(images.batches(500))
    assert [len(b.x) for b in batches] == [500, 500, 500, 297]
    joined = images.batch(torch.arange(1797))
    assert torch.equal(torch.cat([b.x for b in batches]), joined.x)
    assert torch.equal(torch.cat([b.y for b in batches]), joined.y)
    assert torch.equal(torch.cat([b.index for b in batches]), joined.index)


def test_a_model_that_works_in_place_does_not_change_the_data():
    for x in (BYTES[:10], torch.rand(10, 8, 8)):
        images = whole(x)
        before = images.x.clone()
        for batch in [*images.batches(4), images.batch_at([0, 1])]:
            batch.x.fill_(0.5)
        assert torch.equal(images.x, before)


def test_examples_are_selected_by_index_and_by_class():
    images = whole(BYTES, LABELS)
    indices = images.of_class(3)
    assert indices.tolist() == np.flatnonzero(LABELS == 3).tolist()
    batch = images.batch_at(indices[:4].tolist())
    assert batch.y.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("index", [-1, 1797])
def test_an_index_out_of_range_is_refused_with_the_range(index: int):
    with pytest.raises(UsageError, match=f"no image {index}: this split has 1797") as caught:
        whole(BYTES).batch_at([0, index])
    assert "0 to 1796" in caught.value.hint


def test_selecting_a_class_needs_labels_and_an_existing_class():
    with pytest.raises(UsageError, match="no labels"):
        whole(BYTES).of_class(1)
    with pytest.raises(UsageError, match="no class 10"):
        whole(BYTES, LABELS).of_class(10)


def test_images_move_between_devices_with_labels_and_spec():
    splits = prepared(BYTES, LABELS).to("meta")
    assert {i.device.type for i in splits.splits.values()} == {"meta"}
    moved = splits.split("train")
    assert moved.batch(torch.zeros(3, dtype=torch.int64, device="meta")).x.shape == (3, 1, 8, 8)
    assert moved.y.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_floats_as_the_cpu():
    images = whole(np.arange(256, dtype=np.uint8).reshape(4, 8, 8))
    index = torch.arange(4)
    assert torch.equal(images.to("cuda").batch(index.cuda()).x.cpu(), images.batch(index).x)


# ---------------------------------------------------------------- axis order and dtypes


@pytest.mark.parametrize(
    ("given", "shape", "kind"),
    [
        ((9, 8, 7), (1, 8, 7), "image"),
        ((9, 3, 8, 7), (3, 8, 7), "image"),
        ((9, 8, 7, 3), (3, 8, 7), "image"),
        ((9, 8, 7, 1), (1, 8, 7), "image"),
        ((9, 2, 8, 7), (2, 8, 7), "image"),
        ((9, 64), (64,), "vector"),
    ],
)
def test_every_axis_order_becomes_channels_first(given, shape, kind):
    x = np.random.default_rng(0).integers(0, 256, given, dtype=np.uint8)
    images = whole(x)
    assert (images.spec.shape, images.spec.kind) == (shape, kind)
    assert images.x.is_contiguous()
    if given == (9, 8, 7, 3):
        assert torch.equal(images.x[4, 2], torch.from_numpy(x[4, :, :, 2]))
    else:
        assert torch.equal(images.x.flatten(), torch.from_numpy(x).flatten())


def readonly(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "convert",
    [
        torch.from_numpy,
        readonly,
        lambda x: np.asfortranarray(x),
        lambda x: np.flip(x, 0)[::-1],
        lambda x: torch.from_numpy(x).unsqueeze(1).to(memory_format=torch.channels_last),
    ],
)
def test_the_same_bytes_in_another_container_are_the_same_data(convert: Callable[..., Any]):
    one, other = prepared(BYTES), prepared(convert(BYTES))
    assert one.fingerprint == other.fingerprint
    assert torch.equal(one.split("train").x, other.split("train").x)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, ">f4", torch.bfloat16, torch.float64]
)
def test_every_float_type_becomes_float32(dtype):
    x = DIGITS.images / 16  # sixteenths, exact in all of them
    given = torch.from_numpy(x).to(dtype) if isinstance(dtype, torch.dtype) else x.astype(dtype)
    images = whole(given)
    assert images.x.dtype == torch.float32
    assert torch.equal(images.x[:, 0].double(), torch.from_numpy(x))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, ">i8", torch.int16])
def test_every_integer_type_of_labels_becomes_int64(dtype):
    y = LABELS.astype(np.int64)
    given = torch.from_numpy(y).to(dtype) if isinstance(dtype, torch.dtype) else y.astype(dtype)
    images = whole(BYTES, given)
    assert images.y.dtype == torch.int64
    assert images.y.tolist() == LABELS.tolist()
    assert images.spec.classes == tuple("0123456789")


def test_class_names_come_from_the_dataset_and_need_labels():
    names = [f"digit {i}" for i in range(10)]
    assert whole(BYTES, LABELS, names).spec.classes == tuple(names)
    assert whole(BYTES).spec.classes == ()


def test_a_rounding_error_beyond_1_is_clamped():
    x = np.full((4, 8, 8), 1.0000001, np.float32)
    assert whole(x).x.max() == 1.0


# ---------------------------------------------------------------- map-style datasets


class Pictures(Dataset):
    """The digits as PIL images, as torchvision gives them."""

    classes = ("nought", *"123456789")

    def __init__(self, mode: str = "L") -> None:
        self.mode = mode

    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(BYTES[i]).convert(self.mode), int(LABELS[i])


def gather(dataset: Any) -> ImageSplit:
    return prepare(lambda split: dataset, ("train", "test"), "d").split("test")


def test_pil_images_are_gathered_with_labels_and_class_names():
    images = gather(Pictures())
    assert torch.equal(images.x, torch.from_numpy(BYTES[:50, None]))
    assert images.y.tolist() == LABELS[:50].tolist()
    assert images.spec.classes[0] == "nought"
    colour = gather(Pictures("RGB"))
    assert colour.spec.shape == (3, 8, 8)
    assert torch.equal(colour.x[:, 1], images.x[:, 0])


def test_tensor_datasets_are_gathered_with_and_without_labels():
    x = torch.from_numpy(BYTES[:20]).unsqueeze(1) / 255
    assert torch.equal(gather(TensorDataset(x)).x, x)
    both = gather(TensorDataset(x, torch.from_numpy(LABELS[:20])))
    assert both.y.tolist() == LABELS[:20].tolist()
    assert torch.equal(gather(list(x)).x, x)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([np.zeros((8, 8)), np.zeros((8, 9))], r"example 1 is float64 \(8, 9\)"),
        ([np.zeros((8, 8)), np.zeros((8, 8), np.uint8)], "example 1 is uint8"),
        ([(np.zeros((8, 8)), 1), np.zeros((8, 8))], "example 1 .* without a label"),
        ([(np.zeros((8, 8)), 0.5)], "1 different real numbers"),
        ([(np.zeros((8, 8)), 1, 2)], "example 0 has 3 parts"),
        ([], "no examples"),
        ((BYTES, LABELS), "load returned a tuple"),
        ({"x": BYTES}, "load returned a dict"),
        (iter(BYTES), "load returned a"),
        (None, "load returned a NoneType"),
    ],
)
def test_an_invalid_dataset_is_refused_with_its_bad_example(dataset, message):
    with pytest.raises(UsageError, match=message) as caught:
        gather(dataset)
    assert "d, split train" in caught.value.message
    assert caught.value.exit_code == 2


# ---------------------------------------------------------------- wrong data


def corrupt(*values: float) -> np.ndarray:
    x = (DIGITS.images / 16).astype(np.float32)
    x.reshape(-1)[: len(values)] = values
    return x


@pytest.mark.parametrize(
    ("x", "message", "remedy"),
    [
        (corrupt(np.nan, np.inf, np.nan), "3 of 115008 values of x are NaN or infinite", "replace"),
        (DIGITS.images, r"float64 with values in \[0, 16\]", "data.white=16$"),
        (BYTES.astype(np.float32), r"float32 with values in \[0, 240\]", "data.white=255$"),
        (DIGITS.images / 8 - 1, r"values in \[-1, 1\]", "data.black=-1 --set data.white=1$"),
        (
            corrupt(-3.0, 900.0),
            r"values in \[-3, 900\], all but 2 of 115008 in \[0, 1\]",
            r"store numpy.clip\(x, 0, 1\), if the others mark missing values$",
        ),
        (BYTES.astype(np.int64), "int64 with values in .* no value is known to be white", "=255"),
        (BYTES.astype(np.complex64), "complex64, which are not real numbers", ""),
        (BYTES[0, 0], r"x has shape \(8,\)", r"\(N, H, W\)"),
        (BYTES[None, None], r"x has shape \(1, 1, 1797, 8, 8\)", r"\(N, H, W\)"),
        (BYTES[:0], "no examples", ""),
        (BYTES[:, :0], "no examples", ""),
    ],
)
def test_invalid_pixels_are_refused_with_their_values(x, message, remedy):
    with pytest.raises(UsageError, match=message) as caught:
        prepared(x)
    assert "d, split train" in caught.value.message
    assert re.search(remedy, caught.value.hint)


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (LABELS[:-1], (), r"y has shape \(1796,\), but x has 1797"),
        (np.full((1797, 10), 0.1), (), r"y has shape \(1797, 10\)"),
        (LABELS + np.float32(0.5), (), "10 different real numbers"),
        (LABELS.astype(np.complex64), (), "y is complex64"),
        (LABELS - 1, (), "178 labels are -1"),
        (LABELS, tuple("abc"), "from 0 to 9; they must go from 0 to 2 for the 3 classes"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(y, classes, message):
    with pytest.raises(UsageError, match=message) as caught:
        prepared(BYTES, y, classes)
    assert "d, split train" in caught.value.message


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (Arrays(BYTES[:, :7], LABELS), r"shape \(1, 7, 8\).*shape \(1, 8, 8\)"),
        (Arrays(BYTES / 255, LABELS), "type float32.*type uint8"),
        (Arrays(BYTES), "labels missing.*labels present"),
        (Arrays(BYTES, LABELS, [*"abcdefghij"]), "classes"),
    ],
)
def test_a_test_split_unlike_train_is_refused(test: Arrays, message: str):
    sources = {"train": Arrays(BYTES, LABELS), "test": test}
    with pytest.raises(UsageError, match=message):
        prepare(sources.__getitem__, list(sources), "d")


# ---------------------------------------------------------------- splits


def rows(images: ImageSplit) -> list[bytes]:
    return [row.numpy().tobytes() for row in images.x]


def test_data_without_a_test_split_is_divided_into_three():
    x = np.arange(1000, dtype=np.int64).view(np.uint8).reshape(1000, 8)  # every row is unique
    splits = prepared(x, np.arange(1000) % 10)
    assert {k: len(v) for k, v in splits.splits.items()} == {
        "train": 720,
        "validation": 80,
        "test": 200,
    }
    parts = [row for images in splits.splits.values() for row in rows(images)]
    assert sorted(parts) == sorted(rows(whole(x)))
    for images in splits.splits.values():  # labels stay with their rows
        value = torch.from_numpy(images.x.numpy().view(np.int64).copy()).squeeze(1)
        assert torch.equal(value % 10, images.y)


def test_the_splits_depend_only_on_the_split_seed():
    one, same, other = (prepared(BYTES, split_seed=seed) for seed in (1, 1, 2))
    torch.rand(9)
    for name in ("train", "validation", "test"):
        assert torch.equal(one.split(name).x, same.split(name).x)
        assert not torch.equal(one.split(name).x, other.split(name).x)
    assert one.fingerprint == other.fingerprint


def test_an_official_test_split_is_unchanged_and_validation_is_from_train():
    data = {"train": Arrays(BYTES[:1500]), "test": Arrays(BYTES[1500:])}

    def prepare_with(validation: float | None) -> DataSplits:
        return prepare(data.__getitem__, list(data), "d", DataConfig(validation))

    plain, cut = prepare_with(None), prepare_with(0.1)
    assert list(plain.splits) == ["train", "test"]
    assert {k: len(v) for k, v in cut.splits.items()} == {
        "train": 1350,
        "validation": 150,
        "test": 297,
    }
    for splits in (plain, cut):
        assert torch.equal(splits.split("test").x, torch.from_numpy(BYTES[1500:, None]))
    assert plain.fingerprint == cut.fingerprint


def test_an_official_validation_split_is_used_as_it_is():
    official = ("train", "validation", "test")
    assert len(prepared(BYTES, official=official).split("validation")) == 1797
    with pytest.raises(UsageError, match="has its own validation split"):
        prepared(BYTES, official=official, validation=0.1)


@pytest.mark.parametrize("official", [("test",), (), ("train", "extra")])
def test_invalid_split_names_are_refused(official):
    with pytest.raises(UsageError, match="has the splits"):
        prepared(BYTES, official=official)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"test": 0.0}, "a test fraction of 0.0 of 10 images is 0"),
        ({"test": 0.99}, "leaves 0 for training"),
        ({"test": 0.2, "validation": 0.01}, "a validation fraction of 0.01 of 8 images is 0"),
        ({"test": 1.5}, "the test fraction is 1.5"),
        ({"test": float("nan")}, "the test fraction is nan"),
        ({"validation": -0.5}, "the validation fraction is -0.5"),
    ],
)
def test_shares_that_leave_a_split_empty_are_refused(shares, message):
    with pytest.raises(UsageError, match=message):
        prepared(BYTES[:10], **shares)


def test_an_unknown_split_suggests_the_likely_one():
    splits = prepared(BYTES)
    with pytest.raises(UsageError, match="there are train, validation, test") as caught:
        splits.split("valdation")
    assert caught.value.hint == "did you mean 'validation'?"


# ---------------------------------------------------------------- what a run stores


def test_the_fingerprint_covers_values_labels_and_class_names():
    expected = hashlib.sha256(repr(("0", "1")).encode())
    x, y = BYTES[:10], np.arange(10) % 2
    expected.update(b"train x uint8 (10, 1, 8, 8)" + x.tobytes())
    expected.update(b"train y int64 (10,)" + y.astype(np.int64).tobytes())
    assert prepared(x, y).fingerprint == expected.hexdigest()

    changed = x.copy()
    changed[3, 4, 5] ^= 1
    prints = [prepared(x, y), prepared(changed, y), prepared(x, 1 - y), prepared(x)]
    prints += [prepared(x, y, ["no", "yes"]), prepared(x / 255, y), prepared(x.reshape(10, 64), y)]
    assert len({splits.fingerprint for splits in prints}) == len(prints)


def test_the_preprocessing_describes_how_bytes_become_floats():
    splits = prepared(BYTES)
    assert splits.spec == DataSpec(shape=(1, 8, 8))
    assert json.loads(json.dumps(splits.preprocessing)) == {
        "shape": [1, 8, 8],
        "kind": "image",
        "layout": "NHW",
        "stored": "uint8",
        "black": 0.0,
        "white": 255.0,
        "divide_by": 255,
        "binarize": "none",
        "range": [0.0, 1.0],
    }
    vector = prepared(torch.rand(50, 4)).preprocessing
    assert (vector["kind"], vector["stored"], vector["divide_by"]) == ("vector", "float32", 1)


def test_more_classes_than_supported_are_refused():
    with pytest.raises(UsageError, match="70000 different values, but at most 65536 classes"):
        prepared(torch.rand(70_000, 2), torch.arange(70_000) * 2**40)


def test_surrogates_in_class_names_are_escaped():
    splits = prepared(torch.rand(20, 4), torch.arange(20) % 2, ["a\udc80", "b"])
    assert splits.spec.classes == ("a\\udc80", "b")
    "".join(splits.spec.classes).encode()
