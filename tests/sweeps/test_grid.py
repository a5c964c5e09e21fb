"""A grid sweep: one run per combination, failed members, interruption and resume."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch

from latentforge import Forge
from latentforge.errors import ConfigError, MissingError, UsageError
from latentforge.sweeps.comparison import find_best_member
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.grid import MAX_MEMBERS, create_members, member_name, read_grid, resolve_all
from latentforge.sweeps.job import Job
from latentforge.sweeps.runner import Sweeper

from .stored import read, wait_until

TINY = {"encoder": [16], "decoder": [16], "latent_dim": 2}
ONCE = {"epochs": 1, "batch_size": 256}
TINY_VAE = ["vae", "--loss=beta-elbo", "--set=model.encoder=[16]", "--set=model.decoder=[16]"]
FAST = ["--epochs=1", "--batch-size=256", "--quiet"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A trained sweep over two betas and two seeds; read only."""
    folder = tmp_path_factory.mktemp("swept") / "grid"
    grid = {"loss.beta": [0.5, 4.0], "train.seed": [3, 8]}
    return Forge().sweep(
        "vae", loss="beta-elbo", model=TINY, train=ONCE, grid=grid, out=folder, quiet=True
    )


# ---------------------------------------------------------------- the grid


def test_every_combination_is_a_member_and_the_last_key_varies_fastest():
    found = create_members({"loss.beta": [1, 4], "train.lr": [1e-3, 0.5, 1e-2]})
    assert [tuple(member.values.values()) for member in found] == [
        (1, 1e-3), (1, 0.5), (1, 1e-2), (4, 1e-3), (4, 0.5), (4, 1e-2),
    ]  # fmt: skip
    assert found[1].name == "2-beta=1-lr=0.5"


def test_member_name_is_a_safe_folder_name():
    assert member_name("1", {"data.root": "../../x/y: *"}) == "1-root=.._.._x_y"
    assert len(member_name("1", {"model.hidden": list(range(100))})) <= 80


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss.beta", "write section.key="),
        ("loss.beta=4", "write section.key="),
        ("loss.beta=[1", "write section.key="),
        ("beta=[1]", "no such section"),
        ("lsos.beta=[1]", "did you mean 'loss'"),
        ("loss.beta=[]", "a list with at least one value"),
        ("loss.beta=[1, 2, 1]", "contains a value twice"),
        ("loss.beta=[1, -2]", "loss.beta (from the grid)"),
        ("loss.bta=[1]", "did you mean 'beta'"),
        ("loss=[1]", "loss: write section.key, as in loss.beta"),
        ("model.encoder.width=[1]", "model.encoder.width: model.encoder is not a table"),
        (f"train.seed={[*range(MAX_MEMBERS + 1)]}", f"has more than {MAX_MEMBERS} members"),
        ("model.name=['vae', 'veu']", "did you mean 'vae'"),
    ],
)
def test_invalid_grid_is_refused_before_training(cli, work, text, said):
    answer = cli("sweep", *TINY_VAE, "--grid", text)
    assert answer.code == 2
    assert said in answer.err
    assert not (work / "runs").exists()


def test_duplicate_key_and_missing_grid_are_refused(cli):
    with pytest.raises(ConfigError, match="given twice"):
        read_grid(["train.seed=[0]", "train.seed=[1]"])
    assert cli("sweep", "vae").code == 2


# ---------------------------------------------------------------- members


def test_member_equals_a_single_run_with_the_same_config(swept, tmp_path):
    member = swept.runs()[2]
    assert member.config["loss"]["beta"] == 4.0
    assert member.config["train"]["seed"] == 3
    alone = Forge().train(
        "vae",
        loss={"name": "beta-elbo", "beta": 4.0},
        model=TINY,
        train={**ONCE, "seed": 3},
        run=tmp_path / "alone",
        quiet=True,
    )
    assert member.metrics["test"] == pytest.approx(alone.metrics["test"], rel=1e-4)
    assert member.history()[0].keys() == alone.history()[0].keys()


def test_record_has_the_grid_the_base_and_member_metrics(swept):
    record = read(swept.path / "sweep.json")
    assert record["status"] == "done"
    assert record["grid"] == {"loss.beta": [0.5, 4.0], "train.seed": [3, 8]}
    assert record["base"]["model"]["latent_dim"] == 2
    for member, run in zip(record["members"], swept.runs(), strict=True):
        assert member["name"] == run.name
        assert member["status"] == "done"
        assert member["metrics"]["test"] == pytest.approx(run.metrics["test"])


def first_table(page):
    """Returns the cells of the report's first table, row by row."""
    text = page.read_text("utf-8").partition('aria-label="Members of the sweep"')[2]
    rows = text.partition("</table>")[0].split("<tr>")[1:]
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", r)] for r in rows
    ]


