"""Guided generation on small runs: metrics, options, files and refused input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latentforge_plugins.guided.config import GuidedConfig
from latentforge_plugins.guided.guide import sample_steps
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentforge import Forge, LatentSpec
from latentforge.errors import ConfigError, UsageError
from latentforge.runs.checkpoint import CheckpointStore

from .. import undrawn
from .guided_parts import NearGoal, run_guide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Read-only runs on digits: a VAE of latent_dim 2, a guiding classifier and a judge."""
    where, forge = tmp_path_factory.mktemp("guided"), Forge()
    forge.train(
        "vae",
        data="digits",
        model={"encoder": [64], "decoder": [64], "latent_dim": 2},
        train={"epochs": 40, "lr": 3e-3},
        run=where / "vae",
        quiet=True,
    )
    for name, seed in (("guide", 0), ("judge", 1)):
        forge.train(
            "mlp-classifier",
            data="digits",
            train={"epochs": 8, "lr": 3e-3, "seed": seed},
            run=where / name,
            quiet=True,
        )
    return where


@pytest.fixture
def guided(folder, work):
    """Returns a function that explores a copy of the VAE run with the classifier and judge."""
    shutil.copytree(folder, work / "runs")

    def call(*, roles=("classifier", "judge"), **options):
        names = {"classifier": "runs/guide", "judge": "runs/judge"}
        return Forge().explore(
            "guided",
            "runs/vae",
            roles={role: names[role] for role in roles},
            quiet=True,
            **options,
        )

    return call


@pytest.fixture
def search_of(folder):
    """Returns a function that searches like `guided`, but returns findings that are not drawn."""

    def call(*, roles=("classifier", "judge"), **options):
        names = {"classifier": "guide", "judge": "judge"}
        given = {role: folder / names[role] for role in roles}
        return undrawn.find(Forge().registry, "guided", folder / "vae", roles=given, **options)

    return call


FAST = {"n": 20, "restarts": 4, "steps": 30, "settle": 10}


@pytest.fixture(scope="module")
def explored(folder, tmp_path_factory):
    """A copy of the runs with a search, and the result of the search. Read only."""
    runs = Path(shutil.copytree(folder, tmp_path_factory.mktemp("explored") / "runs"))
    roles = {"classifier": runs / "guide", "judge": runs / "judge"}
    return runs, Forge().explore("guided", runs / "vae", roles=roles, quiet=True, **FAST)


def test_metrics_follow_from_the_stored_results(explored):
    runs, made = explored
    found = np.load(Path(made["out"], "found.npz"))
    metrics, met = made["metrics"], found["satisfied"]
    assert met.mean() > 0.5
    assert metrics["success_share"] == pytest.approx(met.mean())
    assert metrics["success_at_start"] == pytest.approx((met & (found["steps"] == 0)).mean())
    assert metrics["success_single_start"] == pytest.approx(
        (met & (found["first_round"] == 0)).mean()
    )
    assert metrics["median_steps"] == torch.tensor(found["steps"][met]).float().median()
    with torch.no_grad():
        forge, x = Forge(), torch.from_numpy(found["x"])
        wanted = torch.arange(20) % 10
        p = forge.open_run(runs / "guide").load_model()(x).softmax(1)[torch.arange(20), wanted]
        judged = forge.open_run(runs / "judge").load_model()(x).argmax(1)
        decoded = forge.open_run(runs / "vae").load_model().decode(torch.from_numpy(found["z"]))
    assert ((p >= 0.9).numpy() == met).all()
    torch.testing.assert_close(p.log(), torch.from_numpy(found["score"]), rtol=1e-4, atol=1e-5)
    assert metrics["judge_agreement"] == pytest.approx(float((judged == wanted).float().mean()))
    agreed = int((judged == wanted).sum())
    assert made["notes"][0].startswith(f"{met.sum()} of 20 requests satisfied; ")
    assert made["notes"][0].endswith(f"; the independent judge agrees on {agreed}")
    torch.testing.assert_close(decoded, x)
    for name in metrics:
        assert f"{name}:" in made["protocol"]
    names = {Path(file).name for file in made["files"]}
    assert {"results.png", "walk.gif", "walk.png", "walks.png", "progress.png"} <= names
    board = EventAccumulator(made["out"]).Reload()
    curve = [(event.step, event.value) for event in board.Scalars("guided/satisfied")]
    assert [step for step, _ in curve] == sorted({step for step, _ in curve})  # one point per round
    assert curve[-1][1] == pytest.approx(met.mean())
    solved = found["steps"][met]
    for step, share in curve:
        assert share == pytest.approx((solved <= step).sum() / len(met))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results(explored, guided, work):
    runs, first = explored
    shutil.copytree(runs / "vae/explore", work / "runs/vae/explore")
    second = guided(**FAST)
    assert second["out"] == "runs/vae/explore/guided-2"
    one, two = (np.load(Path(made["out"], "found.npz")) for made in (first, second))
    for name in one.files:
        assert (one[name] == two[name]).all()


