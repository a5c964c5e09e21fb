"""Plugins without packaging: files, dotted modules, modules and objects."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from latentforge import ModelSpec, hookimpl
from latentforge.errors import PluginError, UsageError
from latentforge.plugins.discovery import from_environment
from latentforge.plugins.loading import load_plugins

ROOT = Path(__file__).resolve().parents[2]
CODE = """
from __future__ import annotations
from dataclasses import dataclass
from latentforge import ModelSpec, hookimpl

@dataclass(frozen=True)
class Config:
    width: int = 2

def build(config, data): ...

@hookimpl
def latentforge_models():
    yield ModelSpec(name=NAME, summary="", build=build, config=Config, provides={"encode"},
                    default_loss="elbo")
"""


def code(name: str) -> str:
    return CODE.replace("NAME", repr(name))


def model(name: str) -> ModelSpec:
    return ModelSpec(
        name=name, summary="", build=lambda config, data: None, provides=set(), default_loss="elbo"
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def load(*extra, **options):
    return load_plugins(extra, discover=False, **options)


def test_a_file_is_a_plugin(folder):
    (folder / "my.py").write_text(code("mine"))
    registry = load("./my.py")
    entry = registry.get("models", "mine")
    assert entry is registry.get("models", "my/mine")
    assert entry.qualified == "my/mine"
    plugin = registry.plugin("my")
    assert (plugin.module, plugin.distribution, plugin.builtin) == ("./my.py", "", False)
    assert sys.modules[entry.spec.config.__module__].Config is entry.spec.config


def test_plugin_file_can_import_modules_of_its_folder(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "neighbour_of_my.py").write_text("NAME = 'mine'\n")
    (folder / "sub" / "my.py").write_text(
        "from neighbour_of_my import NAME\n"
        + CODE.replace("from __future__ import annotations", "")
    )
    for name in ("sub/my.py", folder / "sub" / "my.py"):
        assert load(name).names("models") == ("mine",)


def test_plugin_file_does_not_hide_an_installed_module(folder):
    (folder / "json.py").write_text("import json\nassert json.dumps\n" + code("mine").lstrip()[34:])
    assert load("json.py").names("models") == ("mine",)
    assert sys.modules["json"].__file__ != str(folder / "json.py")


def test_repeated_file_loads_once_and_a_name_clash_is_refused(folder):
    (folder / "my.py").write_text(code("mine"))
    (folder / "other").mkdir()
    (folder / "other" / "my.py").write_text(code("other"))
    assert len(load("my.py", "./my.py").plugins) == 1
    with pytest.raises(PluginError, match="another plugin is called my"):
        load("my.py", "other/my.py")


def test_an_edited_file_is_read_again(folder):
    (folder / "my.py").write_text(code("one"))
    assert load("my.py").names("models") == ("one",)
    (folder / "my.py").write_text(code("second"))
    assert load("my.py").names("models") == ("second",)


def test_a_dotted_module_is_found_in_the_current_folder(folder):
    (folder / "mypack").mkdir()
    (folder / "mypack" / "__init__.py").write_text("")
    (folder / "mypack" / "inner.py").write_text(code("mine"))
    registry = load("mypack.inner")
    assert registry.get("models", "mypack.inner/mine").plugin.name == "mypack.inner"


def test_an_object_is_named_as_in_an_entry_point(folder):
    (folder / "objective_pack.py").write_text(
        "class Plugins:\n    from latentforge import hookimpl\n"
        "    @hookimpl\n    def latentforge_models(self):\n        return []\n\n\n"
        "class Inner:\n    plugins = Plugins()\n"
    )
    plugin = load("objective_pack:Inner.plugins").plugins[0]
    assert (plugin.name, plugin.module) == ("objective_pack:Inner.plugins",) * 2
    with pytest.raises(PluginError, match=r"import: AttributeError: .* no attribute 'outer'"):
        load("objective_pack:outer")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("./nowhere.py", r"plugin \./nowhere.py cannot be loaded: /.*/nowhere.py does not exist"),
        ("./", "is a folder"),
        ("no_such_pack.inner", "import: ModuleNotFoundError: No module named 'no_such_pack'"),
        ("./broken.py", r"import: ZeroDivisionError: .*broken.py:2\)"),
        ("./exits.py", "import: SystemExit: 1"),
        ("./notes.txt.d/x", "does not exist"),
        ("./notes", "notes is not a Python file"),
        ("./hookless.py", "validate: ./hookless.py has no hooks"),
        ("./later.py", "written for plugin API 9"),
        ("./raises.py", "collect: latentforge_models: KeyError"),
    ],
)
def test_explicit_plugin_that_fails_is_an_error(folder, extra, message):
    (folder / "broken.py").write_text("x = 0\n1 / x\n")
    (folder / "exits.py").write_text("import sys\nsys.exit(1)\n")
    (folder / "notes").write_text("hello")
    (folder / "hookless.py").write_text("x = 0\n")
    (folder / "later.py").write_text("LATENTFORGE_API = 9\n" + code("x").lstrip()[34:])
    (folder / "raises.py").write_text(
        "from latentforge import hookimpl\n@hookimpl\ndef latentforge_models(): {}['x']\n"
    )
    with pytest.raises(PluginError, match=message) as error:
        load(extra)
    assert error.value.exit_code == 3
    assert error.value.hint


def test_explicit_plugin_can_be_disabled_by_name(folder):
    (folder / "swirl.py").write_text("1 / 0")
    registry = load("./swirl.py", off=["swirl"])
    assert registry.plugin("swirl").status == "disabled"
    with pytest.raises(UsageError, match="-p no:swril: there is no plugin 'swril', did you mean"):
        load("./swirl.py", off=["swril"])


def test_modules_and_objects_are_plugins():
    module = types.ModuleType("made_here")

    @hookimpl
    def latentforge_models():
        return [model("from-module")]

    module.latentforge_models = latentforge_models

    @dataclass  # compares by value, so it cannot be hashed
    class Pack:
        name: str

        @hookimpl
        def latentforge_models(self):
            yield model(self.name)

    class Static:
        @staticmethod
        @hookimpl
        def latentforge_models():
            yield model("static")

    registry = load(module, Pack("from-object"), Static)
    assert registry.names("models") == ("from-module", "from-object", "static")
    assert registry.get("models", "made_here/from-module").plugin.module == "made_here"
    assert registry.get("models", "Pack/from-object").plugin.name == "Pack"
    with pytest.raises(PluginError, match="another plugin is called Pack"):
        load(Pack("one"), Pack("two"))


def test_an_object_without_hooks_is_an_error():
    with pytest.raises(PluginError, match="has no hooks"):
        load(object())


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, None),
        ({"LATENTFORGE_PLUGINS": ""}, ()),
        ({"LATENTFORGE_PLUGINS": "a, b ,,latentforge/c"}, ("a", "b", "latentforge/c")),
    ],
)
def test_the_allow_list_comes_from_the_environment(environ, names):
    assert from_environment(environ) == names


def test_loading_plugins_imports_nothing_heavy():
    heavy = ["torch", "ignite", "numpy", "pydantic", "typer"]
    script = (
        "import sys, latentforge.plugins.loading as p; p.load_plugins(discover=False);"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
