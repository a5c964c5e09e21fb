"""Data passed in Python: what works, and what is refused with the conversion to write."""

from __future__ import annotations

import datetime
import io
import re
from pathlib import Path

import numpy as np
import pandas
import PIL
import pytest
import scipy.sparse
import sklearn.datasets
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from latentforge import Forge
from latentforge.config.schema import IN_MEMORY, DataConfig, OtherData
from latentforge.contracts import Arrays
from latentforge.data.loading import load_splits, load_whole
from latentforge.data.preparation import prepare
from latentforge.errors import ConfigError, UsageError

X = np.random.default_rng(0).integers(0, 256, (40, 6, 5), np.uint8)
Y = np.arange(40) % 2


def whole(data, **options):
    return load_whole(OtherData(None, DataConfig(**options), data=data))[0].split("train")


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        *(("1", 1), ("L", 1), ("LA", 1), ("La", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("RGBa", 3)),
        *(("CMYK", 3), ("YCbCr", 3), ("HSV", 3), ("PA", 3), ("RGBX", 3)),
    ],
)
def test_pictures_of_every_mode_are_converted_as_image_files_are(mode, channels):
    rgb = np.zeros((6, 5, 3), np.uint8)
    rgb[1:4, 1:4] = 220, 40, 90
    image = Image.fromarray(rgb)
    via = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode)
    if mode == "P":
        image = image.convert(mode, palette=Image.Palette.ADAPTIVE, colors=8)
    else:
        image = image.convert(via).convert(mode) if via else image.convert(mode)
    images = whole([image] * 4)
    assert images.spec.shape == (channels, 6, 5)
    if mode in ("P", "RGB", "RGBA", "RGBX"):
        assert np.abs(images.x[0].permute(1, 2, 0).numpy().astype(int) - rgb).max() <= 2
    if channels == 1:
        assert images.x[0, 0, 0, 0] == 0


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", np.uint16), ("F", np.float32)])
def test_pictures_with_many_levels_keep_them(mode, dtype):
    values = np.arange(30).reshape(6, 5).astype(dtype) * 100
    images = whole([Image.fromarray(values)] * 4, white=2900)
    np.testing.assert_allclose(images.x[0, 0] * 2900, values, rtol=1e-6)


def test_pictures_with_32_bits_are_not_cut_to_16():
    images = whole([Image.fromarray(np.full((6, 5), 70_000, np.int32))] * 4, white=70_000)
    assert float(images.x.min()) == 1


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        (Path("a/x.npz"), "is a path", "data={'name': 'arrays', 'path': 'a/x.npz'}"),
        (Path("images"), "is a path", "data={'name': 'folder', 'root': 'images'}"),
        (iter(X), "cannot train on a", "map-style dataset"),
        (3, "cannot train on a int", "map-style dataset"),
    ],
)
def test_what_is_no_data_is_refused_with_the_form_to_write(data, said, hint):
    with pytest.raises(UsageError) as caught:
        whole(data)
    assert said in str(caught.value)
    assert hint in caught.value.hint


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


ITEMS = [{"image": image, "label": 1} for image in X]


@pytest.mark.parametrize(
    ("data", "said", "code"),
    [
        (np.ma.masked_equal(X, 7), "values are masked", "x.filled(0)"),
        (torch.from_numpy(X[:, 0]).to_sparse(), "a sparse Tensor", "x.to_dense()"),
        (scipy.sparse.csr_matrix(X[:, 0]), "a sparse csr_matrix", "x.toarray()"),
        (Stream(), "can only be iterated", "list(dataset)"),
        (
            ITEMS,
            "a dict with the keys 'image', 'label'",
            "[(item['image'], item['label']) for item in dataset]",
        ),
    ],
)
def test_the_suggested_conversion_works(data, said, code):
    with pytest.raises(UsageError) as caught:
        whole(data)
    assert said in str(caught.value)
    assert code in caught.value.hint
    images = whole(eval(code, {"x": data, "dataset": data}))
    assert len(images) == 40


