"""Views of conditional models: which label each row is under, and what they pass on."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from latentforge.latent import Given, GivenClass, given, select_rows


class Shifted(nn.Module):
    """Codes and images are shifted by the label."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def given(self, y):
        return Given(self, y)

    def encode(self, x, y):
        return SimpleNamespace(mode=lambda: x - y[:, None])

    def decode(self, z, y):
        return z + y[:, None]

    def decode_logits(self, z, y):
        return z + 10 * y[:, None]

    def prior(self, y):
        return Constant(y)

    def forward(self, x):
        return 2 * x


class Constant:
    """A prior whose codes are the labels."""

    def __init__(self, y):
        self.y = y

    def sample(self, n):
        assert n == len(self.y)
        return self.y[:, None].float()

    def log_prob(self, z):
        return z[:, 0] * self.y


Y = torch.tensor([2, 0, 1])
ROWS = torch.tensor([[0.5], [1.5], [2.5]])


def test_row_i_is_under_label_i():
    view = Shifted().given(Y)
    assert view.encode(ROWS).mode().tolist() == [[-1.5], [1.5], [1.5]]
    assert view.decode(ROWS).tolist() == [[2.5], [1.5], [3.5]]
    assert view.decode_logits(ROWS).tolist() == [[20.5], [1.5], [12.5]]
    assert view.prior().sample(3).tolist() == [[2.0], [0.0], [1.0]]


@pytest.mark.parametrize("call", ["encode", "decode", "decode_logits"])
def test_another_number_of_rows_is_refused_instead_of_broadcast(call):
    view = Shifted().given(Y[:1])
    with pytest.raises(ValueError, match=r"3 rows for 1 labels.*select_rows"):
        getattr(view, call)(ROWS)


def test_a_view_of_a_class_accepts_any_number_of_rows():
    view = GivenClass(Shifted(), torch.tensor(2))
    for count in (1, 3):
        assert torch.equal(view.encode(ROWS[:count]).mode(), ROWS[:count] - 2)
        assert torch.equal(view.decode(ROWS[:count]), ROWS[:count] + 2)
        assert torch.equal(view.decode_logits(ROWS[:count]), ROWS[:count] + 20)
        assert torch.equal(view.prior().sample(count), torch.full((count, 1), 2.0))
        assert torch.equal(view.prior().log_prob(ROWS[:count]), 2 * ROWS[:count, 0])


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (slice(1, 3), [0, 1]),
        (torch.tensor([True, False, True]), [2, 1]),
        (torch.tensor([1, 1, 2, 2]), [0, 0, 1, 1]),
    ],
)
def test_rows_of_a_view_can_be_selected_and_repeated(index, labels):
    view = select_rows(Shifted().given(Y), index)
    zeros = torch.zeros(len(labels), 1)
    assert view.decode(zeros).flatten().tolist() == labels
    assert select_rows(view, slice(0, 1)).decode(zeros[:1]).tolist() == [labels[:1]]


def test_rows_of_other_models_are_the_model():
    model = Shifted()
    one_class = GivenClass(model, torch.tensor(1))
    assert select_rows(model, slice(1)) is model
    assert select_rows(one_class, slice(1)) is one_class
    assert given(model, Y, {"encode"}) is model
    assert given(model, Y, {"conditional"}).decode(ROWS).tolist() == [[2.5], [1.5], [3.5]]


@pytest.mark.parametrize("view", [Given(Shifted(), Y), GivenClass(Shifted(), Y[0])])
def test_other_attributes_are_those_of_the_model(view):
    assert view.training
    assert [*view.parameters()] == [view.model.weight]
    assert torch.equal(view(ROWS), 2 * ROWS)
    with pytest.raises(AttributeError, match="nothing"):
        _ = view.nothing
    copied = copy.deepcopy(view)
    assert copied.model is not view.model
    assert torch.equal(copied.decode(ROWS), view.decode(ROWS))
