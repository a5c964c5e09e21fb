"""The Python API: forms of `data`, results of runs, refused arguments."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from latentforge import Arrays, Forge, ModelSpec, open_run
from latentforge.errors import ConfigError, MissingError, RunFailed, UsageError

from .plugin import plugin_of

TINY = {"hidden": [16], "latent_dim": 3}
ONCE = {"epochs": 1}


@pytest.fixture(scope="module")
def forge():
    return Forge()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (80, 12, 10), dtype=np.uint8)


class Pairs(Dataset):
    """A map-style dataset of (x, y)."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def forms(images):
    labels = np.arange(80) % 3
    floats = torch.from_numpy(images).float() / 255
    return {
        "array": (images, (1, 12, 10)),
        "tensor": (floats[:, None].repeat(1, 3, 1, 1), (3, 12, 10)),
        "vectors": (floats.flatten(1)[:, :30], (30,)),
        "pair": ((images, labels), (1, 12, 10)),
        "arrays": (Arrays(images, labels, ("a", "b", "c")), (1, 12, 10)),
        "dataset": (Pairs(floats[:, None], labels), (1, 12, 10)),
        "strided": ((images[::2].repeat(2, 0)[::1], np.arange(160)[::2] % 3), (1, 12, 10)),
        "strided tensors": ((floats.repeat(2, 1, 1)[::2], torch.arange(160)[::2] % 3), (1, 12, 10)),
        "splits": ({"train": (images[:60], labels[:60]), "test": (images[60:], labels[60:])}, None),
    }


@pytest.mark.parametrize("form", forms(np.zeros((80, 12, 10), np.uint8)))
def test_data_can_have_many_forms(forge, images, tmp_path, form):
    data, shape = forms(images)[form]
    run = forge.train("ae", data=data, model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    assert run.manifest["data"]["shape"] == list(shape or (1, 12, 10))
    sizes = run.manifest["data"]["images"]
    assert sizes["test"] == (20 if form == "splits" else 16)
    assert sum(sizes.values()) == 80
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-6)
    found = run.explore("interpolate", steps=3)
    assert any(file.endswith(".png") for file in found["files"])