def test_set_overrides_the_options_of_a_preset(guided):
    made = guided(preset="latent-differentiation-search", assignments=["n=5", "steps=3"])
    options = json.loads(Path(made["out"], "findings.json").read_text())["options"]
    assert (options["start"], options["prior"], options["restarts"]) == ("wide", "none", 1)
    assert (options["steps"], options["n"], options["objective"]) == (3, 5, "class")


BAD = [
    ("--set target=11", "no class 11: the classifier guide has 10 classes"),
    ("--set film=20 --set n=20", "film is 20, but the requests are 0 to 19"),
    ("--set any_class=true --set start=wide", "any_class needs start='data'"),
    ("--set start_class=0 --set start=wide", "start_class needs start='data'"),
    ("--set start_class=0 --set any_class=true", "start_class needs start='data' and excludes any"),
    ("--set start_class=10", "no class 10: there are 10"),
    ("--set prior=none --set prior_weight=2.0", "prior_weight needs a prior"),
    ("--set steps=0", "guided.steps: must be greater than 0"),
    ("--set optimizer=adma", "optimizer must be one of adam"),
    ("--set nn=5", "guided.nn: no such option"),
    ("--preset vanilla-vae", "preset 'vanilla-vae' is not for explorer 'guided'"),
    ("--with judge=runs/guide", "runs/guide guides the search and cannot also be the judge"),
    ("--with judge=runs/vae", "role 'judge' needs classify"),
    ("--with judg=runs/judge", "did you mean 'judge'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_invalid_options_are_refused_and_nothing_is_written(cli, guided, arguments, message):
    command = ["explore", "guided", "runs/vae", "--with", "classifier=runs/guide"]
    answer = cli(*command, *arguments.split())
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert not Path("runs/vae/explore/guided").exists()


def test_the_class_objective_needs_a_classifier(cli, guided):
    answer = cli("explore", "guided", "runs/vae")
    assert answer.code == 2
    assert "needs a run for role classifier" in answer.err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [1, 32, 32], "shape: 1x32x32, not 1x28x28"),
        ("classes", ["a", "b"], "classes: 2 (a, b), not 10 (0, 1, 2, 3, ...)"),
    ],
)
def test_a_classifier_of_other_images_is_refused_before_torch_is_imported(
    process, guided, key, value, message
):
    manifest = json.loads(Path("runs/judge/run.json").read_text())
    manifest["data"][key] = value
    Path("runs/judge/run.json").write_text(json.dumps(manifest))
    no_torch = "import sys, builtins; sys.modules['torch'] = None"
    command = ["explore", "guided", "runs/vae", "--with", "classifier=runs/judge"]
    answer = process(*command, before=no_torch)
    assert answer.code == 2
    assert "classifier runs/judge was trained on images unlike those of runs/vae" in answer.err
    assert message in answer.err


def write_nan_weights(path):
    """Replace one tensor of the last checkpoint with NaN, through the checkpoint store."""
    store = CheckpointStore(Path(path) / "checkpoints")
    saved = store.load()
    tensors = {group: dict(saved.tensors(group)) for group in saved.groups}
    name = next(iter(tensors["model"]))
    tensors["model"][name] = torch.full_like(tensors["model"][name], float("nan"))
    store.save("broken", tensors, saved.state)


def test_a_search_over_vectors_draws_a_map_but_no_images(work):
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = (0.25 + 0.5 * y[:, None] + 0.1 * rng.standard_normal((400, 6))).clip(0, 1)
    data, forge = (x.astype("float32"), y), Forge()
    options = {"data": data, "quiet": True}
    ae = forge.train(
        "ae", model={"hidden": [16], "latent_dim": 1}, train={"epochs": 20, "lr": 1e-2}, **options
    )
    guide = forge.train("mlp-classifier", train={"epochs": 10, "lr": 1e-2}, **options)
    made = forge.explore("guided", ae, roles={"classifier": guide}, n=4, steps=20, quiet=True)
    assert made["metrics"]["success_share"] == 1.0
    assert all(f"{name}:" in made["protocol"] for name in made["metrics"])
    assert {Path(file).name for file in made["files"]} == {
        *("walks.png", "walks.npz", "walks.html", "found.npz", "progress.png", "progress.npz"),
        "findings.json",
    }
    assert made["notes"] == [
        "4 of 4 requests satisfied",
        "examples of shape (6,) cannot be drawn; their values are in found.npz",
    ]


def test_an_unused_judge_is_reported(search_of):
    made = search_of(objective="inpaint", n=2, steps=3, roles=("judge",))
    assert "the judge was not used, because the objective does not request classes" in made.notes


