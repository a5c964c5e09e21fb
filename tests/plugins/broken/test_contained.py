"""Other faults of third-party packages: slow imports, bad defaults, commands and observers that
raise. LatentForge still works, and names the plugin."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

import packaging.requirements  # noqa: F401  imported before site-packages is hidden
import pydantic  # noqa: F401
import pytest

from latentforge import Forge, MeasureSpec, Size, hookimpl
from latentforge.cli.app import run as run_cli
from latentforge.errors import PluginError
from latentforge.plugins.loading import load_plugins

from ...plugin import plugin_of

ALWAYS = (["--help"], ["--version"], ["plugins", "list"], ["plugins", "show", "bad"])
FAULTS = {
    "import error": "import no_such_module",
    "SystemExit": "raise SystemExit(3)",
    "wrong signature": "@hookimpl\ndef latentforge_models(config): return []",
    "misspelled hook": "@hookimpl\ndef latentforge_modles(): return []",
    "wrong spec type": "@hookimpl\ndef latentforge_models(): return ['ae']",
    "unknown api": "LATENTFORGE_API = 9\n@hookimpl\ndef latentforge_models(): return []",
    "a hook that raises": "@hookimpl\ndef latentforge_models(): 1 / 0",
}
SLOW = "import time; time.sleep(0.6)\n@hookimpl\ndef latentforge_models(): return [model('m')]"


@pytest.mark.parametrize("fault", FAULTS)
def test_help_works_with_any_fault_and_strict_plugins_fails(site, fault, capsys):
    site.add("latentforge-bad", FAULTS[fault], "bad", version="0.3")
    for line in ALWAYS:
        assert run_cli(line) == 0, line
    listed = capsys.readouterr().out
    assert "latentforge-bad" in listed
    assert run_cli(["--strict-plugins", "list"]) == 3
    err = capsys.readouterr().err
    assert "plugin bad (latentforge-bad 0.3)" in err
    assert "latentforge plugins list" in err
    assert run_cli(["list"]) == 0
    assert "plugin bad (latentforge-bad 0.3)" in capsys.readouterr().err


def test_slow_import_gives_a_notice_with_its_time(site):
    module = site.add("latentforge-bad", SLOW, "bad", version="0.3")
    assert run_cli(["--strict-plugins", "list"]) == 3
    del sys.modules[module]  # as in a new process
    registry = load_plugins()
    [notice] = registry.notices
    assert notice.startswith(
        "plugin bad (latentforge-bad 0.3) is slow while it loads, which adds 0."
    )
    assert "latentforge plugins check latentforge-bad/bad" in notice
    assert registry.names("models") == ("m",)


@pytest.mark.slow
def test_torch_import_in_a_hook_module_gives_a_note(work, process):
    """In a new process, where nothing else has imported torch."""
    (work / "bad.py").write_text(
        "import torch\nfrom latentforge import ModelSpec, hookimpl\n\n\n@hookimpl\n"
        "def latentforge_models():\n"
        "    yield ModelSpec(name='m', summary='s', build=print, provides={'encode'},\n"
        "        default_loss='elbo')\n"
    )
    answer = process("-p", "./bad.py", "list", "models")
    assert answer.code == 0, answer.err
    assert "note: plugin bad imports torch while it loads" in answer.err
    assert process("-p", "./bad.py", "--strict-plugins", "list").code == 3


BAD_DEFAULT = """
from latentforge import Size
@dataclass(frozen=True)
class Config:
    size: Size = 0
@hookimpl
def latentforge_models():
    yield model('wrong', config=Config)
    yield model('right')
