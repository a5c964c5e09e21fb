"""The content of the script of `make gallery`: every command on small runs on digits, the metrics
that its texts and tables use, and the pictures' colours."""

from __future__ import annotations

import importlib
import json
import math
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from latentforge import Forge
from latentforge.cli.app import app
from latentforge.cli.app import run as run_cli
from latentforge.cli.output import parse_roles
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.findings import Film
from latentforge.rendering.findings_store import pack
from latentforge.rendering.write import npz
from latentforge.workflows.run import open_run

from .. import undrawn

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PARTS = ("content", "looks", "maps", "metrics", "page", "pictures", "search", "training")
REGISTRY = Forge().registry
SMALL = {  # values with which a command takes little time on digits
    r"\bn=1000?\b": "n=20",
    r"\bsteps=400\b": "steps=3",
    r"( explore guided .*)": r"\1 --set restarts=2 --set settle=2",
    r"( explore guided (?!.*steps=)(?!.*inpaint).*)": r"\1 --set steps=3",
    r"( explore guided (?!.*inpaint).*)": r"\1 --set threshold=0.05",
    r"( explore guided runs/vae16 (?!.*inpaint).*)": r"\1 --set sample=3",
    r"( explore latent-map .*)": r"\1 --set n=100",
    r"( --preset inpaint-lower-half.*)": r"\1 --set n=3 --set steps=3",
}
COPIED = {"vae2-beta0": "vae2", "vae2-beta4": "vae2", "ae2-tanh": "ae2"}
COPIED |= dict.fromkeys(("vae10-beta1", "vae10-beta4", "conv-vae"), "vae16")


@pytest.fixture(scope="module")
def gallery():
    """The modules of the script: `content`, `looks` and so on, and `main`."""
    sys.path.insert(0, str(FOLDER))
    names = {**{part: f"gallery_{part}" for part in PARTS}, "main": "gallery"}
    yield SimpleNamespace(**{key: importlib.import_module(name) for key, name in names.items()})
    for name in names.values():
        del sys.modules[name]
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def folder(gallery, tmp_path_factory):
    """A folder with all `runs` of the gallery, trained on digits, or copied from a run of the same
    kind, which takes less time. Read only, except for `out`."""
    where = tmp_path_factory.mktemp("gallery")
    histories = [i for s in gallery.looks.SECTIONS for i in s.items if hasattr(i, "every")]
    epochs = {history.run: history.every for history in histories}
    for run in {*gallery.content.RUNS} - {*COPIED}:
        words = shlex.split(gallery.content.train_command(run, str(where / "runs")))[1:]
        small = ["--data", "digits", "--epochs", str(epochs.get(run, 1)), "--quiet"]
        assert run_cli([*words, *small]) == 0
    for run, like in COPIED.items():
        shutil.copytree(where / "runs" / like, where / "runs" / run)
    return where


@pytest.fixture(scope="module")
def results(gallery, folder):
    """The results of all looks and histories, and by look the files of its findings."""
    found, files = gallery.metrics.Results(seconds=60.0), {}
    for item in gallery.main.ITEMS.values():
        if isinstance(item, gallery.content.Look):
            output, files[item.name] = find(item.command, folder, item.name)
            found.metrics[item.name] = gallery.metrics.derive(item, output, folder, 1.0)
            found.other_load[item.name] = 0.0
        else:
            values = gallery.training.read_values(item, folder / "runs")
            found.tables[item.name] = gallery.training.format_table(item, values)
    return found, files


def find(command: str, folder: Path, name: str) -> tuple[dict[str, Any], set[str]]:
    """The output of an explorer, and the names of its pictures, which would take long to draw."""
    for pattern, value in SMALL.items():
        command = re.sub(pattern, value, command)
    _, _, *words = shlex.split(command)
    given = get_command(app).commands["explore"].make_context("explore", words).params
    run = open_run(REGISTRY, folder / given["run"])
    roles = {role: folder / other for role, other in parse_roles(given["with_"]).items()}
    findings = undrawn.find(
        REGISTRY,
        given["explorer"],
        run,
        roles=roles,
        assignments=given["set_"] or (),
        preset=given["preset"],
    )
    out = folder / "out" / name
    out.mkdir(parents=True)
    for item in findings.items:
        if arrays := pack(item)[1]:
            (out / f"{item.name}.npz").write_bytes(npz(arrays))
    pictures = {f"{i.name}{'.gif' if isinstance(i, Film) else '.png'}" for i in findings.items}
    return {"metrics": findings.metrics, "out": f"out/{name}"}, pictures


def test_every_picture_of_the_page_is_made_by_its_command(gallery, results):
    for name, files in results[1].items():
        assert {*gallery.main.ITEMS[name].pictures} <= files, name


