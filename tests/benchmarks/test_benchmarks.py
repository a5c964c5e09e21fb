"""The benchmarks at their smallest size: each runs and writes its results. No time is asserted."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import quantile_test

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
MACHINE = {"date", "processor", "cores", "threads", "torch", "python"}


@pytest.fixture(scope="module")
def turns():
    spec = importlib.util.spec_from_file_location("turns", FOLDER / "turns.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["turns"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["turns"]


@pytest.fixture
def run_benchmark(work):
    """Runs a benchmark without MNIST, on random images or digits, and returns its JSON."""

    def call(name: str, *arguments: object) -> dict[str, Any]:
        command = [sys.executable, str(FOLDER / f"{name}.py"), "--repeats", "1"]
        file = work / f"{name}.json"
        done = subprocess.run(
            [*command, "--json", str(file), *map(str, arguments)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(("## ", "without lightning"))
        report = json.loads(file.read_text("utf-8"))
        assert set(report["machine"]) == MACHINE
        assert all(math.isfinite(number) for number in numbers(report))
        return report

    return call


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def test_sides_alternate_and_ratios_are_of_adjacent_runs(turns):
    order = []
    sides = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    took = turns.take_turns(sides, 3)
    assert order == ["a", "b"] * 3
    assert took == {"a": [1, 3, 5], "b": [2, 4, 6]}
    order.clear()
    assert turns.take_turns(sides, 3, swap=True) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert turns.ratio([1, 10, 300], [2, 10, 100]) == 1.0
    assert turns.difference([1, 10, 300], [2, 10, 100]) == 0


def test_median_interval_equals_that_of_scipy(turns):
    draw = np.random.default_rng(0)
    for count in range(6, 41):
        values = draw.lognormal(size=count).tolist()
        expected = quantile_test(values, p=0.5).confidence_interval(0.95)
        assert turns.median_interval(values) == (expected.low, expected.high)
        wide = quantile_test(values, p=0.5).confidence_interval(0.5)
        assert turns.median_interval(values, 0.5) == (wide.low, wide.high)


def test_median_interval_has_the_coverage_of_the_closed_form(turns):
    """1 - 2 P(Binomial(15, 1/2) < 4) = 1 - 2 * 576 / 2**15."""
    draws = np.random.default_rng(0).normal(size=(4000, 15)).tolist()
    intervals = [turns.median_interval(values) for values in draws]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    expected = 1 - 2 * 576 / 2**15
    error = math.sqrt(expected * (1 - expected) / len(draws))
    assert covered == pytest.approx(expected, abs=4 * error)


def test_too_few_values_have_no_interval(turns):
    """The smallest and the largest of five enclose the median with 93.75 %."""
    assert turns.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert turns.median_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.9375) == (1.0, 5.0)


PEAKS = """
import sys
import turns
for megabytes in (300, 1):
    print(turns.run([sys.executable, "-c", f"held = b'x' * {megabytes} * 2**20"]).peak_mb)
"""


def test_peak_memory_is_that_of_the_process_alone():
    """Also if an earlier process used more."""
    command = [sys.executable, "-c", PEAKS]  # small, like every script that measures a peak
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER).stdout
    large, small = map(float, out.split())
    assert 250 < large - small < 350


def test_failed_process_ends_the_benchmark_with_its_output(turns):
    with pytest.raises(SystemExit, match=r"(?s)exit 3\n.*why"):
        turns.run([sys.executable, "-c", "print('why'); raise SystemExit(3)"])


@pytest.mark.slow
def test_plugins_are_installed_and_removed_again(run_benchmark):
    report = run_benchmark("plugins", "--check", "vae")
    assert set(report["checks"]) == {"vae"}
    assert set(report["commands"]) == {"plugins list", "--help"}
    for command in report["commands"].values():
        assert len(command["with"]) == len(command["without"]) == 1


@pytest.mark.slow
def test_throughput(run_benchmark):
    few = ("--images", 4000, "--few", 1280)
    sides = ("--side", "write-up", "--side", "by-hand")
    report = run_benchmark("throughput", "--case", "ae", *few, *sides)
    case = report["cases"]["ae"]
    assert set(case["images_per_second"]) == {"write-up", "by-hand", "latentforge"}
    assert set(case["ratios"]) == {"write-up", "by-hand"}
    assert min(numbers(case)) > 0
    assert report["data"] == "random images"


@pytest.mark.slow
def test_whole(run_benchmark):
    few = ("--images", 256, "--epochs", 2, "--few", 1, "--starts", 1)
    report = run_benchmark("whole", *few, "--side", "by-hand", "--side", "write-up")
    sides = report["sides"]
    assert set(sides) == {"by-hand", "write-up", "latentforge"}
    assert [sides[side]["epochs"] for side in sides] == [2, 1, 2]
    for side in sides.values():
        [seconds], [training], [peak] = (side[k] for k in ("seconds", "training", "peak_mb"))
        [every] = side["all_epochs"]
        assert 0 < training < seconds <= every
        assert peak > 100  # torch alone takes more
    started = report["start_up"]
    assert {"latentforge --help", "import torch, ignite"} < set(started)
    steps = {name for name in started if name.endswith("to its first step")}
    assert len(steps) == 3
    light = max(started["latentforge --help"]["peak_mb"])
    assert all(min(started[name]["peak_mb"]) > 2 * light for name in steps)


@pytest.mark.slow
def test_growth(run_benchmark):
    report = run_benchmark("growth", "--images", 128, "--case", "more", "--case", "larger")
    assert [s["images"] for s in report["cases"]["more"]["sizes"].values()] == [128, 512, 2048]
    for case in report["cases"].values():
        assert min(numbers(case)) > 0
        first, *_ = case["sizes"].values()
        assert first["of_the_first"] == 1.0
    small, _, large = report["cases"]["larger"]["sizes"].values()
    assert large["peak_mb"] > small["peak_mb"]  # a network of eight million weights


@pytest.mark.slow
def test_search(run_benchmark):
    report = run_benchmark("search", "--data", "digits", "--epochs", 20, "--requests", 10)
    found = report["requests"]["10"]
    assert min(found["alike"]["requests_per_second"]) > 0
    assert found["ratio"] > 0
    assert found["by-hand"]["same"] == [1.0]  # both sides took the same steps
    [met], [by_hand] = (found[side]["success_share"] for side in ("alike", "by-hand"))
    assert met == pytest.approx(by_hand)
    assert met > 0


@pytest.mark.slow
def test_profile_step(run_benchmark):
    cases = run_benchmark("profile_step", "--images", 640)["cases"]
    assert set(cases) == {"vae", "ae", "mlp-classifier"}
    for sides in cases.values():
        assert min(sides["latentforge"].values()) > 0
        for part in ("gather", "forward", "backward", "optimizer", "gradients", "history"):
            assert sides["by-hand"][part] > 0
        assert sides["products"] > 0


@pytest.mark.slow
def test_together(run_benchmark):
    report = run_benchmark("together", "--members", 2, "--data", "digits")
    assert set(report["seconds"]) == {"one by one", "together"}
    assert min(numbers(report["ratios"])) > 0
    assert report["steps_of_one"] == pytest.approx(2 / report["ratios"]["steps"])


@pytest.mark.slow
def test_checkpoints(run_benchmark):
    report = run_benchmark("checkpoints", "--data", "digits")
    assert len(report["megabyte_ms"]["latentforge"]) == 10
    assert min(numbers(report["megabyte_ms"])) > 0
    assert 0 < report["checkpoint_ms"] < report["epoch_ms"]
