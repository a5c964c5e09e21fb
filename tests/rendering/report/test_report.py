"""The report as a file: location, content, overwrite protection and damaged folders."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import shutil
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentforge import Forge
from latentforge.rendering.report.images import compress
from latentforge.rendering.report.location import default_path
from latentforge.rendering.report.write import report


class Reader(HTMLParser):
    """Collects the visible text, the commands, the images and all links of a page."""

    def __init__(self, text):
        super().__init__()
        self.words, self.commands, self.images, self.asked, self.inside = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta", "link", "input", "img"):
            self.inside.append((tag, attrs.get("class")))
        if self.inside[-1] == ("pre", "command"):
            self.commands.append("")
        if tag == "img":
            self.images.append(attrs["src"])
        self.asked += [attrs[key] for key in ("src", "href", "srcset") if key in attrs]

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self.inside and self.inside[-1][0] not in ("script", "style"):
            self.words.append(data)
        if ("pre", "command") in self.inside:
            self.commands[-1] += data


def read(path):
    return Reader(Path(path).read_text("utf-8"))


@pytest.fixture(scope="session")
def explored_once(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    shutil.copytree(trained, folder / "runs")
    with chdir(folder):  # findings contain the path of the run
        Forge().explore("interpolate", "runs/ae", classes=(3, 8), steps=4, quiet=True)
    return folder / "runs"


@pytest.fixture
def explored(explored_once, work):
    """`runs/ae` with an exploration, and `runs/cnn`, in the working folder."""
    return Path(shutil.copytree(explored_once, work / "runs"))


def test_report_is_written_into_the_run_and_replaces_itself(explored, cli):
    for _ in range(2):
        done = cli("report", "runs/ae", "--json")
        assert done.code == 0
        assert done.json["report"] == "runs/ae/report.html"
        assert done.json["explored"] == ["runs/ae/explore/interpolate"]
        assert done.json["warnings"] == []
    assert Path("runs/ae/report.html").stat().st_size == done.json["bytes"] < 15e6
    assert [path.name for path in Path("runs/ae").glob(".report*")] == []


def test_page_requests_no_files(explored, cli):
    cli("report", "runs/ae")
    asked = read("runs/ae/report.html").asked
    assert asked
    assert {link.split(":")[0] for link in asked if not link.startswith("#")} == {"data"}


def test_report_can_be_written_from_python(explored, work):
    run = Forge().open_run("runs/ae")
    assert run.report() == Path("runs/ae/report.html")
    assert run.report(out="elsewhere/page.html") == Path("elsewhere/page.html")
    assert "interpolate" in read("elsewhere/page.html").text


def test_page_shows_the_metrics_of_the_run_with_their_protocol(explored, cli):
    evaluated = cli("evaluate", "runs/ae", "--split", "validation", "--json").json
    cli("report", "runs/ae")
    text = read("runs/ae/report.html").text
    manifest = json.loads(Path("runs/ae/run.json").read_text())
    for name, value in manifest["metrics"]["test"].items():
        assert f"{name} {manifest['protocol'][name]} {value:.5g}" in text
    assert evaluated["checkpoint"] in text
    assert manifest["data"]["fingerprint"] in text
    for plugin in manifest["plugins"]:
        assert f"{plugin['name']} {plugin['distribution']} {plugin['version']}" in text
    for word in (manifest["environment"]["torch"], manifest["environment"]["platform"]):
        assert word in text
    found = json.loads(Path("runs/ae/explore/interpolate/findings.json").read_text())
    for name, value in found["metrics"].items():
        assert f"{name} {value:.5g}" in text
    assert " ".join(found["protocol"].split()) in text


def test_config_on_the_page_reproduces_the_config_of_the_run(explored, cli):
    cli("report", "runs/ae")
    page = Path("runs/ae/report.html").read_text("utf-8")
    [block] = re.findall(r'<pre tabindex="0"><code>(\[model\].*?)</code>', page, re.DOTALL)
    Path("ae.toml").write_text(block.replace("&#34;", '"'))
    checked = cli("config", "check", "ae.toml", "--json")
    assert checked.json["config"] == json.loads(Path("runs/ae/run.json").read_text())["config"]
    assert "latentforge train --config ae.toml" in read("runs/ae/report.html").commands


def test_explore_command_on_the_page_reproduces_the_findings(explored, cli):
    cli("report", "runs/ae")
    [command] = [c for c in read("runs/ae/report.html").commands if " explore " in c]
    words = shlex.split(command)
    assert len(words) == 8  # only options that are not defaults
    assert cli(*words[1:], "--out", "again").code == 0
    first, again = (
        json.loads((Path(folder) / "findings.json").read_text())
        for folder in ("runs/ae/explore/interpolate", "again")
    )
    assert again["options"] == first["options"]
    assert again["metrics"] == first["metrics"]


def test_images_are_embedded_without_loss(explored, cli):
    cli("report", "runs/ae")
    [source] = read("runs/ae/report.html").images
    kind, data = source.split(",", 1)
    assert kind == "data:image/png;base64"
    embedded = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    drawn = Image.open(next(Path("runs/ae/explore/interpolate").glob("*.png"))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(embedded), np.asarray(drawn))


def test_compression_keeps_colours_and_shrinks_only_huge_images():
    random = np.random.default_rng(0)
    for side, half in ((200, False), (900, True)):
        image = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        file = io.BytesIO()
        image.save(file, "PNG")
        made = Image.open(io.BytesIO(compress(image, file.getvalue())))
        assert made.size == ((side // 2,) * 2 if half else (side, side))
        if not half:
            np.testing.assert_array_equal(np.asarray(made.convert("RGB")), np.asarray(image))


def test_folders_of_one_explorer_share_a_table_of_differences(explored, cli):
    cli("explore", "interpolate", "runs/ae", "--set", "classes=[3, 8]", "--set", "steps=5")
    assert cli("report", "runs/ae").code == 0
    text = read("runs/ae/report.html").text
    assert "metric interpolate interpolate-2" in text
    assert "option that differs interpolate interpolate-2 steps 4 5" in text
    assert "classes" not in text.split("option that differs")[1].split("steps 4 5")[0]


def test_comparison_of_several_runs_is_written_next_to_them(explored, cli):
    done = cli("report", "runs/ae", "runs/cnn", "--json")
    assert done.json["report"] == "runs/report-ae-cnn.html"
    text = read("runs/report-ae-cnn.html").text
    test = [
        json.loads(Path(f"runs/{n}/run.json").read_text())["metrics"]["test"] for n in ("ae", "cnn")
    ]
    assert f"{test[0]['loss']:.5g} {test[1]['loss']:.5g}" in text
    assert "model.name ae cnn-classifier" in text
    assert (
        "train.lr" not in text.split("Differences between the runs")[1].split("Training")[0]
        or "lr 0.003" in text
    )
    assert (
        "train.seed" not in text.split("Differences between the runs")[1].split("Training")[0]
    )  # the same in both


def test_report_of_runs_without_a_common_folder_is_in_the_working_folder(runs, monkeypatch):
    one, other = (Forge().open_run(path) for path in ("runs/ae", "runs/cnn"))
    assert default_path([one, other]) == Path("runs/report-ae-cnn.html")
    monkeypatch.setattr(os.path, "commonpath", lambda paths: os.path.sep)
    Path("report-ae-cnn.html").write_text("mine")
    for _ in range(2):
        assert report([one, other], one.registry)["report"] == "report-ae-cnn-2.html"
    shutil.copytree("runs/cnn", "others/cnn")
    third = Forge().open_run("others/cnn")
    Path("report-ae-cnn-3.html").mkdir()
    assert report([one, third], one.registry)["report"] == "report-ae-cnn-4.html"
    assert Path("report-ae-cnn.html").read_text() == "mine"


PLUGIN = """
from dataclasses import dataclass
from latentforge import ExplorerSpec, hookimpl
from latentforge.findings import Findings, Table

