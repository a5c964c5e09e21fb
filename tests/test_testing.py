"""`latentforge.testing` in the tests of a plugin author: pytest in a folder with their package,
beside another package that is also installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HOOKS = """
from latentforge import ModelSpec, hookimpl

@hookimpl
def latentforge_models():
    yield ModelSpec(name="{name}", summary="s", build=print, provides={{"encode"}},
                    default_loss="reconstruction")
"""
CONFTEST = """
import pytest
pytest_plugins = ["latentforge.testing"]

@pytest.fixture(scope="session")
def latentforge_plugins():
    return [{plugin}]
"""
TESTS = """
import latentforge_mine
import pytest
from latentforge.testing import check_model

CHECKS = [check for check in check_model("mine") if "option" in str(check)]

@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_checks_see_it_too(check, latentforge_work):
    check()
    plugins = check.arguments[0].forge.registry.plugins
    assert {p.distribution for p in plugins if p.status == "ok"} == {"latentforge", __ORIGIN__[0]}

def test_api_and_command_line_see_the_same(forge, latentforge_cli):
    seen = forge.registry.names("models")
    assert "mine" in seen and "ae" in seen and "theirs" not in seen
    listed = latentforge_cli("list", "models", "--json").json["models"]
    assert [model["name"] for model in listed] == list(seen)

def test_it_comes_with_its_distribution_and_commands(forge, latentforge_cli):
    [plugin] = [p for p in forge.registry.plugins if not p.builtin and p.status == "ok"]
    assert (plugin.distribution, plugin.version) == __ORIGIN__
    assert (latentforge_cli("hello").out == "hello\\n") == bool(plugin.distribution)
    assert latentforge_cli("bye").code == 2

def test_the_folder_is_empty_and_settings_are_gone(latentforge_work, latentforge_cli):
    import os
    assert os.getcwd() == str(latentforge_work) and not os.listdir()
    assert "LATENTFORGE_DATA" not in os.environ

def test_what_is_no_json_is_no_answer(latentforge_cli):
    import pytest
    with pytest.raises(ValueError):
        latentforge_cli("list").json

def test_the_tiny_run_is_trained(tiny_run):
    assert tiny_run.status == "done"
    assert len(tiny_run.history()) == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packaged", "plugin", "origin"),
    [
        (True, '"latentforge_mine"', ("latentforge-mine", "0.7")),
        (True, "__import__('latentforge_mine')", ("latentforge-mine", "0.7")),
        (False, '"latentforge_mine"', ("", "")),
    ],
)
def test_fixtures_see_the_built_in_plugins_and_those_under_test(tmp_path, packaged, plugin, origin):
    for name, distribution in (("mine", packaged), ("theirs", True)):
        (tmp_path / f"latentforge_{name}.py").write_text(
            HOOKS.format(name=name) + "def speak():\n    print('hello')\n"
        )
        if distribution:
            info = tmp_path / f"latentforge_{name}-0.7.dist-info"
            info.mkdir()
            metadata = f"Metadata-Version: 2.1\nName: latentforge-{name}\nVersion: 0.7\n"
            (info / "METADATA").write_text(metadata)
            spoken = {"mine": "hello", "theirs": "bye"}[name]
            (info / "entry_points.txt").write_text(
                f"[latentforge]\n{name} = latentforge_{name}\n"
                f"[latentforge.commands]\n{spoken} = latentforge_{name}:speak\n"
            )
    (tmp_path / "conftest.py").write_text(CONFTEST.format(plugin=plugin))
    (tmp_path / "test_mine.py").write_text(TESTS.replace("__ORIGIN__", repr(origin)))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "LATENTFORGE_DATA": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert "7 passed" in done.stdout, done.stdout + done.stderr
