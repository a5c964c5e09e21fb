"""The options, shape, data and runs that are given to `plugins check`."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from latentforge import Forge
from latentforge.conformance.inputs import read_inputs, read_shape
from latentforge.errors import ConfigError, UsageError

from . import twins
from .test_examples import offering


@dataclass(frozen=True)
class Inner:
    """`steps` is a number."""

    steps: int = 1


@dataclass(frozen=True)
class Options:
    """`size` and `inner` are options."""

    size: int = 3
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def checked():
    """A registry, and the components of a plugin with a model and a loss of the same name."""
    plugin = twins.plugin("models", twins.model(config=Options))
    plugin.latentforge_losses = offering("losses", twins.loss())
    plugin.latentforge_datasets = offering("datasets", twins.dataset(name="noise"))
    plugin.latentforge_explorers = offering(
        "explorers", twins.explorer(name="look.at", roles={"judge": {"classify"}})
    )
    registry = Forge([plugin]).registry
    return registry, registry.entries_of(registry.plugin("twin"))


def options_of(checked, *texts):
    return read_inputs(*checked, texts).options


def test_options_are_given_by_kind_and_by_name(checked):
    assert options_of(checked, "model.size=2", "loss.size=4") == {
        ("models", "twin/good"): {"size": 2},
        ("losses", "twin/good"): {"size": 4},
    }
    assert options_of(checked, "look.at.size=5", "noise.size=6") == {
        ("explorers", "twin/look.at"): {"size": 5},
        ("datasets", "twin/noise"): {"size": 6},
    }
    assert options_of(checked, "twin/look.at.size=5") == options_of(checked, "look.at.size=5")
    assert options_of(checked, "model.inner.steps=7") == {
        ("models", "twin/good"): {"inner": {"steps": 7}}
    }
    assert options_of(checked, "dataset.binarize=threshold") == {
        ("datasets", "twin/noise"): {"binarize": "threshold"}
    }


def test_options_of_a_default_loss_are_given_too(checked):
    assert options_of(checked, "elbo.likelihood=gaussian", "elbo.sigma=0.5") == {
        ("losses", "elbo"): {"likelihood": "gaussian", "sigma": 0.5}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=2", "write COMPONENT.KEY=VALUE"),
        ("model.size", "write COMPONENT.KEY=VALUE"),
        ("good.size=2", "has 2 meanings; write loss.size or model.size"),
        ("modle.size=2", "no component 'modle' is checked; did you mean 'model'"),
        ("vae.latent_dim=2", "no component 'vae' is checked"),
        ("model.sise=2", "no such option of model 'good'; did you mean 'size'"),
        ("look.at.width=2", "no such option of explorer 'look.at'; options: size"),
        ("model.size=wide", "model.size: must be a valid integer"),
        ("dataset.binarize=perhaps", "binarize"),
    ],
)
def test_option_that_no_component_has_is_refused(checked, text, message):
    with pytest.raises(ConfigError) as caught:
        options_of(checked, text)
    assert message in str(caught.value)


def test_every_wrong_option_is_listed(checked):
    with pytest.raises(ConfigError) as caught:
        options_of(checked, "model.sise=2", "loss.sise=2")
    assert len(caught.value.details) == 2


def test_shape_is_that_of_an_image_a_signal_or_a_vector():
    assert read_shape("1,1,64") == (1, 1, 64)
    assert read_shape("2, 64") == (2, 64)
    assert read_shape("12") == (12,)
    for text in ("", "1,1,8,8", "1,0,3", "1x28x28", "1,,3", "-1"):
        with pytest.raises(UsageError, match="is not the shape of one example"):
            read_shape(text)


def test_data_and_its_options(checked):
    inputs = read_inputs(*checked, ["data.binarize=threshold"], data="digits")
    assert (inputs.data, inputs.data_options) == ("digits", {"binarize": "threshold"})
    with pytest.raises(UsageError, match="the dataset of --data, which is not given"):
        read_inputs(*checked, ["data.binarize=threshold"])
    with pytest.raises(ConfigError, match="binarise"):
        read_inputs(*checked, ["data.binarise=threshold"], data="digits")
    with pytest.raises(ConfigError, match="digit"):
        read_inputs(*checked, data="digit")
    with pytest.raises(UsageError, match="two kinds of data"):
        read_inputs(*checked, data="digits", shape="1,8,8")


def test_runs_must_fit_a_role(checked, work):
    train = {"epochs": 1, "threads": 1, "device": "cpu"}
    run = Forge().train("ae", data="digits", train=train, run="run", quiet=True)
    with pytest.raises(UsageError, match="no checked component has a role 'juge'"):
        read_inputs(*checked, roles={"juge": run.path})
    with pytest.raises(UsageError, match=r"role 'judge' of explorer 'look\.at' needs classify"):
        read_inputs(*checked, roles={"judge": run.path})