@dataclass(frozen=True)
class Config:
    rows: int = 2

def explore(context, options):
    return Findings([Table("t", "T", ["n"], [[i] for i in range(options.rows)])])

@hookimpl
def latentforge_explorers():
    return [ExplorerSpec(name="count", summary="counts", config=Config, explore=explore)]
"""


def test_explore_command_of_a_plugin_file_loads_the_file(runs, cli):
    Path("mine.py").write_text(PLUGIN)
    assert cli("-p", "./mine.py", "explore", "count", "runs/ae", "--set", "rows=3").code == 0
    assert cli("report", "runs/ae").code == 0
    [command] = [c for c in read("runs/ae/report.html").commands if " explore " in c]
    assert command == "latentforge -p ./mine.py explore count runs/ae --set rows=3"
    assert cli(*shlex.split(command)[1:], "--out", "again").code == 0


def test_runs_of_the_same_name_are_shown_with_their_paths(runs, cli):
    shutil.copytree("runs/ae", "other/ae")
    done = cli("report", "runs/ae", "other/ae", "--json")
    assert done.json["report"] == "report-ae-ae.html"
    assert "metric runs/ae other/ae" in read("report-ae-ae.html").text


@pytest.mark.slow  # runs two explorers
def test_page_without_explorations_hints_at_a_command(runs, cli):
    for name in ("ae", "cnn"):
        done = cli("report", f"runs/{name}")
        assert done.code == 0
        [hint] = re.findall(r"latentforge explore (\S+) runs/\w+", done.out)
        page = read(f"runs/{name}/report.html")
        assert "This run has no explorations yet" in page.text
        assert f"latentforge explore {hint} runs/{name}" in page.commands
        assert cli("explore", hint, f"runs/{name}").code == 0  # the hint works


def truncated_json(folder):
    (folder / "findings.json").write_text('{"explorer": "interpolate", "metr')


def missing_image(folder):
    next(folder.glob("*.png")).unlink()


def invalid_image(folder):
    next(folder.glob("*.png")).write_bytes(b"no PNG")


def wrong_json_type(folder):
    (folder / "findings.json").write_text('["interpolate"]')


@pytest.mark.parametrize(
    "damage",
    [truncated_json, missing_image, invalid_image, wrong_json_type],
    ids=lambda f: f.__name__,
)
def test_damaged_folder_gives_a_warning_and_the_rest_is_shown(explored, cli, damage):
    shutil.copytree("runs/ae/explore/interpolate", "runs/ae/explore/interpolate-2")
    damage(Path("runs/ae/explore/interpolate-2"))
    done = cli("report", "runs/ae")
    assert done.code == 0
    assert done.err.startswith("warning: runs/ae/explore/interpolate-2")
    page = read("runs/ae/report.html")
    assert "runs/ae/explore/interpolate-2" in page.text
    assert len(page.images) == 1  # of the intact folder


def test_explorations_of_an_earlier_checkpoint_are_marked(explored, cli):
    note = "made at step-"
    assert cli("report", "runs/ae").code == 0
    assert note not in read("runs/ae/report.html").text
    run = Forge().open_run("runs/ae")
    epochs, before = run.manifest["epochs"], run.manifest["steps"]
    after = Forge().resume("runs/ae", train={"epochs": epochs + 1}, quiet=True).manifest["steps"]
    assert cli("report", "runs/ae").code == 0
    said = f"made at step-{before:08d}; the run has been trained to step-{after:08d} since"
    assert said in read("runs/ae/report.html").text


@pytest.mark.parametrize("value", [None, 3, ["a"]], ids=str)
def test_wrong_types_in_findings_json_are_tolerated(explored, cli, value):
    intact = Path("runs/ae/explore/interpolate")
    found = json.loads((intact / "findings.json").read_text())
    del found["checksum"]
    keys = ("explorer", "run", "roles", "checkpoint", "weights", "options")
    for i, key in enumerate(keys):
        folder = shutil.copytree(intact, intact.with_name(f"interpolate-{i + 2}")) if i else intact
        (folder / "findings.json").write_text(json.dumps({**found, key: value, "plugins": value}))
    done = cli("report", "runs/ae")
    assert (done.code, done.err) == (0, "")
    page = read("runs/ae/report.html")
    assert len(page.images) == len(keys)
    commands = [c for c in page.commands if " explore " in c]
    assert len(commands) == len(keys)
    assert all("explore interpolate runs/ae" in command for command in commands)


def test_damaged_lines_of_metrics_are_skipped_and_reported(runs, cli):
    with Path("runs/ae/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "tra\n[1]\n')
    done = cli("report", "runs/ae")
    assert done.code == 0
    assert "metrics.jsonl: line 4 is damaged and skipped" in done.err
    assert "metrics.jsonl: line 5 is damaged and skipped" in done.err
    assert "metrics.jsonl: line 4 is damaged and skipped" in read("runs/ae/report.html").text


def test_failed_run_without_metrics_can_be_reported(runs, cli):
    manifest = json.loads(Path("runs/ae/run.json").read_text())
    manifest |= {"status": "failed", "error": "the loss is NaN <b>", "metrics": {}, "seconds": None}
    manifest["facts"] = {"beta": None}
    Path("runs/ae/run.json").write_text(json.dumps(manifest))
    Path("runs/ae/metrics.jsonl").unlink()
    assert cli("report", "runs/ae").code == 0
    page = Path("runs/ae/report.html").read_text("utf-8")
    assert "Training failed: the loss is NaN &lt;b&gt;" in page
    assert "No epoch has ended yet." in page


@pytest.mark.parametrize("kept", [0, 2])
def test_missing_epochs_are_reported(runs, cli, kept):
    path = Path("runs/ae/metrics.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    assert f"metrics.jsonl has {kept} epochs, but 3 were trained" in cli("report", "runs/ae").err


def test_odd_dates_and_evaluations_are_shown_or_skipped(runs, cli):
    manifest = json.loads(Path("runs/ae/run.json").read_text())
    Path("runs/ae/run.json").write_text(json.dumps({**manifest, "created": "long ago"}))
    Path("runs/ae/evaluations.jsonl").write_text('{"split": "test", "metrics": 3}\n')
    answer = cli("-p", "no:autoencoder", "report", "runs/ae")
    assert (answer.code, answer.err) == (0, "")
    page = read("runs/ae/report.html")
    assert "long ago" in page.text
    assert "latentforge list explorers" in page.commands  # it is unknown which explorers fit


def test_run_with_a_missing_plugin_can_be_reported(explored, cli):
    assert cli("-p", "no:autoencoder", "-p", "no:interpolate", "report", "runs/ae").code == 0
    commands = read("runs/ae/report.html").commands
    assert any("interpolate runs/ae --set" in command for command in commands)


# ---------------------------------------------------------------- refusals


def test_only_a_report_is_overwritten(runs, cli):
    Path("mine.html").write_text("<!doctype html>\n<title>mine</title>")
    Path("runs/ae/report.html").write_text("my notes")
    for arguments in (["runs/ae", "--out", "mine.html"], ["runs/ae"], ["runs/ae", "--out", "runs"]):
        refused = cli("report", *arguments)
        assert refused.code == 2
        assert "--out" in refused.err
    assert Path("mine.html").read_text() == "<!doctype html>\n<title>mine</title>"
    assert Path("runs/ae/report.html").read_text() == "my notes"


# ---------------------------------------------------------------- training curves


def drawn(page):
    """Returns the titles of the training curves."""
    return re.findall(r'<p class="lf-panel-title">(.*?)</p>', Path(page).read_text("utf-8"))


def test_loss_term_equal_to_the_loss_is_not_drawn_twice(runs, cli):
    lines = [
        {"epoch": i, "train": {"loss": 9.0 / i, "recon": 9.0 / i, "mse": 1.0}} for i in (1, 2, 3)
    ]
    file = Path("runs/ae/metrics.jsonl")
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert cli("report", "runs/ae").code == 0
    assert drawn("runs/ae/report.html") == ["loss = recon", "mse"]
    lines[1]["train"]["recon"] = 4.0
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert cli("report", "runs/ae").code == 0
    assert drawn("runs/ae/report.html") == ["loss", "recon", "mse"]
    for line in lines:
        line["validation"] = {"loss": 9.0, "loss_se": 0.1, "phase_se": 3.0}
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert cli("report", "runs/ae").code == 0
    assert drawn("runs/ae/report.html") == ["loss", "recon", "mse", "phase_se"]


def axes(page):
    """Returns the title and the curve names of each training chart."""
    text = Path(page).read_text("utf-8").split('<section id="curves">')[1].split("</section>")[0]
    found = re.findall(r'lf-panel-title">(.*?)</p>.*?json">(.*?)</script>', text, re.DOTALL)
    return {
        title: [trace["name"] for trace in json.loads(content)["figure"]["data"]]
        for title, content in found
    }


def test_different_losses_have_separate_labelled_axes(runs, cli):
    assert cli("report", "runs/ae", "runs/cnn").code == 0
    found = axes("runs/report-ae-cnn.html")
    assert found["loss = recon of ae"] == ["ae, train", "ae, validation"]
    assert found["loss of cnn"] == ["cnn, train", "cnn, validation"]
    assert not any({"ae, train", "cnn, train"} <= set(traces) for traces in found.values())
    text = read("runs/report-ae-cnn.html").text
    assert "loss reconstruction; recon: nats per image, summed over pixels" in text
    assert "not comparable between the runs: reconstruction in ae, cross-entropy in cnn" in text


def test_equal_losses_share_an_axis_and_the_likelihood_counts(runs, cli):
    same, other = (Path(f"runs/{name}") for name in ("ae-2", "ae-3"))
    for path in (same, other):
        shutil.copytree("runs/ae", path)
    manifest = json.loads((other / "run.json").read_text())
    manifest["protocol"]["recon"] += ", of another likelihood"
    (other / "run.json").write_text(json.dumps(manifest))
    assert cli("report", "runs/ae", same, other, "--out", "page.html").code == 0
    found = axes("page.html")
    shared = ["ae, train", "ae, validation", "ae-2, train", "ae-2, validation"]
    assert found["loss = recon of ae, ae-2"] == shared
    assert found["loss = recon of ae-3"] == ["ae-3, train", "ae-3, validation"]
    assert len(found["mse_per_pixel"]) == 3  # validation metric, identical in all three runs
    assert cli("report", "runs/ae", same, "--out", "page.html").code == 0
    assert axes("page.html")["loss = recon"] == shared
    assert "not comparable between the runs" not in read("page.html").text


def test_charts_and_images_of_a_comparison_name_their_run(explored, cli):
    assert cli("explore", "latent-map", "runs/ae", "--quiet").code == 0
    shutil.copytree("runs/ae", "runs/other")
    assert cli("explore", "neighbours", "runs/other", "--quiet").code == 0
    assert cli("report", "runs/ae", "runs/other").code == 0
    page = Path("runs/report-ae-other.html").read_text("utf-8")
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    maps = [caption for caption in captions if "Latent map" in caption]
    assert [caption.split(":")[0] for caption in maps] == ["ae", "other"]
    assert sorted(set(captions) - set(maps)) == ["ae", "other"]
    assert len(captions) == page.count('class="lf-figure"') == 5
    assert cli("report", "runs/ae").code == 0
    alone = Path("runs/ae/report.html").read_text("utf-8")
    assert re.findall("<figcaption>(.*?)</figcaption>", alone) == [maps[0].removeprefix("ae: ")]
