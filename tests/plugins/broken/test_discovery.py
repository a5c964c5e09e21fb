"""Discovery of installed plugins: duplicates, stale and damaged metadata, `off` and `only`."""

from __future__ import annotations

import shutil
import sys

import pytest

from latentforge.errors import UsageError
from latentforge.plugins.loading import load_plugins


def test_two_distributions_with_one_entry_point_name_both_load(site):
    site.add("latentforge-one", site.offering("a"), "shared")
    site.add("latentforge-two", site.offering("b"), "shared")
    registry = load_plugins()
    assert registry.names("models") == ("a", "b")
    assert registry.problems == ()
    with pytest.raises(UsageError, match="latentforge-one/shared and latentforge-two/shared"):
        registry.plugin("shared")
    assert registry.plugin("Latentforge_Two/shared").distribution == "latentforge-two"


def test_stale_second_dist_info_is_ignored(site):
    module = site.add("latentforge-swirl", site.offering("swirl"))
    site.metadata("latentforge-swirl", f"latentforge-swirl = {module}", version="0.9")
    registry = load_plugins()
    assert [plugin.name for plugin in registry.plugins] == ["latentforge-swirl"]
    assert registry.names("models") == ("swirl",)
    assert registry.problems == ()


def test_distribution_in_two_folders_loads_once(site, tmp_path):
    site.add("latentforge-swirl", site.offering("swirl"))
    shutil.copytree(site.folder, tmp_path / "second")
    sys.path.insert(0, str(tmp_path / "second"))
    assert len(load_plugins().plugins) == 1


def test_repeated_entry_point_is_one_plugin(site):
    site.module("swirl", site.offering("swirl"))
    site.metadata("latentforge-swirl", "swirl = swirl\nswirl = swirl")
    registry = load_plugins()
    assert len(registry.plugins) == 1
    assert registry.problems == ()


def test_one_name_for_two_modules_in_one_distribution_is_a_problem(site):
    site.module("swirl_a", site.offering("a"))
    site.module("swirl_b", site.offering("b"))
    site.metadata("latentforge-swirl", "swirl = swirl_a\nswirl = swirl_b")
    registry = load_plugins()
    assert registry.names("models") == ("a",)
    (problem,) = registry.problems
    assert "another plugin is called swirl, so swirl_b is not loaded" in problem.cause


def test_module_named_by_two_distributions_loads_once(site):
    module = site.add("latentforge-new", site.offering("swirl"))
    site.metadata("latentforge-old", f"old = {module}")
    registry = load_plugins()
    assert registry.names("models") == ("swirl",)
    (problem,) = registry.problems
    assert (problem.plugin, problem.stage) == ("old", "register")
    assert "already loaded as latentforge-new/latentforge-new" in problem.cause


def test_an_entry_point_may_name_an_object(site):
    code = (
        "class Pack:\n  @hookimpl\n  def latentforge_models(self): yield model('inner')\n"
        "pack = Pack()\n"
    )
    site.module("packs", code)
    site.metadata("latentforge-packs", "good = packs:pack\nbad = packs:Pack\nworse = packs:none")
    registry = load_plugins()
    assert registry.names("models") == ("inner",)
    assert "register an instance of the class" in registry.plugin("bad").problems[0].remedy
    assert "AttributeError" in registry.plugin("worse").problems[0].cause


def test_entry_point_that_is_not_a_module_is_a_problem(site):
    site.add("latentforge-good", site.offering("good"))
    site.metadata("latentforge-odd", "odd = ./odd.py")
    registry = load_plugins()
    assert registry.names("models") == ("good",)
    assert "'./odd.py' is neither MODULE nor" in registry.plugin("odd").problems[0].cause


def test_malformed_entry_points_file_does_not_hide_other_plugins(site):
    site.add("latentforge-good", site.offering("good"))
    site.metadata("unrelated", "this line has no equals sign")
    registry = load_plugins()
    assert registry.names("models") == ("good",)
    (problem,) = registry.problems
    assert (problem.distribution, problem.stage) == ("unrelated", "discover")
    assert problem.remedy == "pip install --force-reinstall unrelated"


