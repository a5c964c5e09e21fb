"""Hints of the Python API: they are arguments and calls, and following them works."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentforge import Forge, Run
from latentforge.data.loading import load_data
from latentforge.errors import LatentForgeError


@pytest.fixture(scope="module")
def forge():
    return Forge()


def hint_of(call: Callable[[], object]) -> str:
    with pytest.raises(LatentForgeError) as caught:
        call()
    return " ".join([caught.value.message, *caught.value.details, caught.value.hint])


def follow(text: str, name: str) -> dict[str, Any]:
    """The value of the argument `name` in a hint."""
    return eval(re.search(rf"\b{name}=(\{{[^{{}}]*\}})", text)[1], {})


@pytest.fixture
def ambiguous(work):
    np.savez("two.npz", x=np.random.default_rng(0).integers(0, 255, (30, 3, 9, 3), np.uint8))
    np.savez("dark.npz", x=np.random.default_rng(0).integers(0, 200, (50, 8, 8), np.uint16))
    return {"name": "arrays", "path": "two.npz"}


def test_hints_about_a_dataset_by_name_are_python_and_work(forge, ambiguous):
    def train(data: Any) -> Run:
        return forge.train("ae", data=data, train={"epochs": 1}, quiet=True)

    text = hint_of(lambda: train(ambiguous))
    assert "--" not in text
    data = follow(text, "data")
    assert data == {**ambiguous, "layout": "NCHW"}
    assert train(data).manifest["data"]["shape"] == [3, 9, 3]
    inside = hint_of(lambda: load_data(forge.registry, ambiguous))  # not through the API
    assert "--set data.layout=NCHW" in inside


def test_hints_of_methods_with_options_are_their_options(forge, ambiguous):
    options = follow(hint_of(lambda: forge.load_data("arrays", {"path": "two.npz"})), "options")
    assert forge.load_data("arrays", options).spec.shape == (3, 9, 3)
    text = hint_of(lambda: forge.load_data("two.npz"))
    assert "data='arrays', options={'path': 'two.npz'}" in text
    assert follow(hint_of(lambda: forge.load_data(ambiguous)), "options")["layout"] == "NCHW"


def test_hints_of_evaluations_and_explorations_are_their_arguments(forge, runs):
    text = hint_of(lambda: forge.evaluate("runs/ae", measures=["fid"]))
    assert "roles={'classifier': RUN}" in text
    for options in (["k=3"], {"k": 3}):  # without the measure
        call = partial(forge.evaluate, "runs/ae", measures=["knn_accuracy"])
        text = hint_of(partial(call, options=options)).rpartition("; ")[2]
        assert text.strip() == "options={'knn_accuracy': {'k': 3}}"
        assert call(options={"knn_accuracy": {"k": 3}})["metrics"]
    text = hint_of(lambda: forge.explore("interpolate", "runs/ae", classes=3))
    assert "as in classes=[3, 4]" in text
    text = hint_of(lambda: forge.open_run("runs/ae").evaluate(protocol=9))
    assert text.endswith("protocol=2")
    text = hint_of(lambda: forge.explore("runs/ae", "reconstruct"))
    assert text.endswith("forge.explore('reconstruct', 'runs/ae')")
    text = hint_of(lambda: forge.resume("runs/ae"))
    resumed = forge.resume("runs/ae", train=follow(text, "train"), quiet=True)
    assert resumed.status == "done"


def test_warnings_about_a_dataset_by_name_are_python(work, ambiguous):
    code = (
        "import warnings; from latentforge import Forge\n"
        "with warnings.catch_warnings(record=True) as found:\n"
        "    warnings.simplefilter('always')\n"
        "    Forge().load_data('arrays', {'path': 'dark.npz'})\n"
        "    Forge().train('ae', data={'name': 'arrays', 'path': 'dark.npz'},"
        " train={'epochs': 1}, quiet=True)\n"
        "print(*[w.message for w in found if 'dark' in str(w.message)], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=work)
    loaded, trained = done.stdout.splitlines()
    assert "try options={'path': 'dark.npz', 'white': 255}" in loaded
    assert "try data={'name': 'arrays', 'path': 'dark.npz', 'white': 255}" in trained


def test_the_command_line_keeps_its_options(cli, ambiguous, forge):
    line = ("data", "show", "arrays", "--set", "path=two.npz")
    assert "--set data.layout=NCHW" in cli(*line).err
    assert "options=" in hint_of(lambda: forge.describe_data("arrays", {"path": "two.npz"}))
    assert "--set data.layout=NCHW" in cli(*line).err


def test_findings_of_a_diagnosis_name_calls(forge, work):
    x = np.zeros((60, 8, 8), np.uint8)
    np.savez("flat.npz", x_train=x, y_train=np.arange(60) % 2, x_test=x, y_test=x[:, 0, 0])
    data = {"name": "arrays", "path": str(Path("flat.npz").absolute())}
    run = forge.train("mlp-classifier", data=data, train={"epochs": 1}, quiet=True)
    attempts = [finding.attempt for finding in forge.diagnose(run)]
    calls = [re.findall(r"forge\.describe_data\(.*\)", text) for text in attempts]
    [call] = {call for found in calls for call in found}
    facts = eval(call, {"forge": forge})
    assert facts["fingerprint"] == run.manifest["data"]["fingerprint"]
    assert not [text for text in attempts if "latentforge" in text]


def test_data_that_is_not_a_dataset_is_described(forge, work):
    x, y = np.arange(20 * 64).reshape(20, 8, 8) % 255, np.arange(20) % 2
    facts = forge.describe_data((x.astype(np.uint8), y), {"validation": 0.2})
    assert facts["dataset"] == "in-memory"
    assert facts["images"]["validation"] == 3
    assert Path(facts["picture"]).is_file()
    assert forge.load_data({"name": "digits", "size": 8}).spec.shape == (1, 8, 8)
    assert forge.load_data({"train": x.astype(np.uint8), "validation": 0.1}).splits.keys()