def test_report_starts_with_a_table_of_the_members(swept):
    page = swept.path / "report.html"
    assert "<h1>grid</h1>" in page.read_text("utf-8")
    head, *rows = first_table(page)
    assert head[:4] == ["member", "loss.beta", "train.seed", "status"]
    for row, member in zip(rows, swept.members, strict=True):
        values = [json.dumps(value) for value in member["values"].values()]
        assert row[:4] == [member["name"], *values, "done"]
        figures = dict(zip(head[4:], row[4:], strict=True))
        for name, value in member["metrics"]["validation"].items():
            assert float(figures[name].replace(",", "")) == pytest.approx(value, rel=1e-3)


def test_report_command_rewrites_the_report_of_a_sweep(swept, tmp_path, cli):
    path = shutil.copytree(swept.path, tmp_path / "copy")
    page = path / "report.html"
    assert f"latentforge report {swept.path}<" in page.read_text("utf-8")
    page.unlink()
    answer = cli("report", path)
    assert answer.code == 0, answer.err
    assert first_table(page) == first_table(swept.path / "report.html")
    shutil.rmtree(path / swept.members[0]["name"])
    assert cli("report", path).code == 0  # reports the remaining members


def test_report_of_a_sweep_without_finished_members_is_refused(swept, tmp_path, cli):
    record = read(swept.path / "sweep.json")
    for member in record["members"]:
        member.update(status="waiting", metrics={})
    (tmp_path / "sweep.json").write_text(json.dumps(record), "utf-8")
    answer = cli("report", tmp_path)
    assert answer.code == 2
    assert f"no member of {tmp_path} is done" in answer.err
    assert f"latentforge sweep --resume {tmp_path}" in answer.err


def test_resume_of_a_sweep_on_in_memory_data_needs_the_data(tmp_path):
    x = torch.rand(60, 6, 6, generator=torch.Generator().manual_seed(0))
    forge, grid = Forge(), {"train.seed": [0, 1]}
    made = forge.sweep(
        "vae", data=x, model=TINY, train=ONCE, grid=grid, out=tmp_path / "s", quiet=True
    )
    assert [run.status for run in made.runs()] == ["done", "done"]
    with pytest.raises(UsageError, match="data passed in Python") as caught:
        forge.resume_sweep(made.path)
    assert "data=" in caught.value.hint
    assert forge.resume_sweep(made.path, data=x, quiet=True).status == "done"


