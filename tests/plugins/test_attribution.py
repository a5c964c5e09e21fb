"""An error inside a plugin names the plugin, its distribution and its own line."""

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

    def call(*options):
        answer = cli(*options, "explore", "odd", "runs/ae")
        assert answer.code == 3
        return answer.err.splitlines()[1]

    yield call
    for name in set(sys.modules) - before:
        if name.startswith("odd"):
            del sys.modules[name]


def test_error_in_a_plugin_file_names_its_line_not_the_librarys(details, runs):
    (runs.parent / "odd.py").write_text(HOOKS)
    detail = details("-p", "./odd.py")
    assert detail == f"  - explorer 'odd' of plugin odd ({runs.parent / 'odd.py'}:{LINE})"


def test_error_in_a_package_names_the_module_that_raised(details, runs):
    package = runs.parent / "oddities"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "look.py").write_text("def explore(context, options):\n    return [][3]\n")
    (package / "hooks.py").write_text(
        HOOKS.replace(
            '    return json.loads("{")', "    from . import look\n    look.explore(0, 0)"
        )
    )
    detail = details("-p", "oddities.hooks")
    assert detail.endswith(f"of plugin oddities.hooks ({package / 'look.py'}:2)")


def test_error_in_an_installed_plugin_names_its_distribution(details, runs, monkeypatch):
    (runs.parent / "odd_hooks.py").write_text(HOOKS)
    info = runs.parent / "latentforge_odd-0.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: latentforge-odd\nVersion: 0.7\n")
    (info / "entry_points.txt").write_text("[latentforge]\noddness = odd_hooks\n")
    monkeypatch.setenv("LATENTFORGE_PLUGINS", "latentforge,latentforge-odd")
    detail = details()
    place = f"{runs.parent / 'odd_hooks.py'}:{LINE}"
    assert detail == f"  - explorer 'odd' of plugin oddness (latentforge-odd 0.7) ({place})"


def test_error_in_a_plugin_object_names_its_line(runs):
    class Odd:
        @hookimpl
        def latentforge_explorers(self):
            yield ExplorerSpec(name="odd", summary="", explore=lambda context, options: 1 / 0)

    with pytest.raises(Exception, match="division") as caught:
        Forge(plugins=[Odd()]).explore("odd", "runs/ae")
    line = Odd.latentforge_explorers.__code__.co_firstlineno + 2
    assert f"({__file__}:{line})" in caught.value.details[0]


def test_code_package_of_an_object_is_its_whole_package():
    import latentforge_plugins.traverse.dimensions as loaded

    assert code_package(f"{loaded.__name__}.Traversal") == "latentforge_plugins.traverse"


def test_out_of_memory_error_has_the_requested_size_and_a_hint():
    def raising(error):
        raise error

    smaller = {"save_memory": "a smaller --batch-size", "dtype": torch.uint8}
    with pytest.raises(RunFailed) as error:
        call_component("step 3", [], torch.empty, 2**55, **smaller)
    assert error.value.message == "out of memory: step 3 asked for 3.36e+07 GiB"
    assert error.value.hint == "a smaller --batch-size"
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has")
    with pytest.raises(RunFailed, match=r"step 4 asked for 2\.50 GiB\n"):
        call_component("step 4", [], raising, full)
    with pytest.raises(RunFailed, match=r"out of memory: step 5\n"):
        call_component("step 5", [], raising, MemoryError())
