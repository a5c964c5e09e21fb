"""The checks of data find copies, blank images, splits that differ and labels that are wrong."""

from __future__ import annotations

import pytest
import torch

from latentforge import Forge
from latentforge.contracts import DataSpec
from latentforge.data.images import ImageSplit
from latentforge.engine.data_checks import find_blank_images, find_copies, find_shift
from latentforge.engine.learning_checks import Answers, check_answers


@pytest.fixture(scope="module")
def digits():
    """The images of the digits: 1,294 for training and 359 for the test."""
    data = Forge().load_data("digits")
    return data.split("train"), data.split("test")


def images(x):
    return ImageSplit(x, None, DataSpec(tuple(x.shape[1:]), "image" if x.ndim > 2 else "vector"))


def pixels(split):
    return split.batch(torch.arange(len(split))).x


@pytest.mark.parametrize(("count", "severity"), [(359, "warning"), (180, "warning"), (1, "note")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_copies_are_counted_for_each_type(digits, count, severity, dtype):
    train, test = (pixels(split) for split in digits)
    test = test.clone()
    test[:count] = train[100 : 100 + count]
    if dtype == torch.uint8:
        train, test = ((255 * x).round().to(torch.uint8) for x in (train, test))
    [finding] = find_copies(images(train), images(test), "test")
    assert finding.severity == severity
    assert finding.saw == f"{count} of 359 test images are also training images"


def test_other_images_and_blank_ones_are_no_copies(digits):
    train, test = digits
    assert [*find_copies(train, test, "test")] == []
    nearly = pixels(train).clone()
    nearly[:, 0, 3, 3] += 1e-6
    assert [*find_copies(train, images(nearly), "test")] == []
    blank = images(torch.zeros(50, 1, 28, 28))
    assert [*find_copies(images(torch.zeros(9, 1, 28, 28)), blank, "test")] == []


@pytest.mark.parametrize(("count", "severity"), [(300, "warning"), (2, "note"), (0, "")])
def test_blank_images_are_counted(digits, count, severity):
    x = pixels(digits[0]).clone()
    x[:count] = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    findings = [*find_blank_images(images(x), "training")]
    assert [finding.severity for finding in findings] == [severity] * bool(severity)
    assert all(f"{count} of 1294 training images have" in finding.saw for finding in findings)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda x: 1 - x, "seem to be inverted"),
        (lambda x: x.roll((2, -1), (-2, -1)), "shifted by 2 pixels down and -1 to the right"),
        (lambda x: x.roll(1, -2), "shifted by 1 pixel down and 0 to the right"),
        (lambda x: x * 0.6, "differ from the training images"),
        (lambda x: x, ""),
        (lambda x: x[:40], ""),
    ],
)
def test_the_way_in_which_a_split_differs_is_named(digits, change, how):
    train, test = digits
    findings = [*find_shift(train, images(change(pixels(test))), "test")]
    assert len(findings) == bool(how)
    assert all(how in finding.saw for finding in findings)


def test_splits_of_vectors_and_of_constant_images_have_no_offset(digits):
    train, test = (pixels(split).flatten(1) for split in digits)
    assert [*find_shift(images(train), images(test), "test")] == []
    [finding] = find_shift(images(train), images(test.roll(5, 1)), "test")
    assert "differ from the training images" in finding.saw
    constant = images(torch.full((20, 1, 4, 4), 0.5))
    assert [*find_shift(constant, constant, "test")] == []


@pytest.mark.parametrize(
    ("answers", "check", "text"),
    [
        (Answers(0.95, 0.95, 0.96, 0.1, 1.0), "", ""),
        (Answers(0.60, 0.35, 0.40, 0.1, 1.0), "", ""),  # better than neighbours, as on photos
        (Answers(0.11, 0.12, 0.30, 0.1, 1.0), "labels", "shuffled or random"),
        (Answers(0.11, 0.95, 0.11, 0.1, 1.0), "chance", "another learning rate"),
        (Answers(0.11, 0.95, 0.11, 0.1, 0.0), "chance", "a smaller train.lr"),
        (Answers(0.67, 0.66, 0.93, 0.1, 1.0), "labels", "about 28% of them seem to be wrong"),
        (Answers(1.0, 1.0, 1.0, 1.0, 1.0), "", ""),  # a single class has its own check
    ],
)
def test_answers_at_chance_and_wrong_labels_are_told_apart(answers, check, text):
    findings = [*check_answers(answers, "validation")]
    assert [finding.check for finding in findings] == [check] * bool(check)
    assert all(text in finding.attempt for finding in findings)
