"""docs/contracts.md is correct: its Python runs, and it names every kind, capability and option."""

from __future__ import annotations

import inspect
import re
import sys
import types
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args

import pytest

from latentforge import Arrays, Forge, contracts, findings, options, search
from latentforge.config.schema import DataConfig
from latentforge.conformance.capabilities import CORE_CAPABILITIES
from latentforge.engine.latent_search import Found
from latentforge.errors import UsageError
from latentforge.specs import KINDS, ExplorerSpec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contracts.md"
TEXT = PAGE.read_text("utf-8")


def blocks(language):
    """(first line's number, code) of each fenced block that starts at the margin."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        yield TEXT.count("\n", 0, found.start(1)), found.group(1)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """An empty module as the page's one namespace, in a folder with the page's TOML files."""
    monkeypatch.chdir(tmp_path)
    for _, code in blocks("toml"):
        name = re.match(r"# (\S+\.toml)\n", code).group(1)
        (tmp_path / name).write_text(code)
    module = types.ModuleType("contracts_page")
    module.__file__ = str(tmp_path / "contracts_page.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_every_python_block_runs_in_order(page, tmp_path):
    for line, code in blocks("python"):
        exec(compile("\n" * line + code, str(PAGE), "exec"), vars(page))
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == [
        "learnt-gaussian-vae-rings-1",
        "mixture-vae-rings-1",
        "refine-rings-1",
        "tiny-cvae-rings-1",
        "tiny-flow-rings-1",
        "tiny-vae-photons-1",
        "tiny-vae-rings-1",
        "tiny-vae-rings-2",
        "tiny-vae-rings-3",
        "two-level-vae-rings-1",
    ]


@pytest.mark.slow  # half a minute
def test_components_of_the_page_keep_their_contract(page, cli, tmp_path, monkeypatch):
    parts = [code for _, code in blocks("python") if re.search("@hookimpl|@dataclass", code)]
    (tmp_path / "page.py").write_text("\n".join(parts))
    monkeypatch.chdir(tmp_path)
    answer = cli("plugins", "check", "./page.py", "--deep", "--json")
    assert answer.code == 0, answer.err
    for kind in KINDS.values():
        assert any(check["component"].startswith(kind.singular) for check in answer.json["checks"])


def test_the_gap_of_the_page_refuses_one_dimension_and_a_constant_factor(page):
    for line, code in blocks("python"):
        if re.search("@hookimpl|@dataclass", code):
            exec(compile("\n" * line + code, str(PAGE), "exec"), vars(page))
    forge = Forge(plugins=[page])
    options = {"data": "rings", "train": {"epochs": 1}, "quiet": True}
    run = forge.train("tiny-vae", model={"latent_dim": 1}, **options)
    with pytest.raises(UsageError, match="two latent dimensions, and the model has one"):
        forge.evaluate(run, measures=["gap"])
    run = forge.train("tiny-vae", **options)
    splits = forge.load_data("rings")
    first = splits.split("test").batch_at([0, 1])
    same = Arrays(first.x[:1], factors={"radius": first.factors["radius"][:1]})
    with pytest.raises(UsageError, match="the same value for all examples"):
        forge.evaluate(run, measures=["gap"], data=same)


def test_the_page_has_an_example_of_every_hook():
    code = "".join(code for _, code in blocks("python"))
    for kind in KINDS.values():
        assert f"def {kind.hook}():" in code
        assert f"| {kind.singular} | `{kind.spec.__name__}` |" in TEXT


def test_page_names_every_field_that_components_receive():
    for value in (contracts.Batch, contracts.Step, contracts.Engines, contracts.EvaluateContext):
        missing = [f.name for f in fields(value) if f"`{f.name}" not in TEXT]
        assert not missing, value
    for name in ("posterior", "z", "recon_logits", "recon", "logits", *options.__all__):
        assert f"`{name}`" in TEXT


def test_the_page_describes_every_field_of_every_finding():
    for kind in get_args(findings.Finding):
        [row] = re.findall(rf"^\| `{kind.__name__}` \|.*$", TEXT, re.MULTILINE)
        own = {f.name for f in fields(kind)} - {"name", "title"}
        missing = [name for name in own if f"`{name}`" not in row]
        assert not missing, kind


def test_page_has_the_arguments_of_every_finding_in_order():
    text = re.sub(r"\n *#  +", " ", TEXT)
    for kind in (*get_args(findings.Finding), findings.Findings, findings.Plane):
        parts = []
        for field in fields(kind):
            value = field.default_factory() if callable(field.default_factory) else field.default
            parts.append(field.name + (f"={value!r}" if value is not MISSING else ""))
        assert f"{kind.__name__}({', '.join(parts)})" in text


def test_page_lists_the_reserved_names_of_findings():
    [section] = re.findall(r"^## Explorers\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    assert all(f"`{name}`" in section for name in findings.RESERVED)


def test_page_describes_explore_context_and_explorer_spec():
    [section] = re.findall(r"^## Explorers\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    first = "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
    for name in (f.name for f in fields(contracts.ExploreContext)):
        assert re.search(rf"`{name}\b", first), name
    for name in (f.name for f in fields(ExplorerSpec)):
        assert re.search(rf"\b{name}\b", section), name
    for name in (f.name for f in fields(findings.Findings)):
        assert name in section


def test_the_page_describes_every_argument_of_a_search_and_what_it_returns():
    [section] = re.findall(r"^## Objectives\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    first = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(first))) == {*inspect.signature(search).parameters}
    for name, argument in inspect.signature(search).parameters.items():
        [row] = re.findall(rf"^\| .*?`{name}`.*?\| (.*) \|$", section, re.MULTILINE)
        if isinstance(argument.default, int | float):
            assert re.search(rf"(?<![\d.]){argument.default:g}(?!\.?\d)", row), name
    for field in fields(Found):
        assert f"`{field.name}`" in section


def test_page_lists_the_reserved_option_names():
    reserved = {*inspect.signature(Forge.explore).parameters, "name", "objective"}
    reserved -= {"self", "options"}
    reserved |= {field.name for field in fields(DataConfig)}
    [sentence] = re.findall(r"These option names are reserved: (.*?)\n\n", TEXT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == reserved


def test_page_lists_the_capabilities_that_the_checks_know():
    [table] = re.findall(r"^\| capability \|.*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    assert {*re.findall(r"^\| `(\w+)`", table, re.MULTILINE)} == CORE_CAPABILITIES


def test_the_page_names_every_capability_of_the_built_in_models():
    for entry in Forge().registry.entries("models"):
        for capability in entry.provides:
            assert f"| `{capability}` |" in TEXT
