"""What a dataset says about its items: classes, targets and files, also through wrappers."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, SubsetRandomSampler

from latentforge.config.schema import DataConfig, OtherData
from latentforge.contracts import Arrays
from latentforge.data.loading import load_whole
from latentforge.errors import UsageError

X = np.random.default_rng(0).integers(0, 256, (40, 6, 5), np.uint8)


class Named:
    """Items with an attribute for each: `classes` are in either order, labels accordingly."""

    def __init__(self, classes=("dark", "light"), flip=False, kind=list):
        self.classes = list(classes)
        self.names = [("dark", "light")[i % 2] for i in range(40)]
        self.targets = kind([self.classes.index(name) for name in self.names])
        self.files = [f"{i}.png" for i in range(40)]
        self.flip = flip

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return X[i], 1 - self.targets[i] if self.flip else self.targets[i]


def whole(data, **options):
    return load_whole(OtherData(None, DataConfig(**options), data=data))[0].split("train")


KINDS = [list, np.array, torch.tensor]
FORMS = {
    "array": np.array,
    "index": pandas.Index,
    "series": pandas.Series,
    "bytes": lambda names: [name.encode() for name in names],
    "names by number": lambda names: dict(enumerate(names)),
    "numbers by name": lambda names: {name: i for i, name in enumerate(names)},
    "keys": lambda names: dict.fromkeys(names).keys(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("attribute", ["classes", "class_names", "class_to_idx"])
def test_names_of_classes_may_have_any_form(form, attribute):
    named = Named(["light", "dark"])
    named.classes, names = None, form(named.classes)
    setattr(named, attribute, names)
    images = whole(named)
    assert images.spec.classes == ("light", "dark")
    assert [images.spec.classes[y] for y in images.y] == named.names
    if attribute == "classes":
        assert whole(Arrays(X, np.array(named.targets), names)).spec == images.spec


@pytest.mark.parametrize("classes", ["abcd", len, {"a": "b"}, [None, 1.5], 3])
def test_classes_that_are_no_names_are_announced(classes, caplog):
    named = Named()
    named.classes = classes
    assert whole(named).spec.classes == ("0", "1")
    assert "its classes are no list of names and are not used" in caplog.text


def test_classes_that_contradict_their_numbers_are_refused():
    named = Named(["light", "dark"])
    named.class_to_idx = {"dark": 0, "light": 1}
    with pytest.raises(UsageError, match="but its class_to_idx numbers"):
        whole(named)
    named.class_to_idx = {"light": 0, "bright": 0, "dark": 1}  # synonyms
    assert whole(named).spec.classes == ("light", "dark")


def test_classes_inside_another_dataset_are_announced(caplog):
    class Wrapper:
        def __init__(self):
            self.dataset = Named(["light", "dark"])

        def __len__(self):
            return 40

        def __getitem__(self, i):
            return self.dataset[i]

        def set_epoch(self, epoch):
            raise AssertionError

    assert whole(Wrapper()).spec.classes == ("0", "1")
    assert "the classes of the dataset in it are not used: ['light', 'dark']" in caplog.text
    assert "set_epoch of this dataset is not called" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_subset_keeps_classes_labels_and_files(stream, kind, caplog):
    places = [7, 2, 9, 30]
    named = Named(["light", "dark"], kind=kind)
    images = whole(Subset(Subset(named, range(40)), places), stream=stream)
    assert "targets" not in caplog.text
    assert images.spec.classes == ("light", "dark")
    assert [images.spec.classes[y] for y in images.y] == ["light", "dark", "light", "dark"]
    assert images.files == [f"{i}.png" for i in places]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_concat_dataset_keeps_common_classes(stream, kind):
    named = Named(kind=kind)
    images = whole(ConcatDataset([named, Subset(named, [3, 4])]), stream=stream)
    assert images.spec.classes == ("dark", "light")
    assert images.y.tolist() == [i % 2 for i in [*range(40), 3, 4]]
    assert images.files[-2:] == ["3.png", "4.png"]


def test_a_concat_dataset_with_other_orders_of_classes_is_refused():
    dataset = ConcatDataset([Named(), Named(["light", "dark"])])
    with pytest.raises(UsageError, match="have different classes") as caught:
        whole(dataset)
    assert "iter" not in vars(Named)  # it has no end if it is iterated
    code = caught.value.hint.removeprefix("data=")
    images = whole(eval(code, {"dataset": dataset}))
    assert [images.spec.classes[y] for y in images.y] == ["dark", "light"] * 40


@pytest.mark.parametrize("stream", ["never", "always"])
def test_labels_are_those_of_the_items_if_targets_differ(stream, caplog):
    images = whole(Named(flip=True), stream=stream)
    assert images.y.tolist() == [1 - i % 2 for i in range(40)]
    assert ("its `targets` are not the labels" in caplog.text) == (stream == "always")


def test_random_items_have_the_labels_of_their_items():
    class Noisy(Named):
        def __getitem__(self, i):
            return torch.rand(6, 5), super().__getitem__(i)[1]

    assert whole(Noisy(flip=True)).y.tolist() == [1 - i % 2 for i in range(40)]


def test_samples_name_the_files_as_in_an_image_folder():
    dataset = Named()
    dataset.samples = [(f"cat/{i}.png", 0) for i in range(40)]
    del dataset.files
    assert whole(dataset).files[3] == "cat/3.png"


@pytest.mark.parametrize("samples", [X, [1, 2, 3], [{"a": 1}] * 40, len])
def test_samples_that_are_no_listing_are_ignored(samples):
    dataset = Named()
    dataset.samples = samples
    del dataset.files
    assert whole(dataset).files is None


def test_the_items_of_a_sampler_are_used(caplog):
    images = whole(DataLoader(Named(), sampler=SubsetRandomSampler([8, 3, 5])))
    assert np.array_equal(images.x[:, 0], X[[3, 5, 8]])
    assert "draws from 3 items" in caplog.text


def test_a_sampler_with_unknown_items_is_refused():
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 40, 10)
    with pytest.raises(UsageError, match="WeightedRandomSampler are not known") as caught:
        whole(DataLoader(Named(), sampler=sampler))
    loader = DataLoader(Named(), sampler=sampler)
    assert len(
        whole(eval(caught.value.hint.split("=", 1)[1].split(" for ")[0], {"loader": loader}))
    )


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": torch.utils.data.SequentialSampler(range(5))},
        {"sampler": torch.utils.data.RandomSampler(range(40), num_samples=5)},
    ],
)
def test_a_sampler_of_other_items_is_refused(options):
    with pytest.raises(UsageError, match="are not known"):
        whole(DataLoader(Named(), **options))


def test_the_sampler_of_a_batch_sampler_is_used():
    sampler = torch.utils.data.BatchSampler(SubsetRandomSampler([3, 1, 2]), 2, False)
    assert np.array_equal(whole(DataLoader(Named(), batch_sampler=sampler)).x[:, 0], X[1:4])


@pytest.mark.parametrize("stream", ["auto", "never"])
def test_an_own_generator_is_announced(caplog, stream):
    class Own(Named):
        draw = np.random.default_rng(0)

        def __getitem__(self, i):
            return self.draw.random((6, 5)), 0

    whole(Own(), stream=stream)
    assert "use a generator of the dataset" in caplog.text
    assert "always uses the same draw" not in caplog.text
