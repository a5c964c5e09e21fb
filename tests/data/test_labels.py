"""Labels of every form, and that they are matched by name."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch

from latentforge import Arrays, Forge
from latentforge.data.labels import check_counts, read_labels, unite
from latentforge.errors import UsageError

NAN = float("nan")


def united(*splits):
    """Labels, classes and message of splits given as (y, classes)."""
    labels = {
        str(i): read_labels(y, len(y), classes, f"s{i}") for i, (y, classes) in enumerate(splits)
    }
    indices, names, message = unite(labels)
    return [y.tolist() for y in indices.values()], names, message


@pytest.mark.parametrize(
    ("y", "indices", "classes", "note"),
    [
        ([0, 2, 1], [0, 2, 1], ("0", "1", "2"), ""),
        (torch.tensor([1, 0]), [1, 0], ("0", "1"), ""),
        ([1, 3, 2, 1], [0, 2, 1, 0], ("1", "2", "3"), "numbers from 1 to 3"),
        ([7, 401, 7], [0, 1, 0], ("7", "401"), "numbers from 7 to 401"),
        ([-1, 1, 1], [0, 1, 1], ("-1", "1"), "numbers from -1 to 1"),
        ([1.0, 0.0, 2.0], [1, 0, 2], ("0", "1", "2"), "whole numbers stored as floats"),
        ([*np.array([1, 0, 1])], [1, 0, 1], ("0", "1"), ""),  # a list of numpy's numbers
        ([True, False], [1, 0], ("0", "1"), "False and True"),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog"), "strings"),
        (["10", "9", "10"], [1, 0, 1], ("9", "10"), "strings"),
        (np.array([b"a", b"b"]), [0, 1], ("a", "b"), "strings"),
        (np.array(["a", "b"], object), [0, 1], ("a", "b"), "strings"),
        (np.array([[1], [0]]), [1, 0], ("0", "1"), "a column (2, 1)"),
        (np.eye(4)[[3, 0]], [3, 0], ("0", "1", "2", "3"), "one-hot rows (2, 4)"),
    ],
)
def test_labels_of_every_form_are_mapped_and_announced(y, indices, classes, note):
    found, names, message = united((y, ()))
    assert (found, names) == ([indices], classes)
    assert message.startswith(f"labels are {note}; the " if note else "")
    assert bool(message) == bool(note)


def test_the_announcement_counts_the_images_of_each_class():
    message = united(([3, 8, 3], ()))[2]
    assert message == "labels are numbers from 3 to 8; the 2 classes are 3 (2), 8 (1)"


@pytest.mark.parametrize(
    ("y", "classes", "said"),
    [
        ([-1, 0, 1], (), "1 label is -1, which can be a class or mean that there is no label"),
        ([0.5, 1.0], (), "2 different real numbers in .0.5, 1., which are no classes"),
        (np.array([1.0, NAN]), (), "1 of 2 labels is NaN"),
        ([1.0, NAN], (), "1 of 2 labels is missing"),
        (np.array(["a", None], object), (), "1 of 2 labels is missing"),
        (np.array([{}, {}], object), (), "labels are dict, but they must be integers or strings"),
        (np.zeros((2, 3)), (), r"y has shape \(2, 3\), but x has 2 examples"),
        (np.zeros(2, "M8[D]"), (), "y is datetime64"),
        ([0, 3], ("a", "b", "c"), "labels go from 0 to 3; they must go from 0 to 2"),
        (["a", "z"], ("a", "b"), "'z' is no class; classes are 'a', 'b'"),
        ([0, 1], ("a", "a"), "two classes are named 'a'"),
    ],
)
def test_labels_that_can_be_understood_in_two_ways_are_refused(y, classes, said):
    with pytest.raises(UsageError, match=said):
        united((y, classes))


@pytest.mark.parametrize("count", [5, 400])
def test_the_suggestion_for_real_numbers_gives_several_classes(count):
    y = np.random.default_rng(0).random(400).round(2)[:count]
    with pytest.raises(UsageError) as caught:
        united((y, ()))
    code = caught.value.hint.partition("y = ")[2]
    indices, names, _ = united((eval(code, {"numpy": np, "y": y}), ()))
    assert len(names) >= 4
    assert min(np.bincount(indices[0])) > 0.2 * count / len(names)


@pytest.mark.parametrize("zeros", [400, 600, 900])
def test_the_suggestion_for_values_that_are_often_equal_keeps_them_together(zeros):
    y = np.concatenate([np.zeros(zeros), np.random.default_rng(0).gamma(2, 1, 1000 - zeros)])
    with pytest.raises(UsageError) as caught:
        united((y, ()))
    code = caught.value.hint.partition("y = ")[2]
    [indices], names, _ = united((eval(code, {"numpy": np, "y": y}), ()))
    assert f"for {len(names)} classes" in caught.value.hint
    assert len(names) >= 2
    assert indices.count(0) == zeros


def test_probabilities_are_refused_with_their_most_probable_class():
    y = np.random.default_rng(0).dirichlet((1, 1, 1), 9)
    with pytest.raises(UsageError, match="9 rows are not one-hot") as caught:
        united((y, ()))
    code = caught.value.hint.partition(" is ")[0]
    assert united((eval(code, {"y": y}), ()))[0] == [y.argmax(1).tolist()]


def test_numbers_from_1_index_as_many_names():
    assert united(([1, 2, 1], ("cat", "dog")))[:2] == ([[0, 1, 0]], ("cat", "dog"))


def test_the_first_number_is_decided_for_all_splits_together():
    names = ("cat", "dog", "eel")
    found, _, message = united(([1, 2, 3], names), ([1, 2], names))  # no eel in the second split
    assert found == [[0, 1, 2], [0, 1]]
    assert "numbers from 1 to 3" in message
    assert united(([0, 2], names), ([1, 2], names))[0] == [[0, 2], [1, 2]]


@pytest.mark.parametrize("dtype", ["Int64", "string", "category", object])
def test_a_missing_value_of_pandas_is_counted(dtype):
    y = pandas.Series(["0", None, "1"]).astype(dtype)
    with pytest.raises(UsageError, match=r"1 of 3 labels is (missing|NaN or infinite)"):
        united((y, ()))
    assert united((y.dropna(), ()))[0] == [[0, 1]]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            {"train": {"a": 3, "b": 0, "c": 2}, "test": {"a": 1, "b": 2, "c": 1}},
            "no training image is of class 'b'",
        ),
        ({"train": {"a": 3}}, "all 3 training images are of class 'a'"),
        ({"train": {str(i): 1 for i in range(20)}}, "each of the 20 classes has a single"),
        ({"train": {"a": 3, "b": 1}, "test": {"a": 1, "b": 0}}, "no test image is of class 'b'"),
        ({"train": {"a": 3, "b": 1}, "test": {"a": 1, "b": 2}}, ""),
    ],
)
def test_labels_that_cannot_be_learnt_are_announced(counts, said):
    warnings = check_counts(counts)
    assert len(warnings) == bool(said)
    assert all(said in warning for warning in warnings)


def test_mixed_and_ragged_labels_are_refused():
    with pytest.raises(UsageError, match="labels are int, str, but they must be"):
        united((["a", 1], ()))
    with pytest.raises(UsageError, match="rows of labels have different lengths"):
        united(([[0, 1], [1]], ()))


def test_too_many_classes_are_refused_before_they_are_sorted():
    names = [str(i) for i in range(200_000)]
    with pytest.raises(UsageError, match="200000 different values, but at most 65536"):
        united(([0, 1], names))


def test_splits_share_classes_by_name():
    found, names, _ = united(([0, 1], ("cat", "dog")), ([0, 1], ("dog", "cat")))
    assert (found, names) == ([[0, 1], [1, 0]], ("cat", "dog"))
    found, names, _ = united((["b", "a"], ()), (["c", "a"], ()))
    assert (found, names) == ([[1, 0], [2, 0]], ("a", "b", "c"))
    with pytest.raises(UsageError, match="classes have names, but s1: labels are numbers"):
        united(([0, 1], ("cat", "dog")), ([0, 1], ()))
    with pytest.raises(UsageError, match="classes have names, but s2: labels are numbers"):
        united(([0, 1], ("cat", "dog")), (["cat", "dog"], ()), ([0, 1], ()))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of ten classes with names, and its test images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, names = (digits.images * 15).astype(np.uint8), tuple(f"d{i}" for i in range(10))
    test = Arrays(x[1000:], digits.target[1000:], names)
    data = {"train": Arrays(x[:1000], digits.target[:1000], names), "test": test}
    run = Forge().train(
        "mlp-classifier",
        data=data,
        train={"epochs": 3, "batch_size": 32, "lr": 3e-3},
        run=tmp_path_factory.mktemp("named") / "run",
        quiet=True,
    )
    return run, test


def test_evaluation_matches_labels_by_name(classifier):
    run, test = classifier
    accuracy = run.metrics["test"]["accuracy"]
    assert accuracy > 0.8
    forms = {
        "other order": Arrays(test.x, 9 - test.y, test.classes[::-1]),
        "names": Arrays(test.x, [f"d{label}" for label in test.y]),
        "more names": Arrays(test.x, test.y + 1, ("none", *test.classes)),
    }
    for form, data in forms.items():
        assert run.evaluate(data={"test": data, "train": data})["accuracy"] == accuracy, form
    few = Arrays(test.x[test.y > 6], [f"d{label}" for label in test.y[test.y > 6]])
    assert run.evaluate(data={"train": few})["accuracy"] > 0.7


@pytest.mark.parametrize(
    ("y", "classes", "unknown"),
    [
        (lambda y: [f"digit {label}" for label in y], (), "'digit 0'"),
        (lambda y: y, (), "'0'"),  # names are never matched by position
        (lambda y: y, tuple("abcdefghij"), "'a'"),
    ],
)
def test_classes_that_the_run_does_not_have_are_refused(classifier, y, classes, unknown):
    run, test = classifier
    with pytest.raises(UsageError, match=f"has examples of {unknown}") as caught:
        run.evaluate(data={"train": Arrays(test.x, y(test.y), classes)})
    assert "name the classes of the data as in the run" in caught.value.hint
