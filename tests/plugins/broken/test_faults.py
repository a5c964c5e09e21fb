"""Each fault of a plugin becomes a problem that names it, and the other plugins still load."""

from __future__ import annotations

import sys

import pytest

from latentforge.plugins.loading import load_plugins


def broken_beside_healthy(site, code):
    """The registry and the broken plugin, `bad` of latentforge-bad, next to a healthy one."""
    site.add("latentforge-good", site.offering("good"), "good")
    site.add("latentforge-bad", code, "bad", version="0.3")
    registry = load_plugins()
    assert "good" in registry.names("models")
    assert registry.plugin("good").status == "ok"
    assert {p.plugin for p in registry.problems} == {"bad"}
    return registry, registry.plugin("bad")


@pytest.mark.parametrize(
    ("code", "stage", "causes"),
    [
        ("import no_such_module", "import", ["ModuleNotFoundError", "no_such_module", ".py:"]),
        ("raise SystemExit(3)", "import", ["SystemExit: 3", "latentforge_bad_bad.py:"]),
        ("class Odd(BaseException): pass\nraise Odd('so')", "import", ["Odd: so"]),
        ("import asyncio\nraise asyncio.CancelledError('so')", "import", ["CancelledError: so"]),
        ("def broken(:", "import", ["SyntaxError", "latentforge_bad_bad.py:"]),
        (
            "@hookimpl\ndef latentforge_models(config): return []",
            "validate",
            ["latentforge_models(config)", "takes arguments"],
        ),
        (
            "@hookimpl\ndef latentforge_modles(): return []",
            "validate",
            ["no hook latentforge_modles", "did you mean 'latentforge_models'"],
        ),
        ("def latentforge_models(): return []", "validate", ["latentforge_models is not marked"]),
        (
            "@hookimpl(wrapper=True)\ndef latentforge_models():\n  return (yield)",
            "validate",
            ["latentforge_models is a wrapper"],
        ),
        (
            "LATENTFORGE_API = 3\n@hookimpl\ndef latentforge_models(): yield model('bad')",
            "validate",
            ["written for plugin API 3; this LatentForge supports 1 and 2"],
        ),
        (
            "LATENTFORGE_API = True\n@hookimpl\ndef latentforge_models(): yield model('bad')",
            "validate",
            ["written for plugin API True; this LatentForge supports 1 and 2"],
        ),
        ("x = 1", "validate", ["latentforge_bad_bad has no hooks"]),
        ("def __dir__(): 1 / 0", "validate", ["ZeroDivisionError", "latentforge_bad_bad.py:"]),
        (
            "@hookimpl\ndef latentforge_models(): 1 / 0",
            "collect",
            ["latentforge_models: ZeroDivisionError", "latentforge_bad_bad.py:"],
        ),
        (
            "@hookimpl\ndef latentforge_models(): raise SystemExit",
            "collect",
            ["latentforge_models: SystemExit"],
        ),
        (
            "class Odd(BaseException): pass\n@hookimpl\ndef latentforge_models(): raise Odd('so')",
            "collect",
            ["latentforge_models: Odd: so"],
        ),
        (
            "@hookimpl\ndef latentforge_models(): return model('bad')",
            "collect",
            ["returned ModelSpec, not ModelSpecs"],
        ),
        ("@hookimpl\ndef latentforge_models(): pass", "collect", ["returned NoneType"]),
        ("@hookimpl\ndef latentforge_models(): return 'ae'", "collect", ["returned str"]),
    ],
)
def test_broken_plugin_fails_alone_with_its_cause(site, code, stage, causes):
    registry, plugin = broken_beside_healthy(site, code)
    assert plugin.status == "failed"
    (problem,) = plugin.problems
    assert (problem.distribution, problem.version, problem.stage) == (
        "latentforge-bad",
        "0.3",
        stage,
    )
    for cause in causes:
        assert cause in problem.cause
    assert problem.remedy
    assert registry.names("models") == ("good",)


@pytest.mark.parametrize(
    ("code", "causes"),
    [
        ("DatasetSpec(name='x', summary='', load=build)", ["ModelSpec", "got DatasetSpec 'x'"]),
        ("'ae'", ["expected ModelSpec, got str"]),
        ("model('Upper Case')", ["'Upper Case'", "lower-case"]),
        ("model('a/b')", ["'a/b'"]),
        ("model(7)", ["name 7"]),
        ("model('x', build='build')", ["model 'x'", "build must be a function"]),
        ("model('x', summary=None)", ["model 'x'", "summary"]),
        ("model('x', default_loss=build)", ["model 'x'", "default_loss"]),
        ("model('x', provides='encode')", ["model 'x'", "provides must be a set"]),
        ("model('x', config=Good())", ["model 'x'", "config must be a dataclass"]),
        ("model('x', config=dict)", ["model 'x'", "config must be a dataclass"]),
        ("model('x', config=Thawed)", ["model 'x'", "config Thawed must be frozen"]),
        ("model('x', config=Bare)", ["model 'x'", "config Bare.latent_dim has no default"]),
        ("model('fine')", ["already provides a component of that name"]),
    ],
)
def test_bad_spec_is_reported_and_the_others_load(site, code, causes):
    configs = """
@dataclass(frozen=True)
class Good:
    widths: list = field(default_factory=list)
@dataclass
class Thawed:
    latent_dim: int = 2
@dataclass(frozen=True)
class Bare:
    latent_dim: int
"""
    hook = (
        f"@hookimpl\ndef latentforge_models():\n  yield model('fine', config=Good)\n  yield {code}"
    )
    registry, plugin = broken_beside_healthy(site, configs + hook + "\n  yield model('last')\n")
    assert registry.names("models") == ("fine", "good", "last")
    assert plugin.status == "ok"  # its valid specs are registered
    (problem,) = plugin.problems
    assert problem.stage == "collect"
    for cause in causes:
        assert cause in problem.cause


