"""Capabilities that depend on the options of a model, and those that others imply."""

from dataclasses import dataclass
from typing import Literal

import pytest

from latentforge import Forge, ModelSpec
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.errors import ConfigError
from latentforge.specs import with_implied
from tests.plugin import plugin_of


@dataclass(frozen=True)
class Config:
    """`prior` decides whether the KL has a closed form."""

    prior: Literal["normal", "learnt"] = "normal"


def provides(config: Config):
    closed_form = {"kl"} if config.prior == "normal" else {"prior"}
    return {"encode", "decode", "decode_logits", "log_prob", *closed_form}


SPEC = ModelSpec(
    name="either", summary="", build=print, config=Config, provides=provides, default_loss="elbo"
)


@pytest.mark.parametrize(
    ("provides", "implied"),
    [
        ({"encode"}, set()),
        ({"decode"}, set()),
        ({"decode", "encode"}, {"generate"}),
        ({"decode", "prior"}, {"generate"}),
        ({"kl"}, {"prior", "variational"}),
        ({"prior"}, set()),
        ({"log_prob"}, set()),
        ({"prior", "log_prob"}, {"variational"}),
    ],
)
def test_implied_capabilities(provides, implied):
    assert with_implied(provides) == provides | implied


@pytest.mark.parametrize(("prior", "has_kl"), [("normal", True), ("learnt", False)])
def test_options_decide_what_a_model_provides(prior, has_kl):
    draft = Draft()
    draft.update("model", {"name": "either", "prior": prior}, "model=")
    draft.update("loss", {"name": "reconstruction"}, "loss=")
    config = resolve(draft, Forge([plugin_of(SPEC)]).registry)
    assert ("kl" in config.model.entry.provides) is has_kl
    assert "variational" in config.model.entry.provides


def test_loss_is_refused_for_options_without_its_capability():
    forge = Forge([plugin_of(SPEC)])
    with pytest.raises(ConfigError) as caught:
        forge.train("either", loss="beta-tc", model={"prior": "learnt"})
    [line] = [line for line in caught.value.details if line.startswith("loss.name")]
    assert "needs diagonal_gaussian, kl;" in line
