"""The example in each hook's docstring is a plugin: it loads as a file and its component works."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentforge import Forge, hookspecs
from latentforge.errors import RunFailed
from latentforge.specs import KINDS

HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and function.__module__ == hookspecs.__name__
}
SMALL = {"train": {"epochs": 1, "device": "cpu"}, "quiet": True}
TINY = {"hidden": [16], "latent_dim": 4}


def use_models(forge, folder):
    """The linear autoencoder comes close to PCA."""
    model, train = {"latent_dim": 16}, {**SMALL["train"], "epochs": 5, "lr": 0.01}
    loss = {"name": "reconstruction", "likelihood": "gaussian"}
    run = forge.train(
        "linear-ae", loss=loss, model=model, train=train, run=folder / "run", quiet=True
    )
    assert run.load_model().latent.shape == (16,)
    x = forge.load_data("digits").split("train").x.flatten(1).float() / 255
    _, s, _ = torch.linalg.svd(x - x.mean(0))
    pca = float(s[16:].square().sum() / x.numel())
    assert 0.5 * pca < run.metrics["test"]["mse_per_pixel"] < 0.5 * float(x.var(0).mean())


def use_losses(forge, folder):
    """The loss is the sum of absolute differences, on other data too."""
    run = forge.train("ae", loss="absolute", model=TINY, run=folder / "run", **SMALL)
    assert set(run.metrics["train"]) == {"loss", "l1"}
    model, test = run.load_model(), forge.load_data("digits").split("test")
    x = test.x / 255
    l1 = (model.decode(model.encode(x).mode()) - x).abs().sum() / len(x)
    assert run.metrics["test"]["loss"] == pytest.approx(float(l1), rel=1e-4)


def use_datasets(forge, folder):
    """Six discs, each larger than the one before it."""
    data = forge.load_data("discs")
    assert (data.spec.shape, data.spec.classes) == ((1, 16, 16), tuple("012345"))
    train = data.split("train")
    areas = [int(train.x[train.y == i][0].sum()) for i in range(6)]
    assert areas == sorted(set(areas))
    assert [len(images) for images in data.splits.values()] == [216, 24, 60]
    run = forge.train("ae", data="discs", model=TINY, run=folder / "run", **SMALL)
    assert run.status == "done"


def use_explorers(forge, folder):
    """A picture of two rows."""
    run = forge.train("ae", model=TINY, run=folder / "run", **SMALL)
    found = run.explore("pairs", device="cpu")
    picture, summary = (Path(file) for file in found["files"])
    assert picture.name == "pairs.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(summary.read_text())["explorer"] == "pairs"


def use_objectives(forge, folder):
    """A grey image meets the request when it is bright enough; brighter is better."""
    objective = forge.registry.get("objectives", "bright").spec.build(None, None)
    x = torch.stack([torch.full((1, 4, 4), grey) for grey in (0.1, 0.5)]).requires_grad_()
    request = torch.zeros(2, dtype=torch.int64)
    assert list(objective.requests) == ["a bright image"]
    assert objective.satisfied(x, request).tolist() == [False, True]
    score = objective.score(x, request)
    assert score[0] < score[1]
    score.sum().backward()
    assert (x.grad == 1 / 16).all()


def use_measures(forge, folder):
    """The metric is the mean norm, computed only on request, with its protocol."""
    run = forge.train("ae", model=TINY, run=folder / "run", **SMALL)
    assert "code_norm" not in run.metrics["test"]
    answer = forge.evaluate(run, measures=["code_norm"], device="cpu")
    x = forge.load_data("digits").split("test").x / 255
    norms = np.linalg.norm(run.load_model().encode(x).mode().numpy(), axis=1)
    assert answer["metrics"] == {"code_norm": pytest.approx(norms.mean(), rel=1e-4)}
    assert answer["protocol"] == {"code_norm": "mean Euclidean norm of the posterior mode"}


def use_callbacks(forge, folder):
    """A scalar at the end of the epoch, equal to the norm of the saved weights."""
    run = forge.train("ae", model=TINY, callbacks=["weight-norm"], run=folder / "run", **SMALL)
    [event] = EventAccumulator(str(run.path)).Reload().Scalars("weight_norm")
    weights = torch.cat([p.flatten() for p in run.load_model().parameters()])
    assert event.step == run.manifest["steps"]
    assert event.value == pytest.approx(float(weights.norm()), rel=1e-5)


def use_presets(forge, folder):
    """The file beside the plugin sets what to train; keywords override it."""
    run = forge.train(preset="tiny-ae", train={"device": "cpu"}, run=folder / "run", quiet=True)
    assert run.load_model().latent.shape == (3,)
    assert run.config["train"]["epochs"] == 1


def use_run_started(forge, folder):
    """A note in the folder of a run that completes."""
    run = forge.train("ae", model=TINY, run=folder / "run", **SMALL)
    assert (run.path / "notes.txt").read_text() == "began run: ae"


def use_run_finished(forge, folder):
    """The test metrics, equal to those of the run."""
    run = forge.train("ae", model=TINY, run=folder / "run", **SMALL)
    assert json.loads((run.path / "last.json").read_text()) == run.metrics["test"]


def use_run_failed(forge, folder):
    """The cause of a failure; a run that completes writes nothing."""
    run = forge.train("ae", model=TINY, run=folder / "run", **SMALL)
    assert not (run.path / "why.txt").exists()
    train = {**SMALL["train"], "optimizer": "sgd", "lr": 1e30}
    with pytest.raises(RunFailed):
        forge.train("ae", model=TINY, train=train, run=folder / "other", quiet=True)
    assert "became" in (folder / "other/why.txt").read_text()


OBSERVERS = ["latentforge_run_failed", "latentforge_run_finished", "latentforge_run_started"]


def test_there_is_a_hook_for_each_kind_of_component_and_three_for_runs():
    assert sorted(HOOKS) == sorted([*(kind.hook for kind in KINDS.values()), *OBSERVERS])


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_in_the_docstring_works(hook, tmp_path):
    use = globals().get(hook.replace("latentforge_", "use_"))
    assert use, f"write use_{hook.removeprefix('latentforge_')}, which uses the example of {hook}"
    summary, _, example = inspect.getdoc(HOOKS[hook]).partition("\n\n")
    assert summary.endswith(".")
    assert "@hookimpl" in example, f"the docstring of {hook} has no example"

    plugin = tmp_path / "example.py"
    plugin.write_text(example)
    file = [line.removeprefix("#") for line in example.splitlines() if line.startswith("#")]
    plugin.with_name("tiny-ae.toml").write_text("\n".join(line.strip() for line in file[1:]))
    forge = Forge(plugins=[str(plugin)])
    offered = [
        entry
        for kind in KINDS
        for entry in forge.registry.entries(kind)
        if entry.plugin.name == "example"
    ]
    observed = [o.hook for o in forge.registry.observers if o.plugin.name == "example"]
    assert [*(entry.kind.hook for entry in offered), *observed] == [hook]
    use(forge, tmp_path)
