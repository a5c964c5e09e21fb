"""`plugins check` from the command line: what it is given, its summary and its exit code."""

from __future__ import annotations

import pytest

from latentforge.plugins.scaffold import new_plugin

PARTIAL = """
from latentforge import DataSpec, LossSpec, ModelSpec, hookimpl
from latentforge.errors import UsageError


def refuse(config, data):
    raise UsageError("it needs maps of 64x64 pixels")


@hookimpl
def latentforge_losses():
    yield LossSpec(name="far", summary="s", build=refuse, needs={"codebook"})
"""


BROKEN_MEASURE = """
from latentforge import MeasureSpec, hookimpl


class Broken:
    def update(self, seen):
        pass

    def compute(self):
        return {"broken": 1.0}


def build(config, context):
    return Broken()


@hookimpl
def latentforge_measures():
    how = {"name": "broken", "summary": "s", "protocol": "1"}
    return [MeasureSpec(build=lambda config, context: build(config, context), **how)]
"""


def components(answer):
    return {check["component"] for check in answer.json["checks"] if check["component"]}


def test_several_names_and_paths_are_checked(cli, work):
    new_plugin("swirl", "model", work)
    (work / "far.py").write_text(PARTIAL)
    answer = cli("plugins", "check", "latentforge-swirl", "./far.py", "inpaint", "--json")
    assert answer.code == 0, answer.err
    assert components(answer) == {"model swirl", "loss far", "objective inpaint"}
    again = cli("plugins", "check", "inpaint", "./far.py", "inpaint", "--json")
    assert components(again) == {"loss far", "objective inpaint"}
    assert len(again.json["checks"]) == len({tuple(c.values()) for c in again.json["checks"]})
    assert cli("plugins", "check", "inpaint", "./farr.py").code == 3
    assert cli("plugins", "check", "inpaint", "inpant").code == 2


def test_component_that_could_not_be_tried_is_no_success(cli, work):
    (work / "far.py").write_text(PARTIAL)
    answer = cli("plugins", "check", "./far.py", "--deep")
    assert answer.code == 4
    assert "not checked loss far: it can be checked: nothing could be tried" in answer.out
    assert "it needs maps of 64x64 pixels" in answer.err
    report = cli("plugins", "check", "./far.py", "--deep", "--json")
    assert (report.code, report.json["exit_code"], report.json["id"]) == (4, 4, "missing")
    statuses = [check["status"] for check in report.json["checks"]]
    untried = statuses.count("not checked")
    assert untried == report.json["not_checked"] > 10
    assert statuses.count("passed") == report.json["passed"] == len(statuses) - untried
    assert answer.err.splitlines()[0] == (
        f"error: {untried} checks of {len(statuses)} could not be tried: "
        f"{report.json['passed']} passed, 0 failed, 0 skipped, {untried} not checked"
    )
    assert report.json["checks"][-1]["status"] == "not checked"


def test_measure_that_always_raises_fails(cli, work):
    for method in ("build", "update"):
        (work / "broken.py").write_text(BROKEN_MEASURE.replace(f"def {method}", "def other"))
        answer = cli("plugins", "check", "./broken.py", "--deep")
        assert answer.code == 3
        check = "it returns finite numbers with a protocol"
        assert f"failed      measure broken: {check}" in answer.out


def test_disabled_plugin_is_not_checked(cli, work):
    answer = cli("-p", "no:vae", "plugins", "check", "vae")
    assert answer.code == 4
    assert "not checked plugin vae: it loads: disabled by -p no:vae" in answer.out


def test_checks_are_given_options_and_data(cli, work):
    new_plugin("swirl", "model", work)
    given = ("--set", "model.latent_dim=2", "--set", "reconstruction.likelihood=gaussian")
    answer = cli("plugins", "check", "./latentforge-swirl", "--deep", *given, "--shape", "1,1,64")
    assert answer.code == 0, answer.err
    skipped = answer.out.count("\nskipped ")
    assert answer.out.splitlines()[-1].endswith(f" 0 failed, {skipped} skipped, 0 not checked")
    assert "passed      model swirl: codes and images have the right shapes [example]" in answer.out
    answer = cli("plugins", "check", "./latentforge-swirl", "--deep", "--data", "digits")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--set", "model.latent_dim=2"], "only the checks of --deep use --set"),
        (["--shape", "1,8,8"], "only the checks of --deep use --shape"),
        (["--deep", "--shape", "1,0"], "is not the shape of one example"),
        (["--deep", "--set", "vae.latent_dims=2"], "did you mean 'latent_dim'?"),
        (["--deep", "--data", "digit"], "did you mean 'digits'?"),
        (["--deep", "--with", "judge=nowhere"], "no checked component has a role 'judge'"),
    ],
)
def test_input_that_no_check_uses_is_refused(cli, work, given, message):
    answer = cli("plugins", "check", "vae", *given)
    assert answer.code == 2
    assert message in answer.err
    assert not answer.out
