"""A resumed run keeps its settings, also if run.json is damaged."""

import copy

import pytest

from latentforge import Forge
from latentforge.config.changes import check_changes
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.errors import ConfigError


@pytest.fixture(scope="module")
def config():
    draft = Draft()
    draft.update("model", {"name": "ae"}, "model=")
    draft.update("train", {"epochs": 3}, "train=")
    return resolve(draft, Forge().registry)


def test_epochs_may_be_raised_but_not_lowered(config):
    stored = copy.deepcopy(config.as_dict())
    stored["train"]["epochs"] = 2
    check_changes(stored, config, {"train.epochs"})
    stored["train"]["epochs"] = 4
    with pytest.raises(ConfigError) as caught:
        check_changes(stored, config, {"train.epochs"})
    assert caught.value.details == ("train.epochs: it can be raised from 4, but not lowered to 3",)


@pytest.mark.parametrize("epochs", ["red", None, [2], True])
def test_number_of_epochs_that_is_no_number_is_refused(config, epochs):
    stored = copy.deepcopy(config.as_dict())
    stored["train"]["epochs"] = epochs
    with pytest.raises(ConfigError) as caught:
        check_changes(stored, config, {"train.epochs"})
    [line] = caught.value.details
    assert line.startswith("train.epochs: ")
    assert line.endswith(" in the run, not 3")