def test_texts_and_tables_use_metrics_that_the_commands_report(gallery, results):
    found, _ = results
    page = gallery.page.markdown(found)  # a missing metric of a text raises KeyError
    assert not re.search(r"[{}]|\bnan\b", page)
    assert "published search, AE z=2, SGD | requests that reach p >= 0.9 | 12% to 29%" in page
    for section in gallery.looks.SECTIONS:
        for item in section.items:
            if isinstance(item, gallery.content.Comparison):
                reported = [found.metrics[look].keys() for look in item.looks]
                assert {*item.rows} <= set().union(*reported)


def test_every_run_is_used_and_every_used_run_is_trained(gallery):
    used = set().union(*map(gallery.main.runs_of, [*gallery.main.ITEMS, "report"]))
    assert used == {*gallery.content.RUNS}


@pytest.fixture(scope="module")
def configs(gallery):
    """The configuration of each run, from the command that trains it."""
    found = {}
    for run in gallery.content.RUNS:
        _, _, *words = shlex.split(gallery.content.train_command(run, "runs"))
        given, draft = get_command(app).commands["train"].make_context("train", words), Draft()
        draft.read_file(REGISTRY.get("presets", given.params["preset"]).spec.path)
        draft.assign_all(given.params["set_"] or ())
        found[run] = resolve(draft, REGISTRY)
    return found


def test_codes_of_the_run_with_tanh_have_a_tanh(configs):
    assert configs["ae2-tanh"].model.options.latent_activation == "tanh"


def test_published_values_are_of_the_epochs_in_the_table(gallery, configs):
    for item in gallery.training.TRAINING.items:
        epochs = configs[item.run].train.epochs
        assert epochs % item.every == 0
        assert len(item.published) in (0, epochs // item.every)
        assert {*item.charted} <= {*item.columns}


def test_tables_over_epochs_contain_the_stored_metrics(gallery, folder, results):
    lines = (folder / "runs/ae16/metrics.jsonl").read_text("utf-8").splitlines()
    stored = json.loads(lines[0])["test"]["bce_per_pixel"]
    assert results[0].tables["ae16-losses"][2] == f"| 1 | {stored:.4f} | 0.1403 |"


def test_run_without_the_metrics_of_the_table_is_refused(gallery, folder, tmp_path):
    shutil.copytree(folder / "runs/ae16", tmp_path / "ae16")
    file = tmp_path / "ae16/metrics.jsonl"
    line = json.loads(file.read_text("utf-8"))
    del line["test"]
    file.write_text(json.dumps(line), "utf-8")
    with pytest.raises(SystemExit, match=r"no test\.bce_per_pixel for epoch 1"):
        gallery.training.read_values(gallery.training.AUTOENCODER, tmp_path)


@pytest.mark.parametrize(
    ("value", "verdict"), [(1.0, "ok"), (1.1, "**missed**"), (math.nan, "**missed**")]
)
def test_metric_is_compared_with_its_bounds(gallery, value, verdict):
    assert gallery.content.Metric("look", "key", "name", high=1).verdict(value) == verdict
    assert gallery.content.Metric("look", "key", "name").verdict(value) == ""


def test_missed_time_has_no_verdict_under_other_load(gallery):
    metric = gallery.content.Metric("look", "search_seconds", "seconds", high=1)
    found = gallery.metrics.Results({"look": {"search_seconds": 2.0}}, {"look": 0.1})
    assert found.verdict(metric) == "**missed**"
    found.other_load["look"] = 0.5
    assert found.verdict(metric) == "no verdict: other programs used 0.5 cores"


def test_rare_colours_stay_apart_in_copied_pictures(gallery, tmp_path):
    """A single green point among 40,000 points of many blues and reds."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (200, 200, 3), np.uint8)
    pixels[..., 1] = 0
    pixels[100, 100] = (0, 128, 90)
    Image.fromarray(pixels).save(tmp_path / "colours.png")
    gallery.pictures.copy_picture(tmp_path / "colours.png", tmp_path / "copy.png")
    copy = np.asarray(Image.open(tmp_path / "copy.png").convert("RGB")).astype(int)
    assert tuple(copy[100, 100]) == (0, 128, 90)
    assert np.linalg.norm(copy - pixels, axis=2).max() < 30


def test_grey_pictures_are_copied_with_a_small_error(gallery, tmp_path):
    pixels = np.arange(256, dtype=np.uint8)[None].repeat(10, 0)
    Image.fromarray(pixels).save(tmp_path / "greys.png")
    gallery.pictures.copy_picture(tmp_path / "greys.png", tmp_path / "copy.png")
    copy = np.asarray(Image.open(tmp_path / "copy.png").convert("L")).astype(int)
    assert np.abs(copy - pixels).max() <= 5
    assert {0, 255} <= {*copy.flatten().tolist()}