def test_specs_of_other_kinds_are_validated(site):
    code = """
@hookimpl
def latentforge_presets():
    return [PresetSpec(name="none", summary="", path=Path("/nowhere.toml")),
            PresetSpec(name="here", summary="", path=Path(__file__)),
            PresetSpec(name="odd", summary="", path=7)]
@hookimpl
def latentforge_datasets():
    return [DatasetSpec(name="d", summary="", load=None),
            DatasetSpec(name="e", summary="", load=build, splits=("train")),
            DatasetSpec(name="f", summary="", load=build, fetch="https://example.org")]
@hookimpl
def latentforge_objectives():
    return [ObjectiveSpec(name="shape", summary="", build=build, example=(1, 8, 8)),
            ObjectiveSpec(name="range", summary="", build=build,
                          example=DataSpec((2,), "vector", range=(2.0, 4.0)))]
@hookimpl
def latentforge_losses():
    return [LossSpec(name="free", summary="", build=build, needs=lambda config: {"encode"}),
            LossSpec(name="list", summary="", build=build, needs=["encode"])]
@hookimpl
def latentforge_explorers():
    return [ExplorerSpec(name="s", summary="", explore=build, searches=3)]
@hookimpl
def latentforge_measures():
    return [MeasureSpec(name="up", summary="", build=build, protocol="", better="up")]
"""
    registry, plugin = broken_beside_healthy(site, code)
    assert registry.names("presets") == ("here",)
    assert registry.names("losses") == ("free",)
    assert registry.names("datasets") == ()
    causes = [problem.cause for problem in plugin.problems]
    expected = [
        "loss 'list': needs must be a set of names, not ['encode']",
        "dataset 'd': load must be a function, not None",
        "dataset 'e': splits must be a tuple of names or a function, not 'train'",
        "dataset 'f': fetch must be a function, not 'https://example.org'",
        "explorer 's': searches must be the name of an objective, not 3",
        "objective 'shape': example must be a DataSpec, not (1, 8, 8)",
        "objective 'range': example.range must be one of [(0.0, 1.0), (-1.0, 1.0), (0.0, inf), "
        "None], not (2.0, 4.0)",
        "measure 'up': better must be 'lower' or 'higher', not 'up'",
        "preset 'none': path '/nowhere.toml' is not a file",
        "preset 'odd': path '7' is not a file",
    ]
    assert sorted(causes) == sorted(expected)


def test_specs_yielded_before_an_error_are_registered(site):
    code = (
        "@hookimpl\ndef latentforge_models():\n  yield model('first')\n  [][1]\n  yield model('x')"
    )
    registry, plugin = broken_beside_healthy(site, code)
    assert registry.names("models") == ("first", "good")
    (problem,) = plugin.problems
    assert "IndexError" in problem.cause
    line = _file(site).read_text().splitlines().index("  [][1]") + 1
    assert f"latentforge_bad_bad.py:{line}" in problem.cause


def _file(site):
    return site.folder / "latentforge_bad_bad.py"


def test_good_hooks_load_beside_a_bad_one(site):
    code = site.offering("fine") + "\n@hookimpl\ndef latentforge_losses(config): return []\n"
    registry, plugin = broken_beside_healthy(site, code)
    assert registry.names("models") == ("fine", "good")
    assert plugin.status == "ok"
    assert [problem.stage for problem in plugin.problems] == ["validate"]


def test_problem_names_the_line_of_the_plugin_not_the_library(site):
    code = "import json\njson.loads('{')\n"
    _, plugin = broken_beside_healthy(site, code)
    line = _file(site).read_text().splitlines().index("json.loads('{')") + 1
    assert f"({_file(site)}:{line})" in plugin.problems[0].cause


def test_keyboard_interrupt_is_not_caught(site):
    site.add("latentforge-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


def test_hint_is_a_command(site):
    _, plugin = broken_beside_healthy(site, "import no_such_module")
    (problem,) = plugin.problems
    assert "pip install --upgrade latentforge-bad" in problem.remedy
    assert "latentforge -p no:latentforge-bad/bad" in problem.remedy
    assert load_plugins(off=["bad"]).problems == ()


def test_hooks_with_a_specname_and_optional_hooks_work(site):
    code = """
@hookimpl(specname="latentforge_models")
def networks():
    yield model("renamed")
@hookimpl(optionalhook=True)
def latentforge_of_a_later_version():
    yield 1
"""
    site.add("latentforge-good", code)
    registry = load_plugins()
    assert registry.names("models") == ("renamed",)
    assert registry.problems == ()


def test_broken_module_is_removed_from_sys_modules(site):
    module = site.add("latentforge-bad", "raise ValueError('no')")
    load_plugins()
    assert module not in sys.modules