def test_a_masked_array_without_masked_values_is_read():
    assert len(whole(np.ma.masked_array(X))) == 40


class ImageFeature:
    pass


class ClassLabel:
    names = ("cat", "dog")


class Table:
    """The part of `datasets.Dataset` of Hugging Face that is used: typed columns."""

    def __init__(self, features):
        self.features, self.column_names = features, [*features]

    def __len__(self):
        return 40

    def __getitem__(self, i):
        row = {"image": Image.fromarray(X[i]), "label": int(Y[i]), "other": X[i].tolist()}
        return {name: row[name] for name in self.features}


ImageFeature.__name__ = "Image"


def test_columns_of_a_hugging_face_dataset_are_found():
    images = whole(Table({"image": ImageFeature(), "label": ClassLabel()}))
    assert images.spec.classes == ("cat", "dog")
    assert images.y.tolist() == Y.tolist()
    assert torch.equal(images.x[:, 0], torch.from_numpy(X))
    assert whole(Table({"image": ImageFeature()})).y is None
    with pytest.raises(UsageError, match=r"which column .* contains the images: label") as caught:
        whole(Table({"label": ClassLabel(), "other": ClassLabel()}))
    assert "item['image']" in caught.value.hint


def test_labels_of_every_kind_are_read_from_items():
    for labels in (["cat", "dog"], [3, 8], [torch.tensor(0), torch.tensor(1)], np.eye(2)):
        images = whole([(x, labels[i % 2]) for i, x in enumerate(X)])
        assert images.y.tolist() == Y.tolist()
    assert whole([(x, ["cat", "dog"][i % 2]) for i, x in enumerate(X)]).spec.classes == (
        "cat",
        "dog",
    )
    with pytest.raises(UsageError, match="labels are date"):
        whole([(x, datetime.date(2024, 1, 1 + i % 2)) for i, x in enumerate(X)])


def test_the_dataset_of_a_loader_is_used_and_this_is_said(caplog):
    x = torch.from_numpy(X[:, None]) / 255
    images = whole(DataLoader(TensorDataset(x, torch.from_numpy(Y)), batch_size=7, shuffle=True))
    assert torch.equal(images.x, x)
    assert "the dataset of the DataLoader is used" in caplog.text


def test_tables_of_pandas_are_vectors():
    frame = pandas.DataFrame(X[:, 0] / 255)
    assert whole((frame, pandas.Series(Y))).spec.shape == (5,)
    assert whole((frame, pandas.Series(["a", "b"] * 20))).spec.classes == ("a", "b")
    frame["kind"] = ["a", "b"] * 20
    with pytest.raises(
        UsageError, match="columns of the DataFrame are not numbers: kind"
    ) as caught:
        whole(frame)
    fix = caught.value.hint.removeprefix("data=")
    assert whole(eval(fix, {"x": frame})).y.tolist() == Y.tolist()


# ---------------------------------------------------------------- random datasets


class Flip(Dataset):
    """Each read draws from the generators of Python, numpy or torch."""

    def __init__(self, draw):
        self.draw, self.reads = draw, 0

    def __len__(self):
        return 40

    def __getitem__(self, i):
        self.reads += 1
        return X[i][:, ::-1].copy() if self.draw() < 0.5 else X[i]


DRAWS = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: np.random.rand(),
    "python": lambda: __import__("random").random(),
}


