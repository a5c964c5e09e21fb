"""Stacked members match members trained alone, in their weights and in their files."""

from __future__ import annotations

import copy
import itertools
import os
import signal

import pytest
import torch

from latentforge import Forge
from latentforge.config.request import draft_request
from latentforge.config.resolve import resolve
from latentforge.data.loading import load_splits
from latentforge.engine.build import build_trainee
from latentforge.engine.step import StepRunner
from latentforge.engine.vectorized import noise
from latentforge.engine.vectorized.ensemble import Ensemble
from latentforge.sweeps.grid import create_members, draft_member
from latentforge.sweeps.grouping import group_members

from ..params import slow_except
from .stored import read, wait_until

CPU = torch.device("cpu")
SMALL = {"encoder": [24], "decoder": [24], "latent_dim": 3}
SEEDS_AND_RATES = {"train.seed": [0, 5], "train.lr": [1e-3, 3e-4]}


def configs_of(name, grid, **request):
    forge = Forge()
    draft, _ = draft_request(forge.registry, name, **request)
    return [resolve(draft_member(draft, m), forge.registry) for m in create_members(grid)]


def runners_of(configs, splits):
    trainees = [build_trainee(config, splits) for config in configs]
    images = splits.split("train")
    return [StepRunner(t.train(), images, c, CPU) for t, c in zip(trainees, configs, strict=True)]


def reasons(sweep):
    return {member["alone_because"] for member in sweep.members}


# ---------------------------------------------------------------- numerical equivalence

CASES = {
    "ae": ("ae", {"model": {"hidden": [24], "latent_dim": 3}}, {}),
    "vae": ("vae", {"model": SMALL}, {}),
    "beta-vae": ("vae", {"model": SMALL, "loss": "beta-elbo"}, {"loss.beta": [0.0, 1.0, 4.0]}),
    "beta-vae, warm-up": (
        "vae",
        {"model": SMALL, "loss": {"name": "beta-elbo", "schedule": "linear", "end_epoch": 2.0}},
        {"loss.beta": [0.5, 4.0]},
    ),
    "capacity": (
        "vae",
        {"model": SMALL, "loss": {"name": "beta-elbo", "capacity": 5.0}},
        {"loss.beta": [0.5, 4.0]},
    ),
    "beta-tc": ("vae", {"model": SMALL, "loss": "beta-tc"}, {"loss.beta": [1.0, 6.0]}),
    "gaussian": (
        "vae",
        {"model": SMALL, "loss": {"name": "elbo", "likelihood": "gaussian"}},
        {"loss.sigma": [0.3, 1.0]},
    ),
    "learned sigma": (
        "vae",
        {"model": SMALL, "loss": {"name": "elbo", "likelihood": "gaussian", "learn_sigma": True}},
        {},
    ),
    "flow prior": ("vae", {"model": {**SMALL, "prior": "flow", "couplings": 2}}, {}),
    "vamp prior": ("vae", {"model": {**SMALL, "prior": "vamp", "components": 5}}, {}),
    "iwae": ("vae", {"model": SMALL, "loss": {"name": "iwae", "samples": 3}}, {}),
    "wae": ("vae", {"model": SMALL, "loss": "wae"}, {"loss.weight": [10.0, 100.0]}),
    "wae, vamp prior": (
        "vae",
        {"model": {**SMALL, "prior": "vamp", "components": 5}, "loss": "wae"},
        {},
    ),
    "classifier": ("mlp-classifier", {}, {}),
    "dynamic binarization": ("vae", {"model": SMALL, "data": {"binarize": "dynamic"}}, {}),
    "adamw, weight decay and schedule": (
        "vae",
        {
            "model": SMALL,
            "train": {
                "optimizer": "adamw",
                "weight_decay": 0.1,
                "schedule": {"name": "cosine"},
            },
        },
        {},
    ),
    "sgd": ("vae", {"model": SMALL, "train": {"optimizer": "sgd"}}, {}),
}  # fmt: skip


