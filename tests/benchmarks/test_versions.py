"""The comparison of two checkouts: its verdict, and short runs against this checkout itself."""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def versions() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("versions")
    for name in ("versions", "turns"):
        sys.modules.pop(name, None)


@pytest.fixture
def run_versions(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the script with one thread, without MNIST."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(FOLDER / "versions.py"), "--threads", "1"]
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, cwd=work
        )

    return call


def test_case_is_slower_only_if_its_interval_is_below_the_limit(versions, capsys):
    base = [100.0, 200.0, 50.0, 100.0, 200.0, 50.0]
    shares = {"slower": 0.97, "unclear": 0.99}  # the fastest of six pairs, all in the interval
    cases = {}
    for name, fastest in shares.items():
        ratios = [0.90, 0.91, 0.92, 0.93, 0.94, fastest]
        # the 90 % quantile of these eleven measurements is `rate`
        parts = [i / 9 for i in range(11)]
        pairs = [
            {
                "base": [rate * part for part in parts],
                "new": [rate * ratio * part for part in parts],
            }
            for rate, ratio in zip(base, ratios, strict=True)
        ]
        cases[name] = versions.compare_rates(pairs)
        assert cases[name]["ratio"] == pytest.approx(0.925)
        assert cases[name]["interval"] == pytest.approx((0.90, fastest))
    assert versions.verdict(cases, pairs=6) == 1
    assert capsys.readouterr().out.endswith("below 0.98: slower.\n")
    assert versions.verdict({"unclear": cases["unclear"]}, pairs=15) == 0
    assert capsys.readouterr().out == "\nInterval entirely below 0.98: no case.\n"


def test_folder_that_is_not_a_checkout_is_refused(run_versions, work):
    done = run_versions(work, ROOT, "--case", "help", "--pairs", 1)
    assert done.returncode == 1
    assert f"{work} is not a checkout of LatentForge" in done.stderr


def test_comparison_with_zero_pairs_is_refused(run_versions):
    done = run_versions(ROOT, ROOT, "--pairs", 0)
    assert done.returncode == 2
    assert "--pairs 0: at least 1" in done.stderr


def test_the_training_cases_are_the_networks_of_the_benchmarks(versions):
    networks = importlib.import_module("networks")
    assert set(versions.STEPS) == {*networks.CASES, "epochs"}


@pytest.mark.slow
def test_a_checkout_is_compared_with_itself(run_versions, work):
    file, cases = work / "versions.json", ("ae", "evaluate-vae", "help")
    asked = [word for case in cases for word in ("--case", case)]
    done = run_versions(ROOT, ROOT, "--pairs", 1, "--steps", 3, "--json", file, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Note: fewer than 15 pairs were used: 1." in done.stdout
    report = json.loads(file.read_text("utf-8"))
    assert (report["data"], report["pairs"], report["machine"]["threads"]) == ("digits", 1, 1)
    assert report["base"] == report["new"] == str(ROOT)
    assert tuple(report["cases"]) == cases
    for found in report["cases"].values():
        [pair] = found["pairs"]
        assert len(pair["base"]) == len(pair["new"]) >= 5
        assert min(pair["base"]) > 0
        base, new = (
            statistics.quantiles(rates, n=10, method="inclusive")[-1] for rates in pair.values()
        )
        assert found["ratio"] == pytest.approx(new / base)
        assert found["interval"] is None
