"""The findings of an objective, next to those of the explorer that searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentforge.findings import (
    Findings,
    NamedArrays,
    ObjectiveFindingsError,
    Table,
    join_findings,
)

BRIGHT = """
from latentforge import ObjectiveSpec, hookimpl
from latentforge.findings import Findings, NamedArrays

class Bright:
    requests = ["bright", "brighter"]

    def score(self, x, request):
        return x.flatten(1).mean(1) - 0.1 * request

    def satisfied(self, x, request):
        return self.score(x, request) > 0

    def findings(self, x):
        FINDINGS

@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(name="bright", summary="s", build=lambda config, context: Bright())
"""
FAST = ("--set", "restarts=2", "--set", "steps=5", "--set", "objective=bright")


@pytest.fixture
def guided(cli, runs):
    """Run `guided` with an objective whose `findings` contains this code."""

    def run(code):
        Path("bright.py").write_text(BRIGHT.replace("FINDINGS", code))
        return cli("-p", "./bright.py", "explore", "guided", "runs/ae", *FAST, "--json")

    return run


def test_guided_adds_the_findings_of_the_objective(guided):
    answer = guided(
        'return Findings([NamedArrays("bright", {"x": x})], {"bright_mean": 1.0}, "bright: so")'
    )
    assert answer.code == 0, answer.err
    assert {"bright_mean", "success_share"} <= {*answer.json["metrics"]}
    assert answer.json["protocol"].startswith("bright: so; ")
    files = [Path(file).name for file in answer.json["files"]]
    assert files.index("results.png") < files.index("bright.npz") < files.index("found.npz")


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ('return Findings([], {"success_share": 0.5}, "p")', "metric 'success_share'"),
        ('return Findings([NamedArrays("found", {"x": x})])', "finding 'found'"),
        ("return x", "returned Tensor, not Findings"),
    ],
)
def test_findings_that_clash_are_an_error_of_the_objective(guided, code, named):
    answer = guided(code)
    assert answer.code == 3
    assert answer.json["error"].startswith("objective 'bright' does not fit explorer 'guided': ")
    assert named in answer.json["error"]
    assert not Path("runs/ae/explore/guided").exists()


def test_joined_findings_keep_everything():
    one = Findings([Table("a", "A", ["c"], [["1"]])], {"m": 1.0}, "m: so", ["note"], {"a": "judge"})
    other = Findings([NamedArrays("b", {})], {"n": 2.0}, "", ["other"], {"b": "other"})
    assert join_findings(one, other) == Findings(
        [*one.items, *other.items],
        {"m": 1.0, "n": 2.0},
        "m: so",
        ["note", "other"],
        {"a": "judge", "b": "other"},
    )


def test_every_clash_is_named():
    one = Findings([NamedArrays("a", {})], {"m": 1.0, "n": 1.0}, "p")
    with pytest.raises(ObjectiveFindingsError, match="finding 'a', metric 'm', metric 'n'"):
        join_findings(one, one)