QUICK = ("ae", "beta-vae, warm-up", "beta-tc", "learned sigma", "adamw, weight decay and schedule")


@pytest.mark.parametrize(
    ("case", "functions"),
    slow_except(
        [*((case, "stacked") for case in QUICK), ("vae", "vmap")],
        itertools.product(CASES, ("stacked", "vmap")),
    ),
)
def test_ten_stacked_steps_match_ten_separate_steps(case, functions, monkeypatch):
    name, request, grid = CASES[case]
    if functions == "stacked":
        assert noise.REPLACED
    else:  # as with an unsupported torch version
        monkeypatch.setattr(noise, "REPLACED", {})
    request = copy.deepcopy(request)
    request["train"] = {"batch_size": 100, "device": "cpu", **request.get("train", {})}
    request.setdefault("data", {})
    request["data"] = {"name": "digits", **request["data"]}
    configs = configs_of(name, {**grid, **SEEDS_AND_RATES}, **request)
    assert group_members(configs) == ([list(range(len(configs)))], {})
    splits = load_splits(configs[0].dataset, configs[0].data, None)
    alone, stacking = runners_of(configs, splits), runners_of(configs, splits)
    ensemble = Ensemble(stacking, configs, splits.spec)
    assert alone[0].epoch_length == 13  # the last batch is smaller
    for runner in (ensemble, *alone):
        runner.start_epoch(0)
    for done in (*range(9), 12):
        stacked = ensemble.run(done)
        for runner, other in zip(alone, stacking, strict=True):
            terms = runner.run(done)
            there = stacked.terms(ensemble.runners.index(other))
            assert there.values.keys() == terms.values.keys()
            torch.testing.assert_close(dict(there.values), dict(terms.values), rtol=1e-4, atol=1e-4)
            assert {k: there.weights.get(k, 1.0) for k in terms.values} == pytest.approx(
                {k: terms.weights.get(k, 1.0) for k in terms.values}
            )
            torch.testing.assert_close(
                dict(there.per_dim), dict(terms.per_dim), rtol=1e-3, atol=1e-4
            )
    ensemble.unstack()
    for runner, other in zip(alone, stacking, strict=True):
        other_weights = dict(other.trainee.named_parameters())
        for key, weights in runner.trainee.named_parameters():
            torch.testing.assert_close(weights, other_weights[key], rtol=0, atol=1e-4)
        for own, handed in zip(
            runner.optimizer.state.values(), other.optimizer.state.values(), strict=True
        ):
            assert own.keys() == handed.keys()
            for key, value in own.items():
                if value is not None:
                    torch.testing.assert_close(value, handed[key], rtol=1e-2, atol=1e-3)


def test_members_draw_different_noise_and_batches():
    """The test above would also pass if all members shared the noise of one."""
    configs = configs_of("vae", {"train.seed": [0, 1]}, model=SMALL, train={"device": "cpu"})
    splits = load_splits(configs[0].dataset, configs[0].data, None)
    ensemble = Ensemble(runners_of(configs, splits), configs, splits.spec)
    ensemble.start_epoch(0)
    batch, [drawn] = ensemble._batch(0)
    assert drawn.shape == (2, 64, 3)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(batch.index[0], batch.index[1])
    _, [later] = ensemble._batch(1)
    assert not torch.equal(drawn, later)


# ---------------------------------------------------------------- grouping


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"train": {"accumulate": 2}}, "accumulate"),
        ({"train": {"clip_grad_norm": 1.0}}, "clip_grad_norm"),
        ({"train": {"ema": 0.9}}, "ema"),
        ({"train": {"checkpoint_every": 5}}, "mid-epoch"),
        ({"train": {"precision": "bf16"}}, "precision"),
    ],
)
def test_unsupported_train_options_prevent_stacking(request_, said):
    configs = configs_of("vae", {"train.seed": [0, 1]}, **request_)
    groups, why = group_members(configs)
    assert groups == []
    assert all(said in reason for reason in why.values())


