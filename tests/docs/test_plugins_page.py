"""The code of docs/plugins.md works; tests/e2e follows the tutorial."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from latentforge import CallbackSpec, Forge, LatentSpec, ModelSpec, hookimpl, hookspecs, testing
from latentforge.cli.app import run as run_cli
from latentforge.config.request import Draft, read_toml
from latentforge.conformance import (
    CHECKED,
    CheckFailed,
    check_name,
    checks_in,
    checks_of,
    common,
)
from latentforge.plugins.requirements import check_requirements
from latentforge.plugins.scaffold import new_plugin
from latentforge.runs.compatibility import add_older_values

from ..plugin import plugin_of

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
TEXT = PAGE.read_text("utf-8")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading):
    part = TEXT.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return FENCED.findall(part)


def named(texts):
    """The blocks by the file name in their first line."""
    return {re.match(r"# (\S+)\n", text)[1]: text for text in texts}


def test_every_block_of_the_page_is_tested():
    """This file reads blocks by heading; tests/e2e reads those of the tutorial."""
    headings = set(re.findall(r'blocks\("(.+?)"\)', Path(__file__).read_text("utf-8")))
    tutorial = TEXT.partition("## Ten minutes\n")[2].partition("## Reference\n")[0]
    taken = [*FENCED.findall(tutorial), *(block for name in headings for block in blocks(name))]
    assert sorted(taken) == sorted(FENCED.findall(TEXT))
    follower = (PAGE.parents[1] / "tests/e2e/test_tutorial.py").read_text("utf-8")
    assert '"## Ten minutes\\n"' in follower
    assert '"## Reference\\n"' in follower


def test_option_that_is_added_later_has_its_former_value_in_older_runs():
    [(_, text)] = blocks("An option that is added later")
    names = {}
    exec(
        "from dataclasses import dataclass, field\nfrom typing import Literal\n"
        f"@dataclass(frozen=True)\nclass Config:\n    {text}",
        names,
    )
    options = {
        "build": lambda config, data: None,
        "provides": set(),
        "default_loss": "reconstruction",
    }
    spec = ModelSpec(name="new", summary="x", config=names["Config"], **options)
    registry = Forge([plugin_of(spec)]).registry
    older, newer = Draft({"model": {"name": "new"}}), Draft({"model": {"name": "new"}})
    add_older_values(registry, older)
    assert older.values["model"]["padding"] == "zeros"
    assert names["Config"]().padding == "partial"
    newer.values["model"]["padding"] = "partial"
    add_older_values(registry, newer)
    assert newer.values["model"]["padding"] == "partial"


def test_smallest_model_has_at_most_thirty_lines_and_trains(work):
    (_, hooks), (_, network), (_, command) = blocks("A model in thirty lines")
    lines = [line for text in (hooks, network) for line in text.splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("# ")]) <= 30
    for name, text in named([hooks, network]).items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)
    assert run_cli(shlex.split(command)[1:]) == 0
    assert (work / "runs/linear-digits-1/run.json").exists()


# ---------------------------------------------------------------- several components


@pytest.fixture
def wave(work, monkeypatch):
    """The package of the page with several components, as if pip had installed it."""
    *files, (_, commands) = blocks("Several components in one package")
    for name, text in named(text for _, text in files).items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)
    info = work / "latentforge_wave-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: latentforge-wave\nVersion: 0.1\n")
    lines = []
    for group, points in read_toml(work / "pyproject.toml")["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(work))
    yield commands.splitlines()
    for name in [name for name in sys.modules if name.startswith("latentforge_wave")]:
        del sys.modules[name]


def test_commands_of_the_package_with_several_components_run(wave, work, capsys):
    for line in wave:
        program, *words = shlex.split(line)
        assert program == "latentforge"
        assert run_cli(words) == 0, capsys.readouterr().err
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0  # printed by `norm`
    assert (work / "runs/wave/summary.txt").read_text().startswith("wave: ")
    assert (work / "runs/wave/explore/mean-codes/means.png").exists()
    assert run_cli(["plugins", "show", "wave"]) == 0
    shown = capsys.readouterr().out
    for kind in ("models", "losses", "measures", "explorers", "presets", "commands"):
        assert f"{kind} " in shown


@pytest.mark.slow
def test_tests_of_the_package_pass_with_one_skip(wave, work):
    (work / "tests").mkdir()
    for name, text in named(text for _, text in blocks("Tests")).items():
        (work / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "tests"]
    path = [str(work), *sys.path]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--override-ini=pythonpath={shlex.join(path)}"],
        capture_output=True,
        text=True,
        cwd=work,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"SKIPPED \[1\] .*it is meant for images alone", done.stdout)


# ---------------------------------------------------------------- posteriors, callbacks, observers


class Full(torch.nn.Module):
    """A model that has the posterior of the page."""

    def __init__(self, data, posterior):
        super().__init__()
        self.posterior, self.shape = posterior, data.shape
        self.latent = LatentSpec((3,), prior="normal")
        self.mean = torch.nn.Linear(data.size, 3)
        self.scale = torch.nn.Linear(data.size, 9)
        self.up = torch.nn.Linear(3, data.size)

    def encode(self, x):
        x = x.flatten(1)
        factor = self.scale(x).unflatten(1, (3, 3))
        diagonal = torch.diag_embed(factor.diagonal(dim1=1, dim2=2).exp())
        return self.posterior(self.mean(x), factor.tril(-1) + diagonal)

    def decode(self, z):
        return self.up(z).sigmoid().unflatten(1, self.shape)


def test_full_gaussian_of_the_page_has_the_kl_of_its_samples():
    [(_, text)] = blocks("Priors, posteriors, labels")
    space = {}
    exec(compile(text, "posterior.py", "exec"), space)

    class Half(space["FullGaussian"]):
        def kl(self):
            return 0.5 * super().kl()

    for posterior, right in ((space["FullGaussian"], True), (Half, False)):
        full = ModelSpec(
            name="full",
            summary="Full covariance",
            build=lambda config, data, posterior=posterior: Full(data, posterior),
            provides={"encode", "decode", "kl", "log_prob"},
            default_loss="elbo",
        )
        checks = {str(c): c for c in checks_of("models", "full", plugins=[plugin_of(full)])}
        check = checks["kl matches the posterior"]
        if right:
            check()
        else:
            with pytest.raises(CheckFailed, match="its estimate from samples is"):
                check()


TRAIN = {"epochs": 2, "batch_size": 16, "device": "cpu", "threads": 1}
SMALL = {"data": testing.tiny_images(), "model": {"hidden": [16], "latent_dim": 2}, "quiet": True}


def test_callback_of_the_page_is_restored_after_attach(work):
    [(_, text)] = blocks("A callback's state")
    space, seen = {}, []
    exec(compile(text, "mean_weights.py", "exec"), space)

    class Recording(space["MeanWeights"]):
        def attach(self, engines):
            from ignite.engine import Events

            def record():
                weight = next(engines.model.parameters()).detach().clone()
                seen.append((len(self.means), engines.trainer.state.iteration, weight))

            record()
            super().attach(engines)
            engines.trainer.add_event_handler(Events.STARTED, record)
            self.last = seen

    means = CallbackSpec(name="means", summary="Keeps means", build=Recording)
    forge = Forge([plugin_of(means)])
    run = forge.train("ae", **SMALL, train=TRAIN, callbacks=["means"], run=work / "run")
    forge.resume(run, data=SMALL["data"], train={"epochs": 3}, quiet=True)
    (_, _, new), _, (kept, step, weight), (restored, restored_step, restored_weight) = seen
    assert (kept, step) == (0, 0)
    assert torch.equal(weight, new)
    assert (restored, restored_step) == (2, 6)
    assert not torch.equal(restored_weight, new)


class Watcher:
    """Records the attributes of a run that the page documents for observers."""

    def __init__(self):
        self.seen = []

    def look(self, run):
        facts = {"epochs", "steps", "config", "data", "plugins", "environment"}
        assert facts <= set(run.manifest)
        assert run.name == run.path.name
        self.seen.append((run.status, sorted(run.metrics), len(run.history())))

    @hookimpl
    def latentforge_run_started(self, run):
        self.look(run)

    @hookimpl
    def latentforge_run_finished(self, run, metrics):
        self.look(run)
        assert run.load_model().latent.shape == (2,)

    @hookimpl
    def latentforge_run_failed(self, run, error):
        self.look(run)
        assert run.manifest["error"]


def test_observer_can_read_the_documented_attributes(work):
    watcher = Watcher()
    forge = Forge([watcher])
    run = forge.train("ae", **SMALL, train=TRAIN, run=work / "run")
    forge.resume(run, data=SMALL["data"], train={"epochs": 3}, quiet=True)
    with pytest.raises(Exception, match="became"):
        forge.train("ae", **SMALL, train={**TRAIN, "optimizer": "sgd", "lr": 1e30})
    splits = ["test", "train", "validation"]
    assert watcher.seen == [
        ("running", [], 0),
        ("done", splits, 2),
        ("running", splits, 2),
        ("done", splits, 3),
        ("running", [], 0),
        ("failed", [], 0),
    ]


def test_commands_that_check_a_plugin_run(work, cli):
    new_plugin("swirl", "model", work)
    [(_, commands)] = blocks("Checking a plugin")
    for line in commands.splitlines():
        answer = cli(*shlex.split(line)[1:])
        assert answer.code == 0, answer.err
    options = re.findall(
        r"^\| `(--\w+) ", TEXT.partition("### Checking a plugin\n")[2], re.MULTILINE
    )
    assert options == ["--set", "--shape", "--data", "--with"]


# ---------------------------------------------------------------- tables and names


@pytest.mark.parametrize("kind", ["every component", *CHECKED])
def test_the_page_has_a_row_for_each_check(kind):
    part = TEXT.partition(f"#### Checks of {kind}\n")[2].partition("\n###")[0]
    rows = re.findall(r"^\| ([^`|]+?) \| .+ \|$", part, re.MULTILINE)
    checks = common.CHECKS if kind == "every component" else checks_in(kind)
    assert rows == ["check", *map(check_name, checks)]


def test_config_of_the_page_requires_its_plugin(work):
    [(_, text)] = blocks("Configs and runs that need plugins")
    (work / "c.toml").write_text(text)
    check_requirements(["latentforge>=0.0"], "c.toml")  # which is installed
    assert read_toml(work / "c.toml")["requires_plugins"] == ["latentforge-swirl>=0.2"]
    assert run_cli(["train", "--config", "c.toml"]) == 3


def test_the_entry_point_of_a_command_is_that_of_the_example():
    [(_, text)] = blocks("A package's own commands")
    example = PAGE.parents[1] / "examples/latentforge-physics/pyproject.toml"
    points = read_toml(example)["project"]["entry-points"]
    assert tomllib.loads(text)["project"]["entry-points"].items() <= points.items()


def test_page_names_the_test_helpers_and_every_observer():
    for name in testing.__all__:
        if name.startswith("check_") or name == "tiny_images":
            assert f"`{name}" in TEXT
    observers = [name for name in vars(hookspecs) if name.startswith("latentforge_run_")]
    assert len(observers) == 3
    for name in observers:
        assert re.search(rf"`{name}\((.*?)\)`", TEXT)[1].split(", ") == [
            argument for argument in vars(hookspecs)[name].__annotations__ if argument != "return"
        ]


@pytest.mark.parametrize("command", ["list", "show", "check", "new"])
def test_the_page_has_every_plugins_command(command):
    assert f"| `latentforge plugins {command}" in TEXT