def test_objective_options_accept_the_objective_name_as_prefix(cli, guided):
    command = ["explore", "guided", "runs/vae", "--with", "classifier=runs/guide", "--quiet"]
    answer = cli(*command, "--set", "class.n=2", "--set", "guided.steps=2", "--json")
    assert answer.code == 0
    with np.load(Path(answer.json["out"], "found.npz")) as found:
        assert len(found["z"]) == 2


@torch.no_grad()
def test_baselines_are_those_of_training_codes(explored):
    runs, made = explored
    metrics, found = made["metrics"], np.load(Path(made["out"], "found.npz"))
    forge = Forge()
    vae = forge.open_run(runs / "vae").load_model()
    train = forge.load_data("digits").split("train")
    codes, y = vae.encode(train.x / 255).mode(), train.y
    p = forge.open_run(runs / "guide").load_model()(vae.decode(codes)).softmax(1)
    shares = []
    for label in range(10):  # the probability that one of k codes of other classes is accepted
        share = float((p[y != label, label] >= 0.9).double().mean())
        shares.append([1 - (1 - share) ** k for k in (16, 256)])
    for k, expected in zip((16, 256), np.mean(shares, 0), strict=True):
        assert metrics[f"best_of_{k}"] == pytest.approx(expected, abs=0.35)  # of 20 requests
    wanted, ratios = np.arange(20) % 10, []
    for label in range(10):
        spread = found["z"][wanted == label].var(0, ddof=1).sum() ** 0.5
        ratios.append(spread / float(codes[y == label].var(0).sum().sqrt()))
    assert metrics["deviation_ratio"] == pytest.approx(np.mean(ratios), rel=1e-4)
    assert metrics["deviation_ratio_max"] == pytest.approx(np.max(ratios), rel=1e-4)
    assert 1 <= metrics["result_groups"] <= 20


def test_results_are_sampled_by_default_for_classes_in_more_than_two_dimensions(
    explored, search_of
):
    def steps(dimensions, objective, **options):
        context = SimpleNamespace(
            model=SimpleNamespace(latent=LatentSpec((dimensions,))), objective=objective
        )
        return sample_steps(context, GuidedConfig(**options))

    classes = SimpleNamespace(classes=torch.zeros(1))
    assert steps(3, classes) == 100
    assert steps(2, classes) == steps(3, NearGoal([0.0])) == steps(3, classes, prior="none") == 0
    assert steps(2, classes, sample=7) == 7
    assert steps(3, classes, sample=0) == 0
    _, made = explored  # the VAE has two dimensions
    assert "Langevin" not in made["protocol"]
    sampled = search_of(**FAST | {"sample": 5}).protocol
    assert "; 5 Langevin steps from each solution then sample" in sampled
    inpaint = {"objective": "inpaint", "n": 2, "steps": 3, "restarts": 1, "roles": ()}
    assert "Langevin" not in search_of(**inpaint).protocol
    with pytest.raises(ConfigError, match="sample needs prior='mixture'"):
        search_of(**FAST, sample=5, prior="gaussian")
    assert "of 16 chains of 5 Langevin steps" in search_of(**inpaint, sample=5).protocol
    unused = NearGoal([0.5, 0.5], 1.0)
    unused.score = None  # the error comes before the search
    with pytest.raises(UsageError, match="sample needs an objective of classes"):
        run_guide(unused, sample=5)


def test_sampled_results_are_as_different_as_images_of_their_class(search_of):
    climbed = search_of(**FAST | {"n": 60, "sample": 0}).metrics
    sampled = search_of(**FAST | {"n": 60, "sample": 60}).metrics
    assert sampled["success_share"] == climbed["success_share"]
    assert sampled["deviation_ratio"] > 1.3 * climbed["deviation_ratio"]
    assert 0.5 < sampled["deviation_ratio"] < 2
    assert sampled["result_groups"] > climbed["result_groups"]


def test_starts_of_other_classes_are_reported(search_of):
    made = search_of(n=2, restarts=2, steps=2, settle=0)
    starts = "starts: codes of random training images of classes other than the requested one;"
    assert starts in made.protocol
    chosen = search_of(n=2, target=5, start_class=0, restarts=2, steps=2, settle=0)
    assert "starts: codes of random training images of class 0;" in chosen.protocol


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("explore latent-map runs/vae", "runs/vae"),
        ("explore guided runs/vae --with classifier=runs/guide", "runs/guide"),
    ],
)
def test_nan_weights_of_the_model_or_a_role_are_refused(cli, guided, line, run):
    write_nan_weights(run)
    answer = cli(*line.split())
    assert answer.code == 1
    assert f"the weights of {run} are not finite" in answer.err
    assert f"latentforge doctor {run}" in answer.err
    assert not Path("runs/vae/explore").exists()