def test_group_members_differ_only_in_stackable_options():
    grid = {"model.latent_dim": [2, 3], "train.seed": [0, 1], "train.batch_size": [32, 64]}
    groups, why = group_members(configs_of("vae", grid))
    assert groups == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert why == {}
    groups, why = group_members(configs_of("vae", {"model.latent_dim": [2, 3]}))
    assert groups == []
    assert "no other member" in why[0]


# ---------------------------------------------------------------- run folders


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same grid, trained stacked and one by one; read only."""
    folder = tmp_path_factory.mktemp("both")
    return [
        Forge().sweep(
            "vae",
            model=SMALL,
            loss="beta-elbo",
            train={"epochs": 2, "batch_size": 128, "log_every": 4},
            grid={"loss.beta": [0.5, 4.0], "train.seed": [0, 1]},
            together=together,
            out=folder / name,
            quiet=True,
        )
        for name, together in (("together", True), ("alone", False))
    ]


def test_stacked_member_writes_the_files_of_a_single_run(both):
    together, alone = both
    assert reasons(together) == {""}
    for one, other in zip(together.runs(), alone.runs(), strict=True):
        assert one.manifest["together_with"] == [
            r.name for r in together.runs() if r != one and r.name != one.name
        ]
        for split, figures in other.metrics.items():
            assert one.metrics[split] == pytest.approx(figures, rel=0.02, abs=0.02)
        assert [line.keys() for line in one.history()] == [line.keys() for line in other.history()]
        assert [line["step"] for line in one.history()] == [
            line["step"] for line in other.history()
        ]
        assert one.manifest["status"] == "done"
        files = [
            sorted(p.name for p in (run.path / "checkpoints").iterdir()) for run in (one, other)
        ]
        assert files[0] == files[1]
        assert len(list(one.path.glob("events.out.tfevents.*"))) == 1
        assert {*other.manifest} - {*one.manifest} == set()


def test_stacked_member_can_be_evaluated_explored_exported_and_resumed(both, tmp_path):
    import shutil

    path = shutil.copytree(both[0].runs()[2].path, tmp_path / "member")
    forge = Forge()
    run = forge.open_run(path)
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-5)
    assert run.explore("interpolate", steps=3, quiet=True)["files"]
    assert forge.export(run, format="safetensors")["files"]
    went_on = forge.resume(run, train={"epochs": 3}, quiet=True)
    other = shutil.copytree(both[1].runs()[2].path, tmp_path / "other")
    alone = forge.resume(other, train={"epochs": 3}, quiet=True)
    assert went_on.metrics["test"] == pytest.approx(alone.metrics["test"], rel=0.02, abs=0.02)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.slow  # 15 s
def test_sigterm_stops_all_members_and_each_resumes_at_its_step(start, cli, work):
    """SIGINT takes the same path: test_grid.py sends it."""
    words = ["sweep", "vae", "--epochs=12", "--batch-size=16", "--grid=train.seed=[0, 1]"]
    started = start(*words, "--out=stopped")
    metrics = work / "stopped/2-seed=1/metrics.jsonl"
    wait_until(metrics.exists)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 143, err
    record = read(work / "stopped/sweep.json")
    assert [member["status"] for member in record["members"]] == ["interrupted", "interrupted"]
    steps = [read(work / "stopped" / m["name"] / "run.json")["steps"] for m in record["members"]]
    assert steps[0] == steps[1] > 0
    assert cli("sweep", "--resume", "stopped", "--quiet").code == 0
    for member in read(work / "stopped/sweep.json")["members"]:
        run = read(work / "stopped" / member["name"] / "run.json")
        assert (run["status"], run["epochs"]) == ("done", 12)
        assert run["resumed"][0]["step"] == steps[0]
        assert member["alone_because"] == "members that have started are resumed one by one"