@pytest.mark.parametrize("library", DRAWS)
@pytest.mark.parametrize("workers", [0, 1])
def test_random_items_are_read_again_in_each_epoch_and_the_same_after_a_resume(
    library, workers, caplog
):
    splits = load_splits(None, DataConfig(workers=workers), Flip(DRAWS[library]))
    assert "items of this dataset are random" in caplog.text
    train, test = splits.split("train"), splits.split("test")
    assert "its items are random" in train.describe_source()
    order = [torch.randperm(len(train), generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    sort = [index.argsort() for index in order]
    first, second, again = (
        torch.cat([train.batch(part).x for part in order[i].split(10)])[sort[i]] for i in (0, 1, 0)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    once, twice = (torch.cat([b.x for b in test.batches(4)]) for _ in range(2))
    assert torch.equal(once, twice)


@pytest.mark.parametrize("turn", [True, False])
def test_random_labels_are_refused_unless_items_are_frozen(turn):
    class Rotated(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            k = int(torch.randint(4, ()))
            return (np.rot90(X[i, :5], k) if turn else X[i, :5]).copy(), k

    with pytest.raises(UsageError, match=r"the label of item .* is random") as caught:
        whole(Rotated())
    assert "'stream': 'never'" in caught.value.hint
    images = whole(Rotated(), stream="never")
    if turn:
        found = [np.rot90(X[i, :5], k) for i, k in enumerate(images.y.tolist())]
        assert np.array_equal(images.x[:, 0], found)  # each label is that of its image


def test_the_exif_orientation_of_pictures_is_applied():
    picture = Image.fromarray(X[0])
    picture.getexif()[0x0112] = 6  # turned by 90 degrees
    assert np.array_equal(whole([picture] * 4).x[0, 0], np.rot90(X[0], -1))


@pytest.mark.parametrize("seed", range(8))
def test_an_own_generator_is_noticed_even_if_it_draws_seldom(seed, caplog):
    own = np.random.default_rng(seed)

    class Seldom(Flip):
        def __getitem__(self, i):
            return np.ascontiguousarray(X[i, :, ::-1] if own.random() < 0.5 else X[i])

    load_splits(None, DataConfig(), Seldom(DRAWS["torch"]))
    assert "use a generator of the dataset" in caplog.text


def test_items_of_unusual_tensors_are_read_or_refused():
    x = torch.rand(9, 6, 5, generator=torch.Generator().manual_seed(0))
    images = whole([row.to(torch.bfloat16) for row in x])
    assert torch.allclose(images.x[:, 0], x, atol=0.01)
    with pytest.raises(UsageError, match="is a sparse tensor"):
        whole([row.to_sparse() for row in x])


def test_columns_with_other_units_are_announced(caplog):
    x = np.random.default_rng(0).random((60, 3)) * [1, 0.4, 5e4]
    load_splits(None, DataConfig(white=5e4), x)
    assert re.search(r"one column of x has 7\.\de-06 of the range of another", caplog.text)
    code = caplog.text.rpartition("x = ")[2]
    caplog.clear()
    load_splits(None, DataConfig(), eval(code, {"x": x}))
    assert caplog.text == ""


def test_columns_of_a_dataset_that_declares_its_range_are_not_announced(caplog):
    x = (np.random.default_rng(0).random((60, 3)) * [1, 0.4, 1e-3]).astype(np.float32)
    for name, values, announced in (
        (IN_MEMORY, None, True),
        ("units", None, True),
        ("units", "any", False),
        (IN_MEMORY, "any", True),
    ):
        caplog.clear()
        prepare(lambda split, values=values: Arrays(x, range=values), ("train",), name)
        assert ("of the range of another" in caplog.text) is announced


@pytest.mark.parametrize(("dtype", "mark"), [(np.uint8, 255), (np.uint16, 65535)])
def test_the_largest_integer_may_mark_missing_values(dtype, mark, caplog):
    x = (X % 10).astype(dtype)
    x[:, 0, 0] = mark
    whole(x)
    assert f"40 values are {mark} and the others go up to 9; if {mark} marks missing" in caplog.text
    caplog.clear()
    whole(np.where(X > 9, mark, 0).astype(dtype))  # a mask
    assert "marks missing" not in caplog.text


def test_random_items_can_be_frozen(caplog):
    dataset = Flip(DRAWS["torch"])
    images = whole(dataset, stream="never")
    assert torch.equal(whole(dataset, stream="never").x, images.x)  # as a resume reads them
    assert "each was read once, and this draw is used always" in caplog.text
    reads = dataset.reads
    assert torch.equal(images.batch_at([3, 4]).x, images.batch_at([3, 4]).x)
    assert dataset.reads == reads


def test_a_dataset_that_is_not_random_is_read_into_memory(caplog):
    assert whole([*X]).x.shape == (40, 1, 6, 5)
    assert caplog.text == ""


# ---------------------------------------------------------------- tables and suggestions


def test_the_columns_of_dummies_are_the_names_of_the_classes():
    names = pandas.Series(["zero", "three"] * 20)
    other_order = pandas.get_dummies(names)[["zero", "three"]]
    for table in (pandas.get_dummies(names), other_order):
        images = whole((X, table))
        assert [images.spec.classes[y] for y in images.y] == [*names]


def test_arrays_with_dummies_have_the_names_of_the_classes():
    y = pandas.get_dummies(pandas.Series(["zero", "three"] * 20))
    assert whole(Arrays(X, y)).spec.classes == ("three", "zero")


def test_one_hot_rows_of_other_widths_are_refused():
    wide, narrow = np.eye(3)[Y], np.eye(2)[Y]
    with pytest.raises(UsageError, match=r"different numbers of columns.*\[3, 2\]"):
        load_whole(OtherData(None, DataConfig(), data={"train": (X, wide), "test": (X, narrow)}))


def test_labels_in_another_order_of_the_index_are_refused():
    frame = pandas.DataFrame(X[:, 0] / 255).sample(frac=1, random_state=0)
    y = pandas.Series(Y)
    with pytest.raises(UsageError, match="the same index in different orders") as caught:
        whole((frame, y))
    code = caught.value.hint.removeprefix("data=").partition(", or ")[0]
    assert whole(eval(code, {"x": frame, "y": y})).y.tolist() == Y[frame.index].tolist()


def test_a_column_of_few_integers_is_announced(caplog):
    frame = pandas.DataFrame(X[:, 0] / 255)
    frame["diagnosis"] = Y
    assert whole(frame).spec.shape == (6,)
    assert "column 'diagnosis' of the DataFrame has only 2 different integers" in caplog.text


def follow(data, **options):
    """Return the images of the first suggestion for refused data, read as written."""
    with pytest.raises(UsageError) as caught:
        whole(data, **options)
    code = re.split(", (?:or|if) ", caught.value.hint.removeprefix("data="))[0]
    return eval(code, {"x": data, "data": data, "dataset": data, "list": list})


def test_a_column_of_labels_is_not_taken_for_a_value():
    frame = pandas.DataFrame(X[:, 0] / 255)
    frame.insert(0, "Label", Y)
    images = whole(follow(frame))
    assert images.spec.shape == (5,)
    assert images.y.tolist() == Y.tolist()
    assert whole(frame.to_numpy()).spec.shape == (6,)


def test_suggestions_for_columns_of_objects_work():
    pictures = pandas.DataFrame({"image": [Image.fromarray(x) for x in X], "kind": ["a", "b"] * 20})
    images = whole(follow(pictures))
    assert (images.spec.shape, images.spec.classes) == ((1, 6, 5), ("a", "b"))
    holes = pandas.DataFrame({0: [None, 1.0] * 20, 1: [0.5] * 40}, dtype=object)
    assert whole(follow(holes)).x[:2].tolist() == [[0, 0.5], [1, 0.5]]


@pytest.mark.parametrize(
    ("item", "classes"),
    [
        (lambda i: {"img": X[i], "lbl": ("a", "b")[i % 2]}, ("a", "b")),
        (lambda i: {"x": torch.from_numpy(X[i]), "label": i % 2, "id": i}, ("0", "1")),
    ],
)
def test_suggestions_for_dicts_name_their_keys(item, classes):
    images = whole(follow([item(i) for i in range(40)]))
    assert (images.spec.classes, images.y.tolist()) == (classes, Y.tolist())


def objects(images):
    array = np.empty(len(images), object)
    array[:] = images
    return array


PICTURES = [Image.fromarray(x) for x in X]


@pytest.mark.parametrize("data", [tuple(X), objects(PICTURES), pandas.Series(PICTURES)])
def test_images_in_other_containers_are_converted_as_suggested(data):
    assert whole(follow(data)).spec.shape == (1, 6, 5)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_paths_and_bytes_are_read_as_suggested(tmp_path, as_bytes, labels):
    path = tmp_path / "0.png"
    Image.fromarray(X[0]).save(path)
    item = path.read_bytes() if as_bytes else str(path)
    data = [(item, i % 2) if labels else item for i in range(9)]
    with pytest.raises(UsageError, match="not an image") as caught:
        whole(data)
    code = caught.value.hint.removeprefix("data=").partition(", if ")[0]
    images = whole(eval(code, {"data": data, "PIL": PIL, "numpy": np, "io": io}))
    assert np.array_equal(images.x[0, 0], X[0])


def test_a_column_of_pandas_is_a_label_of_each_image():
    names = np.array(["b", "a"])[Y]
    images = whole((X, pandas.DataFrame({"label": names})))
    assert [images.spec.classes[y] for y in images.y] == names.tolist()


def test_labels_before_images_are_refused_with_the_order_to_write():
    data = [(int(y), x) for x, y in zip(X, Y, strict=True)]
    with pytest.raises(UsageError, match="is a int and an image, in this order") as caught:
        whole(data)
    images = whole(eval(caught.value.hint.removeprefix("data="), {"data": data}))
    assert np.array_equal(images.x[:, 0], X)
    assert images.y.tolist() == Y.tolist()


def test_other_names_of_splits_are_refused_with_the_usual_ones():
    data = {"train": X, "val": X[:9], "testing": X[9:]}
    with pytest.raises(UsageError, match="no such split 'testing'") as caught:
        whole(data)
    splits = load_splits(None, DataConfig(), eval(caught.value.hint[5:], {"data": data}))
    assert {name: len(images) for name, images in splits.splits.items()} == {
        "train": 40,
        "validation": 9,
        "test": 31,
    }


@pytest.mark.parametrize(
    ("name", "code"), [("./a", "'folder', 'root'"), ("a.npz", "'arrays', 'path'")]
)
def test_a_path_as_data_is_refused_with_the_form_of_python(name, code):
    with pytest.raises(ConfigError) as caught:
        Forge().train("ae", data=name)
    assert f"try data={{'name': {code}: {name!r}}}" in caught.value.details[0]


def test_splits_with_other_orders_or_types_are_refused_with_what_to_do():
    data = {"train": X[:, None], "test": X[..., None]}
    whole(data)  # (1, 6, 5) and (6, 5, 1) have one reading each
    with pytest.raises(UsageError) as caught:
        whole(
            {"train": np.zeros((9, 2, 6, 6), np.uint8), "test": np.zeros((9, 6, 2, 6), np.uint8)},
            layout="NCHW",
        )
    assert caught.value.hint == "give the axes of all splits in the same order"
    with pytest.raises(UsageError) as caught:
        whole({"train": X, "test": X / 255})
    assert "x.astype('uint8') for this split if it goes from 0 to 255" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        whole({"train": X / 255, "test": X})
    code = caught.value.hint.partition(" for this split")[0]
    assert whole({"train": X / 255, "test": eval(code, {"x": X})}).x.max() == 1


@pytest.mark.parametrize("share", [0.05, 0.55, 0.95])
@pytest.mark.parametrize("mark", [-9999, -1, 5])
def test_marks_are_recognised_however_near_and_frequent_they_are(mark, share):
    x = np.random.default_rng(0).random((60, 8, 8))
    marked = np.where(np.random.default_rng(1).random(x.shape) < share, mark, x)
    with pytest.raises(UsageError) as caught:
        whole(marked)
    assert f"all but {(marked == mark).sum()} of {x.size} in" in caught.value.message
    code = caught.value.hint.partition(", if the others")[0]
    assert code.startswith("numpy.clip")
    valid = marked[marked != mark]
    clipped = eval(code, {"numpy": np, "x": marked})
    assert clipped.min() == pytest.approx(valid.min(), abs=1e-5)
    assert clipped.max() == pytest.approx(valid.max(), abs=1e-5)


def test_palettes_of_paths_are_read_as_colours_as_suggested(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 3, (6, 5, 3), dtype=np.uint8) * 100
    Image.fromarray(rgb).quantize().save(tmp_path / "0.png")
    data = [str(tmp_path / "0.png")] * 9
    with pytest.raises(UsageError, match="not an image") as caught:
        whole(data)
    code = caught.value.hint.removeprefix("data=").partition(", if ")[0]
    assert whole(eval(code, {"data": data, "PIL": PIL})).spec.shape == (3, 6, 5)


def test_mixed_images_and_labels_are_named_as_the_cause():
    class Mixup:
        def __len__(self):
            return len(X)

        def __getitem__(self, index):
            share = torch.rand(()).item()
            return X[index] * share, np.array([share, 1 - share])

    with pytest.raises(UsageError, match="is random") as caught:
        whole(Mixup())
    assert caught.value.hint == "give the dataset without the mixing of images and labels"


def test_a_dataset_of_scikit_learn_is_refused_with_the_pair_to_write():
    digits = sklearn.datasets.load_digits()
    with pytest.raises(UsageError, match="no such split") as caught:
        whole(digits)
    pair = eval(caught.value.hint.removeprefix("data="), {"data": digits})
    images = whole(pair, white=16.0)
    assert np.array_equal(images.y, digits.target)
    assert images.spec.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"x": X}, "data=data['x']"),
        ({"pixels": X, "y": Y, "weight": Y}, "data=(data['pixels'], data['y'])"),
        ({"first": X, "second": X}, "data={'train': x, 'test': x_test}"),
        ({"a": [1]}, "data={'train': x, 'test': x_test}"),
    ],
)
def test_mappings_without_splits_are_refused_with_the_data_to_write(data, hint):
    with pytest.raises(UsageError, match="no such split") as caught:
        whole(data)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("item", "said"),
    [(((X[0], X[1]), 0), "is a tuple of 2 arrays"), ((X[0], X[1]), "the label of example 0 is an")],
)
def test_pairs_of_images_are_refused(item, said):
    with pytest.raises(UsageError, match=said) as caught:
        whole([item] * 9)
    code = caught.value.hint.partition("data=")[2].partition(", or ")[0]
    assert whole(eval(code, {"data": [item] * 9})).spec.shape == (1, 6, 5)


