"""Short runs of the script of `make reproduce`: every preset for one epoch on digits."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from latentforge import Forge

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce.py"


@pytest.fixture(scope="module")
def reproduce():
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reproduce"]


def script(*arguments):
    command = [sys.executable, str(SCRIPT), "--data", "digits", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_preset_is_a_system_of_the_page(reproduce):
    every = Forge().registry.entries("presets")
    presets = {entry.name for entry in every if "[explore]" not in entry.spec.path.read_text()}
    of_a_gpu = {"fast-mnist-cnn"}  # in no write-up; benchmarks/gpu.py trains it, in a second
    assert presets == {system.preset for system in reproduce.SYSTEMS} | of_a_gpu


@pytest.mark.slow  # 20 s
def test_every_preset_trains_and_is_on_the_page(reproduce, tmp_path):
    page = tmp_path / "page.md"
    done = script("--epochs", "1", "--page", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text("utf-8")
    for system in reproduce.SYSTEMS:
        assert f"latentforge train --preset {system.preset}\n" in text
        for metric in system.metrics:
            if "nll" not in metric.key:  # takes too long
                begin = rf"\| `{system.preset}` \| {metric.key} \| .* \| {metric.bounds()} \|"
                assert re.search(begin + r" -?[\d.e+]+ \|", text), metric
    assert not re.search(r"\| (\*\*)?differs", text)  # digits have no reference values


@pytest.mark.slow
def test_option_only_trains_one_system_and_writes_no_page(tmp_path):
    page = SCRIPT.parents[1] / "docs" / "reproduction.md"
    before = page.read_bytes()
    done = script("--epochs", "1", "--only", "vanilla-ae", "--runs", str(tmp_path / "kept"))
    assert done.returncode == 0
    assert re.search(r"test/bce_per_pixel 0\.\d+", done.stdout)
    assert [run.name for run in (tmp_path / "kept").iterdir()] == ["vanilla-ae"]
    assert page.read_bytes() == before
    assert script("--only", "vanila-ae").returncode == 2


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"low": 9.0, "high": 11.0}, (9.0, 11.0), (8.9, 11.1)),
        ({"low": 9.0}, (9.0, 50.0), (8.9,)),
        ({"high": 11.0}, (0.0, 11.0), (11.1,)),
    ],
)
def test_metric_is_compared_with_its_bounds(reproduce, bounds, inside, outside):
    metric = reproduce.ReferenceMetric("test/x", "", 10.0, **bounds)
    assert all(metric.is_within_bounds(value) for value in inside)
    assert not any(metric.is_within_bounds(value) for value in (*outside, float("nan")))
    assert not any(metric.is_known(value) for value in outside)


def test_known_difference_has_a_limit(reproduce):
    metric = reproduce.with_margin("test/x", 10.0, 1.0, reason="seeds", slack=0.5)
    assert not metric.is_within_bounds(11.2)
    assert metric.is_known(11.2)
    assert not metric.is_known(11.6)
    assert reproduce.verdict(metric, 11.2, True) == "differs: seeds"
    assert reproduce.verdict(metric, 11.6, True) == "**differs**"
    assert reproduce.verdict(metric, 10.5, True) == "ok"
