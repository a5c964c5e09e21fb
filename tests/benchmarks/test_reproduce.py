"""Short runs of the script of `make reproduce`: every preset for one epoch on digits."""

from __future__ import annotations

import argparse
import importlib
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from latentforge import Forge

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = FOLDER / "reproduce.py"
NUMBER = r"-?[\d.e+-]+"


@pytest.fixture(scope="module")
def reproduce() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("reproduce")
    for name in ("reproduce", "systems"):
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def systems(reproduce) -> ModuleType:
    return sys.modules["systems"]


def script(*arguments):
    command = [sys.executable, str(SCRIPT), "--data", "digits", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_preset_is_a_system_of_the_page(reproduce):
    every = Forge().registry.entries("presets")
    presets = {entry.name for entry in every if "[explore]" not in entry.spec.path.read_text()}
    of_a_gpu = {"fast-mnist-cnn"}  # in no write-up; benchmarks/gpu.py trains it, in a second
    assert presets == {system.preset for system in reproduce.SYSTEMS} | of_a_gpu


@pytest.mark.slow  # 20 s
def test_every_preset_trains_beside_its_plain_build_and_is_on_the_page(reproduce, tmp_path):
    page = tmp_path / "page.md"
    done = script("--epochs", "1", "--page", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text("utf-8")
    assert "two processes side by side with 1 thread each" in text
    for system in reproduce.SYSTEMS:
        assert f"latentforge train --preset {system.preset}\n" in text
        for metric in system.metrics:
            if "nll" in metric.key:  # takes too long, and a plain build does not measure it
                continue
            begin = rf"\| `{system.preset}` \| {metric.key} \| {metric.published or '-'} \|"
            [found] = re.findall(rf"{begin} ({NUMBER}) \| (.*) \| {NUMBER} \|  \|", text)
            reference, bounds = float(found[0]), found[1]
            if math.isinf(metric.margin):
                assert bounds == metric.bounds(reference)
            else:
                limits = [float(limit) for limit in bounds.split(" to ")]
                around = [reference - metric.margin, reference + metric.margin]
                assert limits == pytest.approx(around, rel=1e-4), metric
    times = re.findall(r"Training: [\d.]+ s \(reference\), [\d.]+ s \(LatentForge, ", text)
    assert len(times) == len(reproduce.SYSTEMS)
    assert not re.search(r"\| (\*\*)?differs", text)  # with digits nothing is compared


@pytest.mark.slow
def test_option_only_trains_one_system_and_writes_no_page(tmp_path):
    page = SCRIPT.parents[1] / "docs" / "reproduction.md"
    before = page.read_bytes()
    done = script("--epochs", "1", "--only", "vanilla-ae", "--runs", str(tmp_path / "kept"))
    assert done.returncode == 0
    assert re.search(r"test/bce_per_pixel 0\.\d+ \(reference 0\.\d+\)", done.stdout)
    assert [run.name for run in (tmp_path / "kept").iterdir()] == ["vanilla-ae"]
    assert page.read_bytes() == before
    assert script("--only", "vanila-ae").returncode == 2


@pytest.mark.slow
def test_plain_build_that_fails_stops_the_script(reproduce, tmp_path):
    options = argparse.Namespace(data="digits", epochs=1, seed=0, threads=1)
    [system] = [s for s in reproduce.SYSTEMS if s.preset == "vanilla-ae"]
    result = reproduce.Result(system, {}, {}, 0.0, 0.0, "")
    with (
        reproduce.plain_process(tmp_path / "no-such-file.pt", options) as plain,
        pytest.raises(SystemExit, match="plain build of vanilla-ae failed: exit code 1"),
    ):
        reproduce.with_reference(result, plain)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"margin": 1.0}, (9.0, 11.0), (8.9, 11.1)),
        ({"low": 9.0}, (9.0, 50.0), (8.9,)),
        ({"high": 11.0}, (0.0, 11.0), (11.1,)),
    ],
)
def test_metric_is_compared_with_its_bounds(systems, bounds, inside, outside):
    metric = systems.ReferenceMetric("test/x", **bounds)
    assert all(metric.is_within_bounds(value, 10.0) for value in inside)
    assert not any(metric.is_within_bounds(value, 10.0) for value in (*outside, float("nan")))
    assert not any(metric.is_known(value, 10.0) for value in outside)


def test_margin_moves_with_the_reference_and_needs_one(systems):
    metric = systems.ReferenceMetric("test/x", margin=1.0)
    assert metric.bounds(10.0) == "9 to 11"
    assert metric.bounds(-10.0) == "-11 to -9"
    with pytest.raises(ValueError, match="test/x has a margin, but no plain build measured it"):
        metric.is_within_bounds(10.0, None)


def test_fixed_bounds_need_no_reference(systems):
    metric = systems.ReferenceMetric("test/x", low=9.0)
    assert metric.is_within_bounds(9.5, None)
    assert metric.bounds(None) == metric.bounds(100.0) == "at least 9"


def test_known_difference_has_a_limit(systems):
    metric = systems.ReferenceMetric("test/x", margin=1.0, reason="seeds", slack=0.5)
    assert not metric.is_within_bounds(11.2, 10.0)
    assert metric.is_known(11.2, 10.0)
    assert not metric.is_known(11.6, 10.0)
    assert systems.verdict(metric, 11.2, 10.0, compared=True) == "differs: seeds"
    assert systems.verdict(metric, 11.6, 10.0, compared=True) == "**differs**"
    assert systems.verdict(metric, 10.5, 10.0, compared=True) == "ok"