def test_suggested_levels_keep_labels_splits_and_options():
    x, y = X.astype(np.float32), Y
    data = {"train": (x, y), "test": (x, y)}
    with pytest.raises(UsageError) as caught:
        load_splits(None, DataConfig(layout="NHW"), data)
    code = caught.value.hint.removeprefix("data=")
    given = eval(code, {"x": x, "y": y, "x_test": x, "y_test": y})
    assert given == data | {"layout": "NHW", "white": 255.0}


def test_values_with_a_range_above_the_largest_number_are_refused():
    with pytest.raises(UsageError, match="whose difference is too large"):
        whole(np.array([[-1e308, 1e308]] * 9))


def test_a_single_image_needs_a_test_split_of_its_own():
    with pytest.raises(UsageError, match="of 1 image is 0") as caught:
        load_splits(None, DataConfig(), X[:1])
    assert caught.value.hint.startswith("give images for the test split")
    with pytest.raises(UsageError) as caught:
        load_splits(None, DataConfig(), X[:3])
    given = eval(caught.value.hint.removeprefix("data=").partition("}, or")[0] + "}", {"x": X[:3]})
    splits = load_splits(None, DataConfig(validation=given["validation"]), given["train"])
    assert {name: len(images) for name, images in splits.splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 1
    )
