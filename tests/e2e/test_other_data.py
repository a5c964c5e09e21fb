"""Origin of codes, other data for evaluate and encode, paths like numbers, and rare classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from latentforge import Forge, open_run
from latentforge.errors import UsageError

DIGITS = load_digits()
X = (DIGITS.images * 15).astype(np.uint8)


def save(folder, indices):
    Path(folder).mkdir(parents=True)
    for i in indices:
        Image.fromarray(X[i]).save(f"{folder}/{i:04d}.png")


@pytest.fixture
def trained(cli, work):
    """A run on a folder of threes and eights, with other images of both in `test`."""
    for digit in (3, 8):
        places = np.flatnonzero(DIGITS.target == digit)
        save(f"splits/train/{digit}", places[:60])
        save(f"splits/test/{digit}", places[60:80])
    options = ["--data", "folder", "--set", "data.root=splits/train", "--quiet"]
    small = ["--set", "model.hidden=[16]", "--set", "model.latent_dim=2"]
    answer = cli("train", "ae", *options, *small, "--epochs", "1", "--run", "r")
    assert answer.code == 0, answer.err


@pytest.mark.usefixtures("trained")
def test_codes_carry_the_place_and_the_file_of_their_image(cli):
    assert cli("encode", "r", "--split", "all", "--out", "c.npz").code == 0
    codes = np.load("c.npz")
    assert sorted(codes["source"].tolist()) == list(range(120))  # no place occurs twice
    files = sorted(str(p.relative_to("splits/train")) for p in Path("splits/train").glob("*/*"))
    assert sorted(codes["file"].tolist()) == files
    by_source = dict(zip(codes["source"].tolist(), codes["file"].tolist(), strict=True))
    assert [by_source[i] for i in range(120)] == files  # in the order of the folder
    assert cli("explore", "latent-map", "r", "--quiet").code == 0
    shown = np.load("r/explore/latent-map/index.npz")
    assert [by_source[i] for i in shown["source"].tolist()] == shown["file"].tolist()
    assert len(shown["index"]) == 24
    import pyarrow.parquet as pq

    assert cli("encode", "r", "--split", "test", "--out", "c.parquet").code == 0
    table = pq.read_table("c.parquet")
    for source, file, label in zip(
        *(table[k].to_pylist() for k in ("source", "file", "label")), strict=True
    ):
        assert by_source[source] == file
        assert file.startswith(f"{label}/")


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("key", ["data.root", "root"])
@pytest.mark.parametrize("name", [["--data", "folder"], []])
def test_encode_takes_options_of_the_data_in_every_form(cli, key, name):
    answer = cli("encode", "r", *name, "--set", f"{key}=splits/test", "--out", "d.npz", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["images"] == {"test": 40}  # all of them: nothing is split off
    assert all(file.startswith(("3/", "8/")) for file in np.load("d.npz")["file"])


@pytest.mark.usefixtures("trained")
def test_evaluate_takes_another_dataset_or_options_of_its_own(cli):
    command = ["evaluate", "r", "--set", "data.root=splits/test", "--json"]
    own, named = cli(*command), cli(*command, "--data", "folder")
    assert own.json["metrics"] == named.json["metrics"]
    assert own.json["images"] == 40
    as_trained = cli("evaluate", "r", "--json")
    assert as_trained.json["images"] == 24
    refused = cli("evaluate", "r", "--data", "digits", "--set", "data.size=8")
    assert refused.code == 2
    assert "has examples of '0', '1', '2'" in refused.err


@pytest.mark.usefixtures("trained")
def test_an_option_without_a_value_is_refused(cli):
    for line in (["evaluate", "r"], ["encode", "r", "--out", "c.npz"]):
        answer = cli(*line, "--set", "data.test")
        assert answer.code == 2
        assert "write key=VALUE" in answer.err


@pytest.mark.usefixtures("trained")
def test_options_that_leave_the_fingerprint_unchanged_are_applied():
    run = open_run("r")
    usual = run.evaluate()
    binary = run.evaluate(options={"data": {"binarize": "threshold"}})
    assert binary["recon"] != usual["recon"]


def test_levels_of_the_run_are_not_applied_to_values_of_another_type(work):
    deep, names = X.astype(np.uint16) * 16, {"quiet": True, "train": {"epochs": 1}}
    run = Forge().train("ae", data={"train": deep, "white": 3840}, run="deep", **names)
    with pytest.raises(UsageError, match="was trained on uint16 with black 0 and white 3840, but"):
        run.evaluate(data=X)
    with pytest.raises(UsageError) as caught:
        run.evaluate(data=X)
    fix = eval(caught.value.hint.removeprefix("data="), {"x": X})
    assert (fix["train"] is X, fix["black"], fix["white"]) == (True, 0, 255)
    assert run.evaluate(data=fix)["recon"] > 0
    assert run.evaluate(data=deep) == run.evaluate(data={"train": deep, "white": 3840})
    with pytest.raises(UsageError, match=r"white 3840, but this data is float32") as caught:
        run.evaluate(data=(X / 255).astype(np.float32))
    assert run.evaluate(data=eval(caught.value.hint[5:], {"x": X / 255}))["recon"] > 0


@pytest.mark.parametrize("name", ["2024", "1e3", "true", "2024-01-01", "007", "3.50"])
def test_folder_with_a_name_like_a_number_is_a_path(cli, work, name):
    for label in (3, 8):
        save(f"{name}/{label}", np.flatnonzero(DIGITS.target == label)[:10])
    shown = cli("data", "show", "folder", "--set", f"data.root={name}", "--json")
    assert shown.code == 0, shown.err
    assert shown.json["images"]["train"] == 14
    line = ["train", "ae", "--data", "folder", "--set", f"data.root={name}", "--epochs", "1"]
    assert cli(*line, "--quiet", "--run", "r").code == 0
    stored = json.loads(Path("r/run.json").read_text())["config"]["data"]["root"]
    assert stored == str(Path(name).absolute())


def test_accuracy_of_a_frequent_class_is_reported_as_such(cli, work):
    save("rare/common", range(300))
    save("rare/rare", range(300, 306))
    shown = cli("data", "show", "folder", "--set", "root=rare", "--json").json
    assert sum(counts["rare"] for counts in shown["class_counts"].values()) == 6
    line = ["train", "mlp-classifier", "--data", "folder", "--set", "data.root=rare", "--quiet"]
    assert cli(*line, "--epochs", "1", "--lr", "1e-6", "--run", "q").code == 0
    counts = json.loads(Path("q/run.json").read_text())["data"]["class_counts"]
    assert counts["train"]["common"] > 200
    doctor = cli("doctor", "q", "--split", "train", "--json")
    [finding] = [f for f in doctor.json["findings"] if f["check"] == "imbalance"]
    assert "answering it always has accuracy 0.9" in finding["saw"]
    command = ["evaluate", "q", "--split", "train", "--measure", "balanced_accuracy"]
    metrics = cli(*command, "--measure", "accuracy", "--json").json["metrics"]
    assert metrics["majority_baseline"] > 0.9
    assert f"and {metrics['balanced_accuracy']:.3f} if each class" in finding["saw"]


def test_accuracy_that_is_not_above_the_majority_is_reported(cli, work):
    """The model answers the common class; the test split has one class only."""
    x = DIGITS.images[:200].astype(np.uint8)
    np.savez("half.npz", x=x, y=np.arange(200) % 4 == 0)
    line = ["train", "mlp-classifier", "--data", "arrays", "--set", "data.path=half.npz"]
    train = cli(*line, "--epochs", "1", "--lr", "1e-6", "--run", "half")
    assert "training images are of class 0, and answering it always" in train.err + train.out
    [finding] = [
        f for f in cli("doctor", "half", "--json").json["findings"] if f["check"] == "imbalance"
    ]
    assert finding["severity"] == "warning"
    np.savez("one.npz", x_train=x, y_train=np.arange(200) % 2, x_test=x[:9], y_test=[1] * 9)
    assert cli(*line[:-1], "data.path=one.npz", "--epochs", "1", "--run", "one").code == 0
    findings = cli("doctor", "one", "--json").json["findings"]
    [finding] = [f for f in findings if f["check"] == "accuracy"]
    assert "all images of the test split are of class 1" in finding["saw"]
    assert "all images of the test split are of class 1" in cli("evaluate", "one", "--json").err


def test_a_class_without_training_images_is_reported_after_the_split(cli, work):
    y = np.zeros(200, int)
    y[172] = 1  # is in the test split
    np.savez("rare.npz", x=DIGITS.images[:200].astype(np.uint8), y=y)
    shown = cli("data", "show", "arrays", "--set", "path=rare.npz")
    assert "no training image is of class '1' (1 in test)" in shown.err


def test_other_data_that_is_unlike_that_of_the_run_is_announced(work, caplog):
    x, y = DIGITS.images.astype(np.float32), DIGITS.target
    data = {"train": (x, y), "white": 16.0}
    run = Forge().train("mlp-classifier", data=data, quiet=True, train={"epochs": 1})
    caplog.clear()
    run.evaluate(data=(x / 255, y), measures=["accuracy"])
    assert "it may have been scaled twice" in caplog.text
    caplog.clear()
    run.evaluate(data={"test": (x, y), "white": 32.0}, measures=["accuracy"])
    assert "white is 32 for this data, but 0 and 16" in caplog.text
    caplog.clear()
    run.evaluate(data=(x[y < 3], y[y < 3]), measures=["accuracy"])
    assert "no examples of 7 of the 10 classes" in caplog.text
    with pytest.raises(UsageError, match="this data is uint16") as caught:
        run.evaluate(data=(x[:99].astype(np.uint16), y[:99]))
    code = caught.value.hint.removeprefix("data=").partition(", if")[0]
    same = run.evaluate(data=eval(code, {"x": x[:99].astype(np.uint16), "y": y[:99]}))
    assert same == pytest.approx(run.evaluate(data=(x[:99], y[:99])), rel=1e-5)


def test_data_name_is_the_option_data(cli, work):
    save("a/x", range(20))
    save("a/y", range(20, 40))
    data = {"train": DIGITS.images / 16}
    Forge().train("ae", data=data, train={"epochs": 1}, run="r", quiet=True)
    root = ["--set", "data.root=a", "--measure", "mse_per_pixel", "--json"]
    named = cli("evaluate", "r", "--set", "data.name=folder", *root)
    assert named.json["metrics"] == cli("evaluate", "r", "--data", "folder", *root).json["metrics"]
    both = cli("evaluate", "r", "--data", "folder", "--set", "data.name=digits")
    assert "data 'folder' and data.name=digits are two datasets" in both.err
    line = ["train", "ae", "--data", "digits", "--set", "data.name=folder", "--set", "data.root=a"]
    assert "--data is 'digits'; give only one of them" in cli(*line).err


def test_number_as_a_folder_in_a_config_file(cli, work):
    save("2024/x", range(20))
    save("2024/y", range(20, 40))
    Path("c.toml").write_text('[model]\nname = "ae"\n[data]\nname = "folder"\nroot = 2024\n')
    assert cli("train", "--config", "c.toml", "--epochs", "1", "--quiet").code == 0


@pytest.mark.usefixtures("trained")
def test_explorers_name_the_files_of_images(cli):
    assert cli("explore", "neighbours", "r", "--set", "n=3", "--set", "images=[0,2]").code == 0
    assert cli("explore", "reconstruct", "r", "--set", "n=3").code == 0
    found = np.load("r/explore/neighbours/nearest.npz")
    assert found["file_codes"].shape == found["source_codes"].shape == (2, 3)
    assert found["query_file"].shape == (2,)
    errors = np.load("r/explore/reconstruct/errors.npz")
    for place, file in zip(errors["source"], errors["file"], strict=True):
        assert sorted(Path("splits/train").glob("*/*.png"))[place].match(f"*/{file}")


def test_data_with_another_order_of_axes_is_read_as_suggested(cli, work):
    x = np.random.default_rng(0).integers(0, 256, (12, 16, 3, 60), np.uint8)
    small = {"hidden": [8], "latent_dim": 2}
    data = {"train": x, "layout": "HWCN"}
    run = Forge().train("ae", data=data, model=small, train={"epochs": 1}, quiet=True)
    first = np.moveaxis(x, -1, 0)
    with pytest.raises(UsageError, match="this data has shape") as caught:
        Forge().evaluate(run, data=first)
    suggested = eval(caught.value.hint.removeprefix("data=").partition(", if ")[0], {"x": first})
    metrics = Forge().evaluate(run, data=suggested)["metrics"]
    assert metrics == Forge().evaluate(run, data=data)["metrics"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            ["train", "ae", "--set", "data.root=x"],
            "folder, kmnist, mnist, svhn; choose the dataset with --data NAME",
        ),
        (
            ["train", "ae", "--set", "data.size=null", "--data", "folder", "--set", "data.root=x"],
            "for the default, leave the option out",
        ),
        (["evaluate", "r", "--set", "root=x"], "or data.key=VALUE for the data"),
    ],
)
@pytest.mark.usefixtures("trained")
def test_options_of_data_in_the_wrong_place_are_refused_with_the_right_one(cli, line, said):
    answer = cli(*line)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


@pytest.mark.usefixtures("trained")
def test_moved_data_is_found_by_every_command_as_suggested(cli):
    Path("splits").rename("moved")
    for command in (("doctor", "r"), ("explore", "reconstruct", "r", "--quiet"), ("evaluate", "r")):
        refused = cli(*command)
        assert refused.code == 4
        assert "--set data.root=FOLDER" in refused.err
        assert cli(*command, "--set", "data.root=moved/train").code == 0


@pytest.mark.usefixtures("trained")
def test_a_flag_that_set_replaces_is_announced(cli):
    line = ["train", "ae", "--epochs", "1", "--set", "train.epochs=2", "--run", "twice"]
    answer = cli(*line)
    assert answer.code == 0
    assert "--set train.epochs=2 replaces the value of --epochs" in answer.err
    assert "2 epochs" in answer.out or json.loads(Path("twice/run.json").read_text())["epochs"] == 2