"""


def test_bad_default_of_one_model_is_a_plugin_error(site):
    site.add("latentforge-bad", BAD_DEFAULT, "bad", version="0.3")
    forge = Forge()
    with pytest.raises(PluginError, match=r"'wrong' of plugin bad .* has wrong defaults") as error:
        forge.train("wrong", model={"size": 3})
    assert "size: must be greater than 0, got 0" in error.value.details[0]
    assert error.value.hint == "`latentforge plugins check bad` in a shell"
    assert forge.registry.plugin("bad").status == "ok"


def test_check_of_all_plugins_reports_one_that_does_not_load(site, capsys):
    site.add("latentforge-bad", "1 / 0", "bad", version="0.3")
    assert run_cli(["plugins", "check"]) == 3
    out, err = capsys.readouterr()
    assert "failed      plugin bad: it loads: import: ZeroDivisionError: division by zero" in out
    assert "pip install --upgrade latentforge-bad, or disable it" in err


@dataclass(frozen=True)
class Wrong:
    target: Size = 0


def test_measure_with_a_bad_default_is_skipped_unless_it_is_requested(runs, caplog):
    bad = MeasureSpec(name="bad", summary="s", build=print, protocol="p", config=Wrong)
    run = Forge([plugin_of(bad)]).open_run("runs/ae")
    assert "bad" not in run.evaluate()
    assert "'bad' of plugin Plugin has wrong defaults; the measure is skipped" in caplog.text
    with pytest.raises(PluginError, match="'bad' of plugin Plugin has wrong defaults"):
        run.evaluate(measures=["bad"])


# ---------------------------------------------------------------- conflicts


def test_plugins_list_shows_conflicts(site, capsys):
    site.add("latentforge-one", site.offering("twin"), "one")
    site.add("latentforge-two", site.offering("twin"), "two")
    site.add("latentforge-three", site.offering("alone"), "three")
    registry = load_plugins()
    found = {plugin.name: registry.status_of(plugin) for plugin in registry.plugins}
    assert found == {"one": "conflict", "two": "conflict", "three": "ok"}
    assert run_cli(["plugins", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = {row[0]: row[3] for row in rows if len(row) > 4}
    assert {name: shown[name] for name in found} == found


def test_requirements_are_in_pip_format(site, capsys):
    site.add("latentforge-one", site.offering("a"), "one", version="1.5")
    site.add("latentforge-two", site.offering("b"), "two", version="0.2")
    site.add("latentforge-three", "1 / 0", "three", version="0.3")
    site.commands("latentforge-aim", {"aim": "aiming:aim", "fire": "aiming:fire"})
    assert run_cli(["-p", "no:two", "plugins", "list", "--requirements"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "latentforge-aim==1.0",
        "latentforge-one==1.5",
        "# plugin three (latentforge-three 0.3) does not load: "
        "plugins show latentforge-three/three",
    ]


# ---------------------------------------------------------------- commands


def test_command_is_listed_without_an_import_and_runs(site, capsys):
    site.command("def aim(place: str, far: int = 3):\n    print('aimed', place, far)\n")
    assert run_cli(["--help"]) == 0
    assert "A command of latentforge-aim 1.0." in capsys.readouterr().out
    assert "aiming" not in sys.modules
    assert run_cli(["aim", "there", "--far", "5"]) == 0
    assert capsys.readouterr().out == "aimed there 5\n"
    assert run_cli(["aim", "--help"]) == 0
    assert "--far" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "target", "cause"),
    [
        ("import no_such_module", "aiming:aim", "ModuleNotFoundError"),
        ("raise SystemExit(0)", "aiming:aim", "SystemExit"),
        ("x = 1", "aiming:aim", "AttributeError"),
        ("aim = 3", "aiming:aim", "is not a Typer app"),
        ("aim = 3", "aim ing:aim!", "AttributeError"),
    ],
)
def test_a_command_that_cannot_be_loaded_names_its_distribution(site, capsys, code, target, cause):
    site.module("aiming", code)
    site.commands("latentforge-aim", {"aim": target}, version="0.4")
    assert run_cli(["--help"]) == 0
    assert run_cli(["aim"]) == 3
    err = capsys.readouterr().err
    assert "command 'aim' of latentforge-aim 0.4 cannot be loaded" in err
    assert cause in err
    assert "pip install --upgrade latentforge-aim" in err


def test_command_that_raises_prints_no_traceback(site, capsys):
    site.command("def aim():\n    1 / 0\n", version="0.4")
    assert run_cli(["aim"]) == 3
    err = capsys.readouterr().err
    assert "command 'aim' of latentforge-aim 0.4 failed: ZeroDivisionError" in err
    assert "Traceback" not in err


OPTION_RAISES = """
from typing import Annotated
import typer