def test_plugin_loads_without_its_metadata_file(site):
    module = site.add("latentforge-good", site.offering("good"))
    (site.folder / f"{module}-1.0.dist-info" / "METADATA").unlink()
    registry = load_plugins()
    assert registry.names("models") == ("good",)
    assert registry.plugins[0].qualifier == module


def test_disabled_plugin_is_not_imported(site):
    module = site.add("latentforge-loud", "raise RuntimeError('imported')", "loud")
    registry = load_plugins(off=["loud"])
    plugin = registry.plugin("loud")
    assert plugin.status == "disabled"
    assert plugin.failure_reason == "plugin loud (latentforge-loud 1.0): disabled by -p no:loud"
    assert registry.problems == ()
    assert module not in sys.modules


@pytest.mark.parametrize("name", ["a", "latentforge-one/a", "Latentforge.One/a"])
def test_off_accepts_plain_and_qualified_names(site, name):
    site.add("latentforge-one", site.offering("one"), "a")
    site.add("latentforge-two", site.offering("two"), "b")
    registry = load_plugins(off=[name])
    assert registry.names("models") == ("two",)


def test_distribution_name_selects_all_its_plugins(site):
    site.module("x", site.offering("x"))
    site.module("y", site.offering("y"))
    site.metadata("latentforge-xy", "x = x\ny = y")
    site.add("latentforge-z", site.offering("z"), "z")
    assert load_plugins(off=["latentforge_xy"]).names("models") == ("z",)
    assert load_plugins(only=["latentforge-xy"]).names("models") == ("x", "y")


def test_allow_list_excludes_all_others_and_the_built_ins(site):
    site.add("latentforge", site.offering("ae"), "autoencoder")
    site.add("latentforge-one", site.offering("one"), "one")
    module = site.add("latentforge-two", "raise RuntimeError('imported')", "two")
    registry = load_plugins(only=["one"])
    assert registry.names("models") == ("one",)
    assert registry.plugin("autoencoder").status == registry.plugin("two").status == "disabled"
    assert registry.plugin("two").off_by == "LATENTFORGE_PLUGINS"
    assert module not in sys.modules


def test_empty_allow_list_keeps_only_explicit_plugins(site, tmp_path):
    site.add("latentforge-one", site.offering("one"), "one")
    site.module("own", site.offering("own"))
    registry = load_plugins([str(site.folder / "own.py")], only=[])
    assert registry.names("models") == ("own",)


def test_allow_list_has_no_effect_without_discovery(site):
    site.add("latentforge-one", site.offering("one"), "one")
    assert load_plugins(discover=False, only=["one"]).plugins == ()


@pytest.mark.parametrize(
    ("options", "source"),
    [({"off": ["swril"]}, "-p no:swril"), ({"only": ["swril"]}, "LATENTFORGE_PLUGINS")],
)
def test_unknown_name_is_refused_before_any_import(site, options, source):
    module = site.add("latentforge-swirl", site.offering("swirl"), "swirl")
    with pytest.raises(UsageError, match=f"{source}: there is no plugin 'swril', did you mean"):
        load_plugins(**options)
    assert module not in sys.modules


def test_explicit_name_of_an_installed_plugin_loads_it_once(site):
    module = site.add("latentforge-swirl", site.offering("swirl"), "swirl")
    registry = load_plugins([module, module])
    assert [plugin.name for plugin in registry.plugins] == ["swirl"]
    assert registry.problems == ()
    again = load_plugins([module], only=[])
    assert {(p.name, p.status) for p in again.plugins} == {("swirl", "disabled"), (module, "ok")}


def test_fifty_plugins_are_each_called_once(site):
    for number in range(50):
        hook = (
            f"@hookimpl\ndef latentforge_models():\n  calls.append(1)\n  yield model('m{number}')"
        )
        site.add(f"latentforge-p{number}", f"calls = []\n{hook}\n")
    registry = load_plugins()
    assert registry.problems == ()
    for number in range(50):
        entry = registry.get("models", f"m{number}")
        assert entry.plugin.distribution == f"latentforge-p{number}"
        assert sys.modules[f"latentforge_p{number}"].calls == [1]
