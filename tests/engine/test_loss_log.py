"""The loss terms of several steps, fetched from the device at once."""

from __future__ import annotations

import json
import math

import pytest
import torch

from latentforge.contracts import Terms
from latentforge.engine.loss_log import LossLog
from latentforge.errors import RunFailed


def add(history, value, images):
    terms = Terms({"recon": torch.tensor(value), "kl": torch.tensor(1.0)}, {"kl": 0.5})
    history.add(terms, images)


def read(history, step):
    history.fetch(step)
    return history.read()


def test_means_are_weighted_by_images_not_batches():
    history = LossLog()
    add(history, 10.0, 30)
    add(history, 40.0, 10)
    assert read(history, 2) == {"loss": 18.0, "recon": 17.5, "kl": 1.0, "kl_weight": 0.5}


def test_a_changing_weight_is_averaged_like_its_term():
    history = LossLog()
    for weight, images in ((0.0, 10), (0.5, 30)):
        terms = Terms({"recon": torch.tensor(1.0), "kl": torch.tensor(2.0)}, {"kl": weight})
        history.add(terms, images)
    assert read(history, 2)["kl_weight"] == 0.375
    assert history.close_epoch()[0]["kl_weight"] == 0.375


def test_an_epoch_covers_every_read_since_the_last_epoch():
    history = LossLog()
    add(history, 10.0, 1)
    read(history, 1)
    add(history, 20.0, 3)
    read(history, 2)
    assert history.close_epoch()[0]["recon"] == pytest.approx(17.5)
    add(history, 5.0, 1)
    read(history, 3)
    assert history.close_epoch()[0]["recon"] == 5.0


def test_reading_twice_gives_each_step_once():
    history = LossLog()
    add(history, 1.0, 1)
    assert read(history, 1)["recon"] == 1.0
    assert read(history, 1) == {}


@pytest.mark.parametrize(("bad", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_the_first_step_that_is_not_finite_is_named(bad, word):
    history = LossLog()
    for value in (1.0, 2.0):
        add(history, value, 1)
    read(history, 2)
    for value in (3.0, bad, bad):
        add(history, value, 1)
    with pytest.raises(RunFailed, match=f"became {word} at step 4 "):
        read(history, 5)


def test_a_term_of_weight_zero_may_be_nan():
    history = LossLog()
    terms = Terms({"a": torch.tensor(2.0), "b": torch.tensor(float("nan"))}, {"b": 0.0})
    history.add(terms, 3)
    means = read(history, 1)
    assert (means["loss"], means["a"]) == (2.0, 2.0)
    assert means["b"] != means["b"]


def test_each_step_uses_its_own_weights():
    history = LossLog()
    for weight in (0.0, 1.0, 2.0):
        history.add(Terms({"a": torch.tensor(1.0), "b": torch.tensor(4.0)}, {"b": weight}), 1)
    assert read(history, 3) == {"loss": 5.0, "a": 1.0, "b": 4.0, "b_weight": 1.0}


def test_means_are_bit_identical_after_frequent_reads_and_restarts():
    torch.manual_seed(0)
    unread, watched = LossLog(), LossLog()
    for i in range(60):
        values = {"recon": 100 * torch.rand(()), "kl": torch.rand(())}
        step = Terms(values, {"kl": 0.5 + i / 7}, {"kl": torch.rand(3)})
        for history in (unread, watched):
            history.add(step, 10 + i % 13)
        watched.fetch(i + 1)
        tensors, facts = watched.state()
        watched = LossLog()
        watched.restore(tensors, json.loads(json.dumps(facts)), torch.device("cpu"))
    assert [*read(watched, 60).items()] == [*read(unread, 60).items()]
    for ours, theirs in zip(watched.close_epoch(), unread.close_epoch(), strict=True):
        assert [*ours.items()] == [*theirs.items()]


def test_a_nan_sum_survives_a_restart():
    history, again = LossLog(), LossLog()
    values = {"recon": torch.tensor(2.0), "kl": torch.tensor(float("nan"))}
    history.add(Terms(values, {"kl": 0.0}), 3)
    history.fetch(1)
    again.restore(*history.state(), torch.device("cpu"))
    means = read(again, 1)
    assert means["loss"] == 2.0
    assert math.isnan(means["kl"])