def aim(far: Annotated[int, typer.Option(callback=lambda value: 1 // value)] = 0):
    print("aimed")
"""


def test_option_callback_that_raises_prints_no_traceback(site, capsys):
    site.command(OPTION_RAISES, version="0.4")
    assert run_cli(["aim", "--far", "1"]) == 0
    assert run_cli(["aim"]) == 3
    err = capsys.readouterr().err
    assert "command 'aim' of latentforge-aim 0.4 failed: ZeroDivisionError" in err
    assert run_cli(["aim", "--far", "x"]) == 2  # a usage error stays one


@pytest.mark.parametrize("metadata", [b"", b"\xff\xfe\x00"])
def test_help_works_with_damaged_metadata(site, capsys, metadata):
    site.command("def aim():\n    print('one')\n")
    [file] = site.folder.glob("*.dist-info/METADATA")
    file.write_bytes(metadata)
    assert run_cli(["--help"]) == 0
    assert run_cli(["plugins", "list"]) == 0
    assert run_cli(["aim"]) == 0


def test_command_offered_by_two_distributions_is_an_error(site, capsys):
    site.module("aiming", "def aim():\n    print('one')\n")
    site.module("other", "def aim():\n    print('other')\n")
    site.commands("latentforge-aim", {"aim": "aiming:aim"})
    site.commands("latentforge-other", {"aim": "other:aim"}, version="2.0")
    assert run_cli(["aim"]) == 3
    assert "offered by latentforge-aim 1.0 and latentforge-other 2.0" in capsys.readouterr().err


def test_plugins_show_lists_the_commands_of_a_plugin(site, capsys):
    site.module("swirl", site.offering("swirl"))
    site.module("aiming", "def aim():\n    print('one')\n")
    info = site.metadata("latentforge-swirl", "swirl = swirl")
    points = "[latentforge]\nswirl = swirl\n[latentforge.commands]\naim = aiming:aim\n"
    (info / "entry_points.txt").write_text(points)
    assert run_cli(["plugins", "show", "swirl"]) == 0
    assert "models swirl; commands aim" in capsys.readouterr().out


def test_plugin_command_does_not_replace_a_built_in_one(site, capsys):
    site.module("aiming", "def version():\n    print('mine')\n")
    site.commands("latentforge-aim", {"runs": "aiming:version"})
    assert run_cli(["runs", "--help"]) == 0
    assert "List the runs in a folder" in capsys.readouterr().out


def test_distribution_with_only_commands_is_listed_as_a_plugin(site, capsys):
    site.module("aiming", "def aim():\n    print('one')\n")
    site.commands("latentforge-aim", {"aim": "aiming:aim", "fire": "aiming:fire"})
    assert run_cli(["plugins", "list"]) == 0
    [line] = capsys.readouterr().out.splitlines()[1:]
    assert line.startswith(
        "latentforge-aim  latentforge-aim  1.0      ok      0 ms    commands aim, fire"
    )
    assert run_cli(["-p", "no:latentforge-aim", "plugins", "list"]) == 0
    assert "disabled" in capsys.readouterr().out
    assert "aiming" not in sys.modules


ONE_OF_TWO = "[latentforge]\none = one\ntwo = two\n[latentforge.commands]\naim = aiming:aim\n"


@pytest.mark.parametrize(
    ("only", "off", "code"),
    [
        (None, [], 0),
        ("latentforge-aim", [], 0),
        ("one", [], 0),
        ("latentforge-aim/two", [], 0),
        ("latentforge", [], 2),
        (None, ["one"], 0),
        (None, ["one", "two"], 2),
        (None, ["latentforge-aim"], 2),
        ("one", ["one"], 2),
    ],
)
def test_commands_are_off_when_all_plugins_of_their_distribution_are(
    site, capsys, monkeypatch, only, off, code
):
    for name in ("one", "two"):
        site.module(name, site.offering(name))
    site.module("aiming", "def aim():\n    print('aimed')\n")
    (site.metadata("latentforge-aim", "") / "entry_points.txt").write_text(ONE_OF_TWO)
    if only:
        monkeypatch.setenv("LATENTFORGE_PLUGINS", only)
    words = [word for name in off for word in ("-p", f"no:{name}")]
    assert run_cli([*words, "aim"]) == code
    assert ("aimed" in capsys.readouterr().out) == (code == 0)
    assert run_cli(["--help"]) == 0


# ---------------------------------------------------------------- observers


class Observer:
    """Records the hooks that are called; raises if `broken`."""

    def __init__(self, broken=False):
        self.called, self.broken = [], broken

    @hookimpl
    def latentforge_run_started(self, run):
        self.record("started")

    @hookimpl
    def latentforge_run_finished(self, run, metrics):
        self.record("finished")

    def record(self, name):
        self.called.append(name)
        if self.broken:
            raise ValueError("no room")


def test_run_completes_when_an_observer_raises(work, caplog):
    observer = Observer(broken=True)
    other = Observer()
    other.__name__, small = "other", {"epochs": 1, "batch_size": 512}
    with caplog.at_level(logging.WARNING, "latentforge"):
        run = Forge([observer, other]).train("ae", train=small, quiet=True)
    assert run.status == "done"
    messages = [record.getMessage() for record in caplog.records]
    assert any("latentforge_run_started: ValueError: no room" in line for line in messages)
    assert all("plugin Observer" in line for line in messages)
    assert other.called == ["started", "finished"]


# ---------------------------------------------------------------- versions


def test_config_that_needs_a_newer_plugin_hints_at_pip(site, tmp_path, capsys):
    site.add("latentforge-one", site.offering("a"), "one", version="0.1")
    config = tmp_path / "c.toml"
    config.write_text('requires_plugins = ["latentforge-one>=0.2", "no-such"]\n[nonsense]\n')
    assert run_cli(["train", "--config", str(config)]) == 3
    err = capsys.readouterr().err
    assert "latentforge-one>=0.2: 0.1 is installed" in err
    assert "no-such: not installed" in err
    assert "pip install 'latentforge-one>=0.2' no-such" in err


@pytest.mark.parametrize("value", ['"latentforge"', "[3]", '["two words"]'])
def test_invalid_requires_plugins_is_refused(tmp_path, capsys, value):
    config = tmp_path / "c.toml"
    config.write_text(f"requires_plugins = {value}\n")
    assert run_cli(["train", "--config", str(config)]) == 2
    assert "requires_plugins of " in capsys.readouterr().err