def test_sweep_under_torchrun_is_refused(swept, tmp_path, monkeypatch):
    """Each torchrun process would train every member."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UsageError, match="only `train` supports torchrun; sweep runs in a single process"
    ):
        Forge().sweep("ae", grid={"train.seed": [0]}, out=tmp_path / "s")
    with pytest.raises(
        UsageError, match="only `train` supports torchrun; sweep runs in a single process"
    ):
        Forge().resume_sweep(swept.path)
    assert not (tmp_path / "s").exists()


# ---------------------------------------------------------------- the record


class Counted(Sweep):
    """Counts how often sweep.json is written."""

    writes = 0

    def write(self, **changes):
        self.writes += 1
        super().write(**changes)


def waiting(swept, folder, grid):
    """Returns an untrained sweep, its Sweeper, and the members with their configs."""
    members = create_members(grid)
    entries = [{**swept.members[0], "name": m.name, "status": "waiting"} for m in members]
    sweep = Counted(folder, {**swept.record, "grid": grid, "members": entries}, swept.registry)
    configs = resolve_all(sweep.draft(), members, swept.registry, in_memory=False)
    return sweep, Sweeper(sweep, None, jobs=1, quiet=True), list(zip(members, configs, strict=True))


def test_record_is_written_once_for_all_members_that_are_not_stacked(swept, tmp_path):
    sweep, sweeper, todo = waiting(swept, tmp_path, {"model.latent_dim": [2, 3, 4, 5]})
    assert len(sweeper.plan_jobs(todo)) == 4
    assert sweep.writes == 1
    record = read(tmp_path / "sweep.json")
    assert all("no other member differs" in member["alone_because"] for member in record["members"])


def test_group_that_cannot_be_stacked_is_requeued_as_single_jobs(swept, tmp_path):
    sweep, sweeper, todo = waiting(swept, tmp_path, {"train.seed": [0, 1, 2]})
    [job] = sweeper.plan_jobs(todo)
    sweeper.queue.append(job)
    sweeper.next_job()
    statuses = [member["status"] for member in read(tmp_path / "sweep.json")["members"]]
    assert statuses == ["running"] * 3
    sweeper.handle_end(job, "it draws otherwise")
    statuses = [member["status"] for member in read(tmp_path / "sweep.json")["members"]]
    assert statuses == ["waiting"] * 3
    assert list(sweeper.queue) == [Job((member,)) for member in job.members]
    assert sweep.writes == 2


# ---------------------------------------------------------------- the command


def test_failed_member_is_never_the_best_of_a_column(swept):
    members = [{**member, "metrics": {"test": {"recon": 9.0 - n, "elbo": 1.0 + n}}}
               for n, member in enumerate(swept.members)]  # fmt: skip
    members[3]["status"] = "failed"
    made = Sweep(swept.path, {**swept.record, "members": members}, swept.registry)
    assert find_best_member(made, "test", "recon") == members[2]["name"]


@pytest.mark.parametrize(
    ("keys", "loss", "marked"),
    [
        (["model.name"], {}, False),
        (["model.name"], {"name": "elbo"}, True),
        (["loss.beta"], {}, False),
        (["train.seed"], {}, True),
    ],
)
def test_best_loss_is_marked_only_if_all_members_share_the_loss(swept, keys, loss, marked):
    grid = {key: [1, 2] for key in keys}
    base = {**swept.record["base"], "loss": loss}
    made = Sweep(swept.path, {**swept.record, "grid": grid, "base": base}, swept.registry)
    assert bool(find_best_member(made, "test", "loss")) == marked


def test_table_marks_the_best_metric_but_not_incomparable_losses(cli):
    answer = cli("sweep", *TINY_VAE, *FAST, "--grid=loss.beta=[1, 4]", "--grid=train.lr=[1e-3]")
    assert answer.code == 0, answer.err
    head, *rows = answer.out.splitlines()[:3]
    columns = head.split()
    assert columns[:2] == ["MEMBER", "STATUS"]
    assert [row.split()[0] for row in rows] == ["1-beta=1-lr=0.001", "2-beta=4-lr=0.001"]
    recons = [row.split()[columns.index("recon")] for row in rows]
    values = [float(recon.rstrip("*")) for recon in recons]
    assert recons[values.index(min(values))].endswith("*")
    assert sum(recon.endswith("*") for recon in recons) == 1
    assert not any("*" in row.split()[columns.index("loss")] for row in rows)


def test_failing_member_stops_no_other_and_gives_exit_code_1(cli, work):
    grid = "--grid=train.lr=[1e30, 1e-3]"
    answer = cli("sweep", "ae", *FAST, "--epochs=2", grid, "--set=train.optimizer=sgd", "--json")
    assert answer.code == 1
    failed, done = answer.json["members"]
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert "1 of 2 members failed" in answer.json["error"]
    page = Path(answer.json["report"])
    assert [row[2] for row in first_table(page)[1:]] == ["failed", "done"]
    assert f"<b>{failed['name']}</b> failed: the loss became" in page.read_text("utf-8")
    assert failed["name"] in answer.json["details"][0]
    assert "--retry" in answer.json["remedy"]


def test_failed_member_is_resumed_only_with_retry(cli, work):
    folder = work / "runs/sweep-ae-digits-1"
    grid = "--grid=train.lr=[1e30, 1e-3]"
    cli("sweep", "ae", *FAST, "--epochs=2", grid, "--set=train.optimizer=sgd")
    manifest = read(folder / "1-lr=1e+30" / "run.json")
    assert cli("sweep", "--resume", folder, "--quiet").code == 1
    assert read(folder / "1-lr=1e+30" / "run.json") == manifest
    assert cli("sweep", "--resume", folder, "--retry", "--quiet").code == 1
    assert read(folder / "1-lr=1e+30" / "run.json")["resumed"]


# ---------------------------------------------------------------- resume


def test_resume_keeps_finished_members_and_trains_the_others(swept, tmp_path):
    path = shutil.copytree(swept.path, tmp_path / "copy")
    record = read(path / "sweep.json")
    shutil.rmtree(path / record["members"][3]["name"])
    record["members"][3].update(status="waiting", metrics={})
    (path / "sweep.json").write_text(json.dumps(record), "utf-8")
    before = [(path / member["name"] / "run.json").read_bytes() for member in record["members"][:3]]
    made = Forge().resume_sweep(path, quiet=True)
    assert made.status == "done"
    assert before == [(run.path / "run.json").read_bytes() for run in made.runs()[:3]]
    assert made.runs()[3].metrics["test"] == pytest.approx(
        swept.runs()[3].metrics["test"], rel=1e-4
    )


def test_resume_announces_defaults_that_have_changed(swept, tmp_path, caplog):
    folder = tmp_path / "grid"
    shutil.copytree(swept.path, folder)
    record = read(folder / "sweep.json")
    left = record["members"][-1]
    left["status"] = "waiting"
    shutil.rmtree(folder / left["name"])
    (folder / "sweep.json").write_text(json.dumps(record))
    Forge().resume_sweep(folder, quiet=True)
    assert "defaults have changed" not in caplog.text

    shutil.rmtree(folder / left["name"])
    (folder / "sweep.json").write_text(json.dumps(record))
    first = record["members"][0]["name"]
    manifest = read(folder / first / "run.json")
    manifest["config"]["model"]["activation"] = "relu"  # the default of an older version
    (folder / first / "run.json").write_text(json.dumps(manifest))
    Forge().resume_sweep(folder, quiet=True)
    assert f"defaults have changed since {first} was trained" in caplog.text
    assert 'model.activation: "relu" in the run, not "elu"' in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_interrupted_sweep_resumes_to_the_same_metrics(start, cli, work):
    """SIGTERM takes the same path: test_vectorized.py sends it."""
    words = ["sweep", "ae", "--batch-size=32", "--epochs=4", "--grid=model.latent_dim=[2, 3]"]
    started = start(*words, "--out=stopped")
    metrics = work / "stopped/1-latent_dim=2/metrics.jsonl"
    wait_until(metrics.exists)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert "latentforge sweep --resume stopped" in err
    assert read(work / "stopped/sweep.json")["status"] == "interrupted"
    assert cli("sweep", "--resume", "stopped", "--quiet").code == 0
    assert cli(*words, "--out=whole", "--quiet").code == 0
    for member in read(work / "whole/sweep.json")["members"]:
        again = read(work / "stopped" / member["name"] / "run.json")
        assert again["metrics"] == read(work / "whole" / member["name"] / "run.json")["metrics"]


def test_resume_of_a_locked_sweep_is_refused(swept):
    from latentforge.runs.folder import lock_run

    with lock_run(swept.path), pytest.raises(UsageError, match="another process"):
        Forge().resume_sweep(swept.path)


def test_folder_without_a_sweep_or_with_unsafe_member_names_is_refused(swept, tmp_path):
    with pytest.raises(MissingError, match="no sweep at"):
        Forge().resume_sweep(tmp_path)
    record = read(swept.path / "sweep.json")
    for name in ("../elsewhere", "0-lr=0.1/../../x", ".."):
        record["members"][0]["name"] = name
        (tmp_path / "sweep.json").write_text(json.dumps(record), "utf-8")
        with pytest.raises(MissingError, match="not a valid sweep record"):
            Forge().resume_sweep(tmp_path)
    for text, said in (('{"format": 1}', "not a valid sweep record"), ("{", "cannot be read as a")):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(MissingError, match=said):
            Forge().resume_sweep(tmp_path)


def test_folder_of_another_sweep_and_a_storage_for_a_grid_are_refused(cli, swept):
    answer = cli("sweep", *TINY_VAE, "--grid=train.seed=[0]", "--out", swept.path)
    assert answer.code == 2
    assert "already contains a sweep" in answer.err
    assert f"try: latentforge sweep --resume {swept.path}, or choose another --out" in answer.err
    answer = cli("sweep", "--resume", swept.path, "--storage=sqlite:///x.db")
    assert answer.code == 2
    assert "is a sweep over a grid; --storage requires a search" in answer.err


def test_sweep_shows_its_path_members_and_status(swept):
    assert repr(swept) == f"Sweep({str(swept.path)!r}, 4 members, done)"


def test_report_that_cannot_be_written_is_only_a_warning(cli, swept, tmp_path):
    path = shutil.copytree(swept.path, tmp_path / "copy")
    (path / "report.html").unlink()
    (path / "report.html").mkdir()
    (path / ".sweep.json.123").write_text("{")  # of a killed process
    answer = cli("sweep", "--resume", path, "--quiet")
    assert answer.code == 0
    assert "warning: the report of the sweep was not written" in answer.err
    assert not (path / ".sweep.json.123").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--epochs=3", "--epochs"),
        ("--grid=train.seed=[1]", "--grid"),
        ("--set=train.lr=1", "--set"),
        ("--no-together", "--together/--no-together"),
        ("ae", "MODEL"),
    ],
)
def test_resume_refuses_options_that_change_the_sweep(cli, swept, word, said):
    answer = cli("sweep", "--resume", swept.path, "--quiet", "--json", word)
    assert answer.code == 2
    assert f"with its stored options; remove {said}\n" in answer.err


def test_ties_have_no_best_mark_and_errors_have_hints(cli, work):
    words = ["sweep", "ae", "--set", "model.hidden=[8]", "--epochs", "1", "--quiet"]
    answer = cli(*words, "--grid", "train.log_every=[10, 20]")  # does not change the metrics
    assert answer.code == 0
    assert answer.out.count("*") == 1  # in the line that explains it
    answer = cli(*words, "--grid", "train.lr=[1e-3, 1e30]")
    assert answer.code == 1
    assert "2-lr=1e+30: the loss became" in answer.err
    assert "; try: a smaller --lr" in answer.err
    answer = cli(*words, "--grid", "model.name=[ae, vae]")
    assert 'with quotes around strings, model.name=["ae", "vae"]' in answer.err
