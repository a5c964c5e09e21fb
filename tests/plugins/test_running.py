"""`open_run` inside a plugin finds the plugins of the Forge or the command that runs it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from latentforge import Forge, open_run
from latentforge.errors import PluginError

# A model, and an explorer, a measure and an observer that open a run of that model by its path.
PLUGIN = """
from latentforge import ExplorerSpec, MeasureSpec, ModelSpec, hookimpl, open_run

OTHER, OPENED = {other!r}, []


def build(config, data):
    from torch import nn
    from latentforge import LatentSpec
    from latentforge.latent import Point

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.latent, self.shape = LatentSpec((3,)), data.shape
            self.down, self.up = nn.Linear(data.size, 3), nn.Linear(3, data.size)

        def encode(self, x):
            return Point(self.down(x.flatten(1)))

        def decode_logits(self, z):
            return self.up(z).unflatten(1, self.shape)

        def decode(self, z):
            return self.decode_logits(z).sigmoid()

    return Linear()


def explore(context, config):
    from latentforge.findings import Findings, Table

    model = open_run(OTHER).load_model()
    shape = str(tuple(model.latent.shape))
    return Findings([Table("other", "The other run", ["latent"], [[shape]])])


class Measure:
    def __init__(self):
        self.model = open_run(OTHER).load_model()

    def update(self, seen):
        self.model.encode(seen.batch.x)

    def compute(self):
        return {{"of_other": float(self.model.latent.shape[0])}}


@hookimpl
def latentforge_models():
    provides = {{"encode", "decode", "decode_logits"}}
    yield ModelSpec(
        name="local", summary="Local", build=build, provides=provides, default_loss="reconstruction"
    )


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(name="open-other", summary="Opens a run", explore=explore)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="of-other",
        summary="Opens a run",
        build=lambda config, context: Measure(),
        protocol="the length of the other run's code",
        default=False,
    )


@hookimpl
def latentforge_run_finished(run, metrics):
    OPENED.append(open_run(run.path).registry.get("models", "local").name)
"""
TRAIN = {"epochs": 1, "batch_size": 900}


@pytest.fixture
def plugin(work):
    """The plugin's file, and the folder of a run of its model."""
    file, run = work / "local.py", work / "runs" / "local"
    file.write_text(PLUGIN.format(other=str(run)))
    Forge([str(file)]).train("local", run=run, train=TRAIN, quiet=True)
    return file, run


def test_every_method_of_a_forge_lets_its_components_open_runs(plugin, work):
    file, run = plugin
    forge = Forge([str(file)])
    found = forge.explore("open-other", run, quiet=True)
    assert [path.rpartition("/")[2] for path in found["files"]] == ["other.csv", "findings.json"]
    assert forge.evaluate(run, measures=["of-other"])["metrics"] == {"of_other": 3.0}
    opened = forge.open_run(run)
    assert opened.evaluate(measures=["of-other"]) == {"of_other": 3.0}
    opened.explore("open-other", quiet=True)
    forge.train("ae", run=work / "runs" / "ae", train=TRAIN, quiet=True)
    modules = [m for m in sys.modules.values() if getattr(m, "__file__", None) == str(file)]
    assert modules[-1].OPENED[-1] == "local"


def test_a_command_with_p_lets_its_components_open_runs(plugin, cli):
    file, run = plugin
    assert cli("-p", file, "explore", "open-other", run).code == 0
    answer = cli("-p", file, "evaluate", run, "--measure", "of-other", "--json")
    assert answer.json["metrics"] == {"of_other": 3.0}


@pytest.mark.slow  # two processes
def test_a_sweep_with_worker_processes_lets_its_components_open_runs(plugin, cli, work):
    file, _ = plugin
    options = ["--grid", "train.seed=[0, 1]", "--jobs", "2", "--set", "train.monitor=of-other"]
    more = ["--epochs", "1", "--set", "data.validation=0.1", "--out", work / "sweep", "--json"]
    answer = cli("-p", file, "sweep", "local", *options, *more)
    assert answer.code == 0, answer.err


def test_outside_of_components_only_installed_plugins_are_found(plugin):
    file, run = plugin
    Forge([str(file)]).explore("open-other", run, quiet=True)
    with pytest.raises(PluginError, match="local"):
        open_run(run).load_model()
    assert open_run(run, plugins=[str(file)]).load_model().latent.shape == (3,)


def test_plugins_are_added_to_the_running_ones(plugin, work):
    file, run = plugin
    (work / "second.py").write_text(
        "from latentforge import ExplorerSpec, hookimpl, open_run\n"
        "def explore(context, config):\n"
        "    from latentforge.findings import Findings, Table\n"
        f"    opened = open_run({str(run)!r}, plugins=[{str(file)!r}])\n"
        "    names = [p.name for p in opened.registry.plugins if not p.builtin]\n"
        "    return Findings([Table('names', 'Names', ['name'], [[n] for n in sorted(names)])])\n"
        "@hookimpl\n"
        "def latentforge_explorers():\n"
        "    yield ExplorerSpec(name='second', summary='Second', explore=explore)\n"
    )
    ae = Forge().train("ae", run=work / "runs" / "ae", train=TRAIN, quiet=True)
    found = Forge([str(work / "second.py")]).explore("second", ae, quiet=True)
    rows = Path(found["files"][0]).read_text().split()
    assert {"local", "second"} <= {*rows}


def test_two_threads_have_their_own_plugins(plugin):
    """A Forge in one thread does not change what open_run finds in another."""
    file, run = plugin
    errors = []

    def other():
        try:
            open_run(run).load_model()
        except PluginError as error:
            errors.append(error)

    forge = Forge([str(file)])
    thread = threading.Thread(target=other)
    from latentforge.plugins.running import running

    with running(lambda: forge.registry):
        assert open_run(run).registry is forge.registry
        thread.start()
        thread.join()
    assert len(errors) == 1
