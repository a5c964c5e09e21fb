"""The checks of whole plugins: commands, presets, loading time and output."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from latentforge import Forge, PresetSpec, hookimpl
from latentforge.conformance.inputs import Inputs
from latentforge.conformance.review import review
from latentforge.errors import MissingError
from latentforge.plugins import commands as plugin_commands
from latentforge.plugins.registry import Registry

from . import twins
from .test_examples import offering


def reviewed(forge, name, deep=False):
    """(component, check) -> Result of a plugin."""
    plugins = [forge.registry.plugin(name)]
    results = review(forge, plugins, deep=deep, reserved={"train"})
    return {(result.component, result.check): result for result in results}


def test_unknown_option_in_an_explorer_preset_is_found(work):
    found = {}
    for option in ("n = 40", "nonsense = 3"):
        (work / "p.toml").write_text(f'[explore]\nname = "sample"\n{option}\n')
        spec = PresetSpec(name="good", summary="A preset", path=work / "p.toml")
        seen = reviewed(Forge([twins.plugin("presets", spec)]), "twin")
        found[option] = seen["preset good", "it can be trained or explored"]
    assert found["n = 40"].status == "passed", found
    assert "sample.nonsense" in found["nonsense = 3"].saw


@pytest.mark.parametrize(
    ("name", "target", "cause"),
    [
        ("aim", "json:loads", ""),
        ("train", "json:loads", "has its own command 'train'"),
        ("aim", "json:nothing", "cannot be loaded"),
    ],
)
def test_a_command_that_cannot_be_called_is_found(name, target, cause, monkeypatch):
    dist = SimpleNamespace(metadata={"Name": "latentforge", "Version": "1"})
    point = EntryPoint(name, target, "latentforge.commands")
    vars(point).update(dist=dist)
    offered = {name: plugin_commands.PluginCommand(point, [])}
    monkeypatch.setattr(plugin_commands, "commands", lambda: offered)
    found = reviewed(Forge(), "vae")[f"command {name}", "it can be called"]
    assert cause in found.saw
    assert found.status == ("failed" if cause else "passed")


def test_a_plugin_that_takes_long_to_load_is_found():
    forge = Forge([twins.plugin("models", twins.GOOD["models"])])
    slow = replace(forge.registry.plugin("twin"), seconds=3.0)
    forge.registry = Registry([slow], [])
    assert "3.0 s" in reviewed(forge, "twin")["", "it loads quickly"].saw


def test_component_that_was_not_tried_is_not_checked():
    def missing(config, split):
        raise MissingError("no files")

    offered = replace(twins.GOOD["datasets"], load=missing)
    seen = reviewed(Forge([twins.plugin("datasets", offered)]), "twin", deep=True)
    last = seen["dataset good", "it can be checked"]
    assert last.status == "not checked"
    assert "no files" in last.saw
    first = seen["dataset good", "it loads as images or vectors"]
    assert (first.status, "no files" in first.saw) == ("not checked", True)
    other = seen["dataset good", "two loads give the same data"]
    assert (other.status, other.saw) == ("not checked", "see 'it loads as images or vectors'")


def test_checks_use_the_inputs_of_the_review(work):
    seen = []

    class Remembers(twins.models.Good):
        def __init__(self, config, data):
            super().__init__(config, data)
            seen.append((config.size, data.shape))

    plugin = twins.plugin("models", twins.model(Remembers))
    plugin.latentforge_callbacks = offering("callbacks", twins.callback())
    forge = Forge([plugin])
    inputs = Inputs({("models", "twin/good"): {"size": 2}}, shape=(1, 1, 64))
    results = list(
        review(forge, [forge.registry.plugin("twin")], deep=True, reserved=set(), inputs=inputs)
    )
    assert {result.status for result in results} == {"passed", "skipped"}
    assert {size for size, _ in seen} == {2}  # in the tiny runs of the callback too
    assert (2, (1, 1, 64)) in seen


def test_output_and_observers_of_a_plugin_are_suppressed(work, capsys, caplog):
    started = []

    class Loud(twins.callbacks.Watch):
        def attach(self, engines):
            print("attached")
            logging.getLogger("latentforge").warning("attached")
            super().attach(engines)

    plugin = twins.plugin("callbacks", twins.callback(Loud))
    plugin.latentforge_run_started = hookimpl(lambda run: started.append(run))
    seen = reviewed(Forge([plugin]), "twin", deep=True)
    assert seen["callback good", "it attaches and trains"].status == "passed"
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert not started
