"""Capabilities that depend on the options of a model, and those that others imply."""

from dataclasses import dataclass, replace
from typing import Literal

import pytest

from latentforge import Forge, LossSpec, ModelSpec, Role
from latentforge.config.capabilities import check_capabilities, find_option
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.config.selection import merge_roles, suggest_run
from latentforge.errors import ConfigError, UsageError
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


@dataclass(frozen=True)
class Switched:
    """There is a prior if it is a flow, which `latent_dim` restricts, or with `has_prior`."""

    latent_dim: int = 1
    kind: Literal["point", "flow"] | None = None
    has_prior: bool = False

    def __post_init__(self):
        if self.kind == "flow" and self.latent_dim < 2:
            raise ValueError("a flow needs two dimensions")


def switched_provides(config: Switched):
    found = {"prior"} if config.kind == "flow" or config.has_prior else set()
    return {"encode", "decode", "decode_logits", *found}


SWITCHED = ModelSpec(
    name="switched",
    summary="",
    build=print,
    config=Switched,
    provides=switched_provides,
    default_loss="reconstruction",
)


@pytest.mark.parametrize(
    ("model", "options", "option"),
    [
        ("ae", {}, "model={'prior': 'normal'}, or"),
        ("ae", {"latent_dim": 2}, "model={'latent_dim': 2, 'prior': 'normal'}, or"),
        ("switched", {}, "model={'has_prior': True}, or"),
        ("switched", {"latent_dim": 2}, "model={'latent_dim': 2, 'kind': 'flow'}, or"),
        ("conv-vae", {}, None),
    ],
)
def test_the_option_that_gives_a_model_the_capability_is_named(model, options, option):
    forge = Forge([plugin_of(SWITCHED)])
    if option is None:
        assert not find_option(forge.registry.get("models", model), {"prior", "classify"})
        return
    with pytest.raises(ConfigError) as caught:
        forge.train(model, loss="wae", model=options)
    [line] = caught.value.details
    assert f"; {option} leave the loss out for 'reconstruction'" in line


def test_the_named_option_leads_to_a_run(cli):
    refused = cli("train", "ae", "--loss", "wae")
    option = refused.err.partition("generate; ")[2].partition(", or")[0]
    assert option == "--set model.prior=normal"
    line = ["--set", "model.hidden=[8]", "--epochs", "1", "--quiet"]
    assert cli("train", "ae", "--loss", "wae", *option.split(), *line).code == 0
    line = ["--set", "model.prior=flow", "--set", "train.monitor=elbo_mean"]
    assert "; --set model.prior=normal; measures that fit" in cli("train", "vae", *line).err


@dataclass(frozen=True)
class Estimated:
    estimate: bool = False


def test_the_option_with_which_a_loss_needs_less_is_named():
    loss = LossSpec(
        name="exact",
        summary="",
        build=print,
        config=Estimated,
        needs=lambda config: {"encode"} if config.estimate else {"encode", "kl"},
    )
    with pytest.raises(ConfigError) as caught:
        Forge([plugin_of(loss)]).train("ae", loss="exact")
    [line] = caught.value.details
    assert "; loss={'name': 'exact', 'estimate': True}, or leave the loss out" in line


def test_an_explorer_names_the_option_of_the_model():
    registry = Forge().registry
    with pytest.raises(UsageError) as caught:
        check_capabilities(registry, "it", {"prior"}, registry.get("models", "ae"))
    assert caught.value.hint.startswith("a run of ae with model.prior=normal; a run of beta-vae, ")


def test_only_models_whose_option_accepts_the_value_are_named(cli):
    def fault(value):
        return cli("train", "conv-vae", "--set", f"model.prior={value}").err

    assert fault("flow").endswith(
        "no such option of model 'conv-vae', but of models beta-vae, vae\n"
    )
    assert fault("normal").endswith("but of models ae, beta-vae, vae\n")
    assert "; known options: channels, " in fault("wrong")
    assert "but of models" not in fault("wrong")
    data = ["train", "ae", "--data", "digits", "--set"]
    assert "no option of dataset 'digits', but of arrays;" in cli(*data, "data.path=x.npz").err
    assert "; known options: " in cli(*data, "data.path=[1]").err


def test_a_role_that_refuses_conditional_models_does_not_name_them():
    stage_two = ModelSpec(
        name="second",
        summary="",
        build=print,
        provides={"decode", "decode_logits"},
        default_loss="reconstruction",
        roles={"first": Role({"encode", "decode"}), "judge": Role({"classify"})},
    )
    model = Forge().registry.get("models", "ae").spec
    judged = replace(model, name="judged", provides={"encode", "conditional", "classify"})
    registry = Forge([plugin_of(stage_two, judged)]).registry
    entry = registry.get("models", "second")
    needs = merge_roles([entry])
    hint = suggest_run(registry, "first", needs["first"], explores=False)
    assert hint.startswith("--with first=RUN, where RUN is a run of ae, ")
    assert "cvae" not in hint
    assert "judged" in suggest_run(registry, "judge", needs["judge"], explores=False)
    assert "cvae" in suggest_run(registry, "first", needs["first"], explores=True)
    apart = Role(needs["first"], same_data=False)
    assert "cvae" not in suggest_run(registry, "first", apart, explores=True)
