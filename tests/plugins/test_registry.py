"""Resolution of names in the registry."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields

import pytest

from latentforge.config.schema import DataConfig
from latentforge.errors import UsageError
from latentforge.forge import Forge
from latentforge.plugins.registry import Entry, Plugin, Registry, normalise
from latentforge.plugins.spec_faults import spec_faults
from latentforge.specs import (
    KINDS,
    RESERVED,
    DatasetSpec,
    ExplorerSpec,
    LossSpec,
    ModelSpec,
    ObjectiveSpec,
)

BUILTIN = Plugin("autoencoder", "latentforge", "0.1", "latentforge_plugins.autoencoder")
EXTERNAL = Plugin("swirl", "latentforge-swirl", "2.0", "swirl")
FILE = Plugin("my", module="./my.py")


def model(name: str, plugin: Plugin) -> Entry:
    spec = ModelSpec(
        name=name, summary="", build=lambda c, d: None, provides={"encode"}, default_loss="elbo"
    )
    return Entry(KINDS["models"], spec, plugin)


def loss(name: str, plugin: Plugin) -> Entry:
    spec = LossSpec(name=name, summary="", build=lambda c, d: None)
    return Entry(KINDS["losses"], spec, plugin)


def registry(*entries: Entry, plugins: tuple[Plugin, ...] = (BUILTIN, EXTERNAL, FILE)) -> Registry:
    return Registry(plugins, entries)


def test_names_are_sorted_and_each_kind_has_its_own():
    some = registry(model("vae", BUILTIN), model("ae", EXTERNAL), loss("vae", BUILTIN))
    assert some.names("models") == ("ae", "vae")
    assert some.names("losses") == ("vae",)
    assert some.names("datasets") == ()
    assert [entry.qualified for entry in some.entries("models")] == [
        "latentforge-swirl/ae",
        "latentforge/vae",
    ]
    assert some.get("losses", "vae").kind.singular == "loss"


@pytest.mark.parametrize("order", [1, -1])
def test_a_built_in_wins_in_any_order(order):
    same = [model("ae", BUILTIN), model("ae", EXTERNAL), model("ae", FILE)][::order]
    some = registry(*same)
    assert some.get("models", "ae").plugin is BUILTIN
    assert some.names("models") == ("ae",)
    assert [entry.plugin for entry in some.entries("models")] == [BUILTIN, EXTERNAL, FILE]
    assert some.get("models", "my/ae").plugin is FILE
    assert some.notices == (
        "model 'ae' of latentforge-swirl does not replace the built-in;"
        " use it as latentforge-swirl/ae",
        "model 'ae' of my does not replace the built-in; use it as my/ae",
    )


def test_unknown_name_suggests_the_likely_one_and_a_command():
    some = registry(model("conv-vae", BUILTIN), model("ae", BUILTIN))
    with pytest.raises(UsageError) as error:
        some.get("models", "aee")
    assert type(error.value) is UsageError
    assert error.value.message == "unknown model 'aee', did you mean 'ae'?"
    assert error.value.hint == "latentforge list models"
    with pytest.raises(UsageError, match=r"unknown model 'resnet'\n") as error:
        some.get("models", "resnet")
    assert "latentforge -p FILE" in str(error.value.hint)


def test_plugins_are_found_by_name():
    some = registry()
    assert some.plugin("my") is FILE
    assert some.plugin("LatentForge/autoencoder") is BUILTIN
    with pytest.raises(UsageError, match="unknown plugin 'swrl', did you mean 'swirl'"):
        some.plugin("swrl")
    with pytest.raises(UsageError, match="unknown plugin 'latentforge/swirl'"):
        some.plugin("latentforge/swirl")


def test_plugin_file_named_latentforge_is_not_built_in():
    pretender = Plugin("latentforge", module="./latentforge.py")
    some = registry(model("ae", BUILTIN), plugins=(BUILTIN, pretender))
    assert not pretender.builtin
    assert some.get("models", "latentforge/ae").plugin is BUILTIN


@pytest.mark.parametrize(
    "name", ["Latent.Forge", "latent-forge", "LATENT__forge", "latent-._forge"]
)
def test_distribution_names_are_normalised_as_by_pip(name):
    assert normalise(name) == "latent-forge"


def test_options_that_the_core_reads_itself_are_reserved():
    parameters = set(inspect.signature(Forge.explore).parameters) - {"self", "options"}
    assert RESERVED[ExplorerSpec] == parameters | {"objective"}
    assert RESERVED[ObjectiveSpec] == RESERVED[ExplorerSpec]
    assert RESERVED[DatasetSpec] == {"name", *(field.name for field in fields(DataConfig))}

    @dataclass(frozen=True)
    class Config:
        name: str = "x"

    spec = ModelSpec(
        name="m", summary="", build=print, config=Config, provides=set(), default_loss="elbo"
    )
    assert spec_faults(KINDS["models"], spec) == [
        "config Config.name: LatentForge has an option of that name"
    ]