def test_reopened_run_on_in_memory_data_needs_it_again(forge, images, tmp_path):
    run = forge.train("ae", data=images, model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    again = open_run(tmp_path / "a")
    with pytest.raises(MissingError, match="data passed in Python") as caught:
        again.evaluate()
    assert "data=" in caught.value.hint
    assert again.evaluate(data=images) == pytest.approx(run.metrics["test"], rel=1e-6)
    with pytest.raises(UsageError, match=r"trained on images of shape \(1, 12, 10\)"):
        again.evaluate(data=images[:, :8])


def test_a_preset_or_file_can_be_trained_on_other_data(forge, images, tmp_path):
    run = forge.train(preset="vanilla-ae", data=images, train=ONCE, run=tmp_path / "a", quiet=True)
    assert run.config["data"]["name"] == "in-memory"
    assert run.config["model"]["hidden"] == [128]
    run = forge.train(
        preset="vanilla-ae", data="digits", train=ONCE, run=tmp_path / "b", quiet=True
    )
    assert run.config["data"]["name"] == "digits"


@pytest.mark.parametrize("data", [7, {"trian": np.zeros((4, 4))}, {"train": 3}, object()])
def test_invalid_data_is_refused(forge, data, tmp_path):
    with pytest.raises(UsageError):
        forge.train("ae", data=data, run=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_classifier_needs_labels(forge, images, tmp_path):
    with pytest.raises(UsageError, match="needs labels"):
        forge.train("cnn-classifier", data=images, run=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_image_classifier_refuses_vectors(forge, tmp_path):
    data = (np.zeros((50, 30), np.float32), np.arange(50) % 2)
    with pytest.raises(UsageError, match="supports images"):
        forge.train("cnn-classifier", data=data, run=tmp_path / "a")


def test_errors_of_all_keywords_are_reported_at_once(forge, tmp_path):
    with pytest.raises(ConfigError) as caught:
        forge.train(
            "ae",
            model={"latent_dim": 0, "hiden": [3]},
            train={"epochs": True, "lr": float("inf")},
            data={"name": "digits", "validation": 1.5},
            callbacks=["nothing"],
            run=tmp_path / "a",
        )
    text = str(caught.value)
    for part in (
        "latent_dim",
        "'hidden'",
        "train.epochs",
        "train.lr",
        "data.validation",
        "nothing",
    ):
        assert part in text
    assert len(caught.value.details) == 6


def test_evaluation_warns_if_the_dataset_has_changed(forge, tmp_path, caplog):
    run = forge.train("ae", model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    run.manifest["data"]["fingerprint"] = "0" * 64
    run.update()
    open_run(tmp_path / "a").evaluate()
    assert "has changed since" in caplog.text


def test_weights_that_do_not_fit_the_model_are_refused(forge, tmp_path):
    run = forge.train("ae", model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    run.manifest["config"]["model"]["latent_dim"] = 4
    run.update()
    with pytest.raises(RunFailed, match="do not fit"):
        open_run(tmp_path / "a").load_model()


def test_forges_have_separate_registries():
    swirl = ModelSpec(name="swirl", summary="", build=print, provides=set(), default_loss="elbo")
    assert "swirl" in Forge([plugin_of(swirl)]).registry.names("models")
    assert "swirl" not in Forge().registry.names("models")


def test_other_data_is_evaluated_whole_and_the_runs_own_by_its_split(forge, images, tmp_path):
    run = forge.train("ae", data=images, model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    other = images[::-1].copy()
    for again in (open_run(run.path), run):
        result = forge.evaluate(again, data=other)
        model = again.load_model()
        with torch.no_grad():
            x = torch.from_numpy(other).float()[:, None] / 255
            mse = (model.decode(model.encode(x).mode()) - x).square().mean().item()
        assert result["images"] == 80
        assert result["fingerprint"] != run.manifest["data"]["fingerprint"]
        assert result["metrics"]["mse_per_pixel"] == pytest.approx(mse, rel=1e-5)
    assert forge.evaluate(again, data={"test": other[:30]})["images"] == 30
    assert forge.evaluate(again, data=images)["images"] == 16


def test_split_shares_can_be_given_with_the_data(forge, images, tmp_path):
    data = {"train": images, "validation": 0.25, "test": 0.5}
    run = forge.train("ae", data=data, model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    assert run.manifest["data"]["images"] == {"train": 30, "validation": 10, "test": 40}


def test_classifier_cannot_be_evaluated_without_labels(forge, tmp_path):
    data = (np.zeros((60, 16, 16), np.uint8), np.arange(60) % 2)
    run = forge.train("cnn-classifier", data=data, train=ONCE, run=tmp_path / "a", quiet=True)
    with pytest.raises(UsageError, match="needs labels"):
        run.evaluate(data=data[0][:30])
    with pytest.raises(UsageError, match="examples of '2', '3', '4', but the classes of"):
        run.evaluate(data=(data[0][:30], np.arange(30) % 5))


def test_options_apply_in_any_key_order(forge, tmp_path):
    run = forge.train(
        preset="vanilla-ae",
        data={"size": 14, "name": "digits"},
        train=ONCE,
        run=tmp_path / "a",
        quiet=True,
    )
    assert run.manifest["data"]["shape"] == [1, 14, 14]


def test_load_model_refuses_an_unknown_device(forge, tmp_path):
    run = forge.train("ae", model=TINY, train=ONCE, run=tmp_path / "a", quiet=True)
    with pytest.raises(UsageError, match="device must be auto, cpu"):
        run.load_model(device="gpu")


def test_keywords_that_contradict_are_refused(forge, runs):
    with pytest.raises(UsageError, match="give a name or a mapping with a name, not 3"):
        forge.train("ae", callbacks=[3])
    with pytest.raises(UsageError, match="give the model's name only once"):
        forge.train("ae", model={"name": "vae"})
    with pytest.raises(UsageError, match=r"options for 'recno'.*did you mean 'recon'"):
        forge.evaluate("runs/ae", measures=["recon"], options={"recno": {}})
    twice = forge.evaluate("runs/ae", measures=["recon", "latentforge/recon"])
    assert list(twice["metrics"]) == ["recon"]


def test_misplaced_keywords_are_refused_with_their_place(work):
    keywords = {"epochs": 1, "latent_dim": 3, "lr": 0.01, "quiet": True}
    with pytest.raises(UsageError, match="train has no keyword epochs, latent_dim, lr") as caught:
        Forge().train("vae", **keywords)
    code = f"Forge().train('vae', {caught.value.hint}, quiet=True)"
    run = eval(code, {"Forge": Forge})
    assert run.config["model"]["latent_dim"] == 3
    assert (run.config["train"]["epochs"], run.config["train"]["lr"]) == (1, 0.01)
    with pytest.raises(UsageError, match="train has no keyword colour"):
        Forge().train("vae", colour="red")
    with pytest.raises(UsageError, match="train has no keyword hidden") as caught:
        Forge().train("ae", hidden=8)
    assert caught.value.hint == "model={'hidden': [8]}"
    with pytest.raises(UsageError, match="train has no keyword beta") as caught:
        Forge().train("ae", beta=4)
    assert caught.value.hint == ""  # ae has no KL divergence
    with pytest.raises(UsageError, match="train has no keyword resume") as caught:
        Forge().train(resume="runs/ae")
    assert caught.value.hint == "forge.resume('runs/ae')"
    with pytest.raises(UsageError, match="train has no keyword resume") as caught:
        Forge().train(resume=run)
    code = f"{caught.value.hint[:-1]}, train={{'epochs': 2}}, quiet=True)"
    assert eval(code, {"forge": Forge()}).manifest["epochs"] == 2


def test_arguments_of_the_wrong_type_are_refused(runs):
    forge = Forge()
    with pytest.raises(UsageError, match="train=3: give a mapping of options to values"):
        forge.train("ae", train=3)
    with pytest.raises(UsageError, match="measures is 'recon', not a list") as caught:
        forge.evaluate("runs/ae", measures="recon")
    assert eval(f"forge.evaluate('runs/ae', {caught.value.hint})")["metrics"].keys() == {"recon"}


CODE = """
import sys, warnings
import numpy as np
from latentforge import Forge
x = np.random.default_rng(0).integers(0, 20, (60, 8, 8), dtype=np.uint8)
Forge().train("vae", data={"train": x}, train={"epochs": 4}, run=sys.argv[1], quiet=True)
"""


def test_announcements_are_python_warnings_and_quiet_training_prints_nothing_else(work):
    program = work / "program.py"
    program.write_text(CODE)
    command = [sys.executable, str(program), "run"]
    loud = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert loud.returncode == 0
    assert f"{program}:6: LatentForgeWarning: in-memory" in loud.stderr
    assert "so all images are dark" in loud.stderr
    assert "posterior collapse" not in loud.stderr  # found during training
    assert open_run(work / "run").manifest["findings"]
    command = [sys.executable, "-W", "ignore", str(program), "again"]
    silent = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
