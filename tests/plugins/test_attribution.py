"""A mistake inside a plugin is told with the plugin, its distribution and its own line."""

from __future__ import annotations

import sys

import pytest
import torch

from latentforge import ExplorerSpec, Forge, hookimpl
from latentforge.errors import RunFailed
from latentforge.plugins.attribution import call_component, code_package

HOOKS = """
import json
from latentforge import ExplorerSpec, hookimpl

def explore(context, options):
    return json.loads("{")

@hookimpl
def latentforge_explorers():
    return [ExplorerSpec(name="odd", summary="", explore=explore)]
"""
LINE = HOOKS.splitlines().index('    return json.loads("{")') + 1


@pytest.fixture
def details(cli, runs, monkeypatch):
    monkeypatch.syspath_prepend(str(runs.parent))
    before = set(sys.modules)

    def call(*words):
        answer = cli(*words, "explore", "odd", "runs/ae")
        assert answer.code == 3
        return answer.err.splitlines()[1]

    yield call
    for name in set(sys.modules) - before:
        if name.startswith("odd"):
            del sys.modules[name]


def test_of_a_file_it_is_the_files_own_line_and_not_the_librarys(details, runs):
    (runs.parent / "odd.py").write_text(HOOKS)
    said = details("-p", "./odd.py")
    assert said == f"  - explorer 'odd' of plugin odd ({runs.parent / 'odd.py'}:{LINE})"


def test_of_a_package_it_may_be_a_module_beside_the_hooks(details, runs):
    package = runs.parent / "oddities"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "look.py").write_text("def explore(context, options):\n    return [][3]\n")
    (package / "hooks.py").write_text(
        HOOKS.replace(
            '    return json.loads("{")', "    from . import look\n    look.explore(0, 0)"
        )
    )
    said = details("-p", "oddities.hooks")
    assert said.endswith(f"of plugin oddities.hooks ({package / 'look.py'}:2)")


def test_of_an_installed_one_the_distribution_is_named(details, runs, monkeypatch):
    (runs.parent / "odd_hooks.py").write_text(HOOKS)
    info = runs.parent / "latentforge_odd-0.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: latentforge-odd\nVersion: 0.7\n")
    (info / "entry_points.txt").write_text("[latentforge]\noddness = odd_hooks\n")
    monkeypatch.setenv("LATENTFORGE_PLUGINS", "latentforge,latentforge-odd")
    said = details()
    place = f"{runs.parent / 'odd_hooks.py'}:{LINE}"
    assert said == f"  - explorer 'odd' of plugin oddness (latentforge-odd 0.7) ({place})"


def test_of_an_object_it_is_the_line_of_its_module(runs):
    class Odd:
        @hookimpl
        def latentforge_explorers(self):
            yield ExplorerSpec(name="odd", summary="", explore=lambda context, options: 1 / 0)

    with pytest.raises(Exception, match="division") as caught:
        Forge(plugins=[Odd()]).explore("odd", "runs/ae")
    line = Odd.latentforge_explorers.__code__.co_firstlineno + 2
    assert f"({__file__}:{line})" in caught.value.details[0]


def test_of_an_object_in_a_package_the_whole_package_is_its_own():
    import latentforge_plugins.traverse.dimensions as loaded

    assert code_package(f"{loaded.__name__}.Traversal") == "latentforge_plugins.traverse"


def test_want_of_memory_says_how_much_was_asked_for_and_what_needs_less():
    def raising(error):
        raise error

    smaller = {"save_memory": "a smaller --batch-size", "dtype": torch.uint8}
    with pytest.raises(RunFailed) as error:
        call_component("step 3", [], torch.empty, 2**55, **smaller)
    assert error.value.message == "out of memory: step 3 asked for 3.36e+07 GiB"
    assert error.value.remedy == "a smaller --batch-size"
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has")
    with pytest.raises(RunFailed, match=r"step 4 asked for 2\.50 GiB\n"):
        call_component("step 4", [], raising, full)
    with pytest.raises(RunFailed, match=r"out of memory: step 5\n"):
        call_component("step 5", [], raising, MemoryError())
