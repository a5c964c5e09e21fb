"""knn_accuracy against scikit-learn, probe_accuracy where the answer is known."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from latentforge import LatentSpec, neighbours
from latentforge.errors import UsageError
from latentforge.latent import Point


class Codes(nn.Module):
    """A code is the example itself, the second number a hundred times as large."""

    latent = LatentSpec((3,))

    def encode(self, x):
        return Point(x * torch.tensor([1.0, 100.0, 1.0]))


def blobs(count: int, seed: int):
    """Three overlapping clouds; the second coordinate is noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=generator)
    x = torch.rand(count, 3, generator=generator) * torch.tensor([0.5, 0.01, 0.5])
    x[:, 0] += 0.2 * y
    return x, y


@pytest.fixture
def train():
    return blobs(700, 1)


@pytest.fixture
def test():
    return blobs(1203, 2)  # two batches


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("chunk", [2**22, 5000])
def test_knn_accuracy_is_that_of_scikit_learn(measured, train, test, k, chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "DISTANCES", chunk)
    scale = torch.tensor([1.0, 100.0, 1.0])
    reference = KNeighborsClassifier(k).fit((train[0] * scale).double(), train[1])
    expected = reference.score((test[0] * scale).double(), test[1])
    figures, protocol = measured("knn_accuracy", Codes(), *test, train=train, knn_accuracy={"k": k})
    assert figures["knn_accuracy"] == pytest.approx(expected, abs=1e-9)
    assert 0.4 < expected < 0.95  # neither chance nor perfect
    assert f"k={k} nearest" in protocol["knn_accuracy"]
    assert "700 images" in protocol["knn_accuracy"]


def test_a_training_image_is_not_its_own_neighbour(measured, train):
    scale = torch.tensor([1.0, 100.0, 1.0])
    reference = KNeighborsClassifier(10).fit((train[0] * scale).double(), train[1])
    neighbours = reference.kneighbors(return_distance=False)  # of the fitted points, without each
    expected = (train[1][neighbours].mode(1).values == train[1]).double().mean()
    figures, protocol = measured("knn_accuracy", Codes(), *blobs(50, 3), train=train, split="train")
    assert figures["knn_accuracy"] == pytest.approx(float(expected))
    assert "itself left out" in protocol["knn_accuracy"]


def test_data_without_splits_of_its_own_is_left_out_image_by_image_too(measured, train):
    of_train, _ = measured("knn_accuracy", Codes(), *train, split="train")
    figures, protocol = measured("knn_accuracy", Codes(), *train)  # train and test are the same
    assert figures == of_train
    assert "itself left out" in protocol["knn_accuracy"]


def test_between_classes_with_as_many_votes_the_first_wins(measured):
    train = (
        torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0.4, 0, 0], [0.6, 0, 0]]),
        torch.tensor([2, 1, 1, 2]),
    )
    x = torch.tensor([[0.3, 0.0, 0.0]])
    for label, expected in ((1, 1.0), (2, 0.0)):
        figures, _ = measured(
            *("knn_accuracy", Codes(), x, torch.tensor([label])),
            train=train,
            knn_accuracy={"k": 4},
        )
        assert figures["knn_accuracy"] == expected


def test_more_neighbours_than_images_are_refused(measured):
    with pytest.raises(UsageError, match="k is 10, but only 9 training images"):
        measured("knn_accuracy", Codes(), *blobs(20, 1), train=blobs(9, 1))
    with pytest.raises(UsageError, match="k is 10, but only 9 training images"):
        measured("knn_accuracy", Codes(), *blobs(20, 1), train=blobs(10, 1), split="train")


def labelled(count: int, seed: int):
    """Classes on the two sides of a plane that only the second coordinate, a small one, crosses."""
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 1] > 0.5).long()
    x[:, 1] += 0.2 * (2 * y - 1) + 0.2  # a gap
    return x / 1.4, y


def test_the_probe_reads_what_a_plane_separates_and_is_as_wrong_as_the_labels(measured):
    x, y = labelled(1100, 1)
    perfect, protocol = measured("probe_accuracy", Codes(), x, y, train=labelled(400, 2))
    assert perfect["probe_accuracy"] == 1.0
    assert "fitted to 400 images of the train split" in protocol["probe_accuracy"]
    assert "not converged" not in protocol["probe_accuracy"]
    y[::11] = 1 - y[::11]
    wrong, _ = measured("probe_accuracy", Codes(), x, y, train=labelled(400, 2))
    assert wrong["probe_accuracy"] == pytest.approx(1 - 1 / 11)


def test_the_scale_of_the_codes_is_nothing_to_the_probe(measured):
    class Tiny(Codes):
        def encode(self, x):
            return Point(x * 1e-3)

    def rare(count: int, seed: int):
        x, _ = labelled(count, seed)
        y = (x[:, 1] > 0.9).long()
        x[:, 1] = 0.8 * x[:, 1] + 0.2 * y
        return x, y

    figures, _ = measured("probe_accuracy", Tiny(), *rare(1000, 1), train=rare(1000, 2))
    assert figures["probe_accuracy"] > 0.99


def test_the_probe_cannot_read_what_no_plane_separates(measured):
    def exclusive_or(count: int, seed: int):
        x = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
        return x, ((x[:, 0] > 0.5) ^ (x[:, 1] > 0.5)).long()

    both = "probe_accuracy knn_accuracy"
    x, y = exclusive_or(1000, 1)
    train = exclusive_or(1000, 2)

    class Plain(Codes):
        def encode(self, x):
            return Point(x)

    figures, _ = measured(both, Plain(), x, y, train=train)
    assert figures["probe_accuracy"] == pytest.approx(0.5, abs=0.08)
    assert figures["knn_accuracy"] > 0.85


def test_a_collapsed_dimension_does_not_disturb_the_probe(measured):
    class Collapsed(Codes):
        def encode(self, x):
            return Point(torch.stack([x[:, 1], torch.full_like(x[:, 1], 3.0)], 1))

    x, y = labelled(300, 1)
    figures, _ = measured("probe_accuracy", Collapsed(), x, y, train=labelled(400, 2))
    assert figures["probe_accuracy"] == 1.0


def test_one_class_is_nothing_to_probe(measured, test):
    x, y = blobs(30, 1)
    with pytest.raises(UsageError, match="two classes"):
        measured("probe_accuracy", Codes(), *test, train=(x, torch.full_like(y, 2)))
