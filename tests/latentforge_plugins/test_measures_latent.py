"""knn_accuracy against scikit-learn, probe_accuracy on data with a known answer."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from latentforge import LatentSpec, neighbours
from latentforge.errors import UsageError
from latentforge.latent import Point


class Codes(nn.Module):
    """The code is the example with its second value multiplied by 100."""

    latent = LatentSpec((3,))

    def encode(self, x):
        return Point(x * torch.tensor([1.0, 100.0, 1.0]))


def blobs(count: int, seed: int):
    """Return three overlapping clusters whose second coordinate is noise."""
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
def test_knn_accuracy_matches_scikit_learn(evaluate, train, test, k, chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "DISTANCES", chunk)
    scale = torch.tensor([1.0, 100.0, 1.0])
    reference = KNeighborsClassifier(k).fit((train[0] * scale).double(), train[1])
    expected = reference.score((test[0] * scale).double(), test[1])
    metrics, protocol = evaluate("knn_accuracy", Codes(), *test, train=train, knn_accuracy={"k": k})
    assert metrics["knn_accuracy"] == pytest.approx(expected, abs=1e-9)
    assert 0.4 < expected < 0.95  # neither chance nor perfect
    assert f"k={k} nearest" in protocol["knn_accuracy"]
    assert "700 examples" in protocol["knn_accuracy"]


def test_a_training_image_is_not_its_own_neighbour(evaluate, train):
    scale = torch.tensor([1.0, 100.0, 1.0])
    reference = KNeighborsClassifier(10).fit((train[0] * scale).double(), train[1])
    neighbours = reference.kneighbors(return_distance=False)  # excludes the point itself
    expected = (train[1][neighbours].mode(1).values == train[1]).double().mean()
    metrics, protocol = evaluate("knn_accuracy", Codes(), *blobs(50, 3), train=train, split="train")
    assert metrics["knn_accuracy"] == pytest.approx(float(expected))
    assert "itself left out" in protocol["knn_accuracy"]


def test_identical_splits_also_exclude_the_image_itself(evaluate, train):
    of_train, _ = evaluate("knn_accuracy", Codes(), *train, split="train")
    metrics, protocol = evaluate("knn_accuracy", Codes(), *train)  # train and test are the same
    assert metrics == of_train
    assert "itself left out" in protocol["knn_accuracy"]


def test_ties_go_to_the_first_class(evaluate):
    train = (
        torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0.4, 0, 0], [0.6, 0, 0]]),
        torch.tensor([2, 1, 1, 2]),
    )
    x = torch.tensor([[0.3, 0.0, 0.0]])
    for label, expected in ((1, 1.0), (2, 0.0)):
        metrics, _ = evaluate(
            *("knn_accuracy", Codes(), x, torch.tensor([label])),
            train=train,
            knn_accuracy={"k": 4},
        )
        assert metrics["knn_accuracy"] == expected


def test_more_neighbours_than_images_are_refused(evaluate):
    with pytest.raises(UsageError, match="k is 10, but only 9 training images"):
        evaluate("knn_accuracy", Codes(), *blobs(20, 1), train=blobs(9, 1))
    with pytest.raises(UsageError, match="k is 10, but only 9 training images"):
        evaluate("knn_accuracy", Codes(), *blobs(20, 1), train=blobs(10, 1), split="train")


def separable(count: int, seed: int):
    """Return two classes that a plane separates along the second coordinate."""
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 1] > 0.5).long()
    x[:, 1] += 0.2 * (2 * y - 1) + 0.2  # a gap
    return x / 1.4, y


def test_probe_accuracy_is_the_share_of_correct_labels(evaluate):
    x, y = separable(1100, 1)
    perfect, protocol = evaluate("probe_accuracy", Codes(), x, y, train=separable(400, 2))
    assert perfect["probe_accuracy"] == 1.0
    assert "fitted to 400 examples of the train split" in protocol["probe_accuracy"]
    assert "not converged" not in protocol["probe_accuracy"]
    y[::11] = 1 - y[::11]
    wrong, _ = evaluate("probe_accuracy", Codes(), x, y, train=separable(400, 2))
    assert wrong["probe_accuracy"] == pytest.approx(1 - 1 / 11)


def test_the_probe_is_independent_of_the_scale_of_codes(evaluate):
    class Tiny(Codes):
        def encode(self, x):
            return Point(x * 1e-3)

    def rare(count: int, seed: int):
        x, _ = separable(count, seed)
        y = (x[:, 1] > 0.9).long()
        x[:, 1] = 0.8 * x[:, 1] + 0.2 * y
        return x, y

    metrics, _ = evaluate("probe_accuracy", Tiny(), *rare(1000, 1), train=rare(1000, 2))
    assert metrics["probe_accuracy"] > 0.99


def test_the_probe_fails_on_classes_that_no_plane_separates(evaluate):
    def exclusive_or(count: int, seed: int):
        x = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
        return x, ((x[:, 0] > 0.5) ^ (x[:, 1] > 0.5)).long()

    both = "probe_accuracy knn_accuracy"
    x, y = exclusive_or(1000, 1)
    train = exclusive_or(1000, 2)

    class Unscaled(Codes):
        def encode(self, x):
            return Point(x)

    metrics, _ = evaluate(both, Unscaled(), x, y, train=train)
    assert metrics["probe_accuracy"] == pytest.approx(0.5, abs=0.08)
    assert metrics["knn_accuracy"] > 0.85


def test_a_collapsed_dimension_does_not_affect_the_probe(evaluate):
    class Collapsed(Codes):
        def encode(self, x):
            return Point(torch.stack([x[:, 1], torch.full_like(x[:, 1], 3.0)], 1))

    x, y = separable(300, 1)
    metrics, _ = evaluate("probe_accuracy", Collapsed(), x, y, train=separable(400, 2))
    assert metrics["probe_accuracy"] == 1.0


def test_a_single_class_is_refused(evaluate, test):
    x, y = blobs(30, 1)
    with pytest.raises(UsageError, match="two classes"):
        evaluate("probe_accuracy", Codes(), *test, train=(x, torch.full_like(y, 2)))
