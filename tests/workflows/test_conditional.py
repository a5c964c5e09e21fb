"""A conditional model in every workflow: which labels it is given, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from latentforge import Arrays, ExplorerSpec, Forge, LossSpec, ModelSpec, hookimpl
from latentforge.errors import ConfigError, UsageError
from latentforge.findings import Findings, NamedArrays

SMALL = {"encoder": [64], "decoder": [64], "latent_dim": 4}
TRAIN = {"epochs": 12, "batch_size": 64, "lr": 5e-3}


class Probe:
    """An explorer that returns what it receives."""

    @hookimpl
    def latentforge_explorers(self):
        yield ExplorerSpec(name="probe", summary="s", explore=self.explore, needs={"encode"})
        yield ExplorerSpec(
            name="any-class",
            summary="s",
            explore=self.explore,
            needs={"encode"},
            optional_roles={"other": {"encode"}},
            conditional=True,
        )

    def explore(self, context, config):
        images = context.images("test")
        self.context = context
        arrays = {"codes": context.codes("test"), "y": images.y, "source": images.origins()}
        if context.condition is not None:
            arrays["encoded"] = context.model.encode(images.x[:5] / 255).mode()
        return Findings([NamedArrays("seen", arrays)])


@pytest.fixture(scope="module")
def probe():
    return Probe()


@pytest.fixture(scope="module")
def forge(probe):
    return Forge([probe])


@pytest.fixture(scope="module")
def run(forge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "cvae"
    return forge.train("cvae", data="digits", model=SMALL, train=TRAIN, run=folder, quiet=True)


@pytest.fixture(scope="module")
def vae(forge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "vae"
    return forge.train("vae", data="digits", model=SMALL, train=TRAIN, run=folder, quiet=True)


def digits(forge, split="test"):
    images = forge.load_data("digits").split(split)
    return images.batch_at(range(len(images)))


def arrays_in(path):
    with np.load(path) as file:
        return dict(file)


# ---------------------------------------------------------------- evaluation


def test_metrics_are_those_under_the_labels_of_the_images(forge, run):
    batch, model = digits(forge), run.load_model()
    view = model.given(batch.y)
    posterior = view.encode(batch.x)
    kl = float(posterior.kl().sum(1).mean())
    mse = float((view.decode(posterior.mode()) - batch.x).square().mean())
    found = forge.evaluate(run, measures=["kl", "mse_per_pixel"])["metrics"]
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["mse_per_pixel"] == pytest.approx(mse, rel=1e-5)
    other = model.given((batch.y + 1) % 10)  # the labels matter
    wrong = float((other.decode(other.encode(batch.x).mode()) - batch.x).square().mean())
    assert wrong > 1.1 * mse


def test_measures_that_encode_other_splits_use_their_labels(forge, run):
    train, test, model = digits(forge, "train"), digits(forge), run.load_model()
    codes = [model.given(b.y).encode(b.x).mode().double() for b in (train, test)]
    nearest = torch.cdist(codes[1], codes[0]).argmin(1)
    expected = float((train.y[nearest] == test.y).double().mean())
    options = ["knn_accuracy.k=1"]
    found = forge.evaluate(run, measures=["knn_accuracy"], options=options)["metrics"]
    assert found["knn_accuracy"] == pytest.approx(expected)


def test_training_with_accumulation_and_resume_gives_the_same_weights(forge, tmp_path):
    train = {**TRAIN, "accumulate": 2, "epochs": 2}
    whole = forge.train(
        "cvae", data="digits", model=SMALL, train=train, run=tmp_path / "a", quiet=True
    )
    half = forge.train(
        "cvae",
        data="digits",
        model=SMALL,
        train={**train, "epochs": 1},
        run=tmp_path / "b",
        quiet=True,
    )
    resumed = forge.resume(half, train={"epochs": 2}, quiet=True)
    one, other = (r.load_model().state_dict() for r in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_doctor_and_report_work(forge, run, tmp_path):
    found = forge.diagnose(run)
    assert not [str(f) for f in found if f.check in ("reconstructions", "labels", "chance")]
    assert Path(forge.report(run, out=tmp_path / "r.html")["report"]).stat().st_size > 1000


def test_members_of_a_sweep_are_trained_together(forge, tmp_path):
    sweep = forge.sweep(
        "cvae",
        data="digits",
        model=SMALL,
        train={**TRAIN, "epochs": 1},
        grid={"train.lr": [1e-3, 3e-3]},
        out=tmp_path / "sweep",
        quiet=True,
    )
    for member in sorted((tmp_path / "sweep").glob("*/run.json")):
        assert json.loads(member.read_text())["together_with"], sweep


# ---------------------------------------------------------------- exploration


def test_an_explorer_sees_the_images_and_the_model_of_one_class(forge, probe, run, tmp_path):
    found = forge.explore("probe", run, condition=3, out=tmp_path / "out", quiet=True)
    seen, batch, model = arrays_in(tmp_path / "out" / "seen.npz"), digits(forge), run.load_model()
    assert set(seen["y"]) == {3}
    mine = batch.y == 3
    expected = model.given(batch.y[mine]).encode(batch.x[mine]).mode()
    np.testing.assert_allclose(seen["codes"], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(seen["encoded"], expected[:5], rtol=0, atol=1e-5)
    assert "conditional" not in probe.context.provides
    stored = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert stored["options"]["condition"] == 3
    assert "condition 3" in stored["notes"][0]
    assert found["out"] == str(tmp_path / "out")


def test_without_a_class_codes_are_under_the_labels_of_the_images(forge, probe, run, tmp_path):
    forge.explore("any-class", run, out=tmp_path / "out", quiet=True)
    batch, model = digits(forge), run.load_model()
    codes = arrays_in(tmp_path / "out" / "seen.npz")["codes"]
    np.testing.assert_allclose(codes, model.given(batch.y).encode(batch.x).mode(), atol=1e-5)
    assert probe.context.condition is None
    assert "conditional" in probe.context.provides


def test_the_class_may_be_in_a_preset_or_an_assignment(forge, probe, run, tmp_path):
    forge.explore("probe", run, assignments=["condition=4"], out=tmp_path / "a", quiet=True)
    assert probe.context.condition == 4
    forge.explore("probe", run, assignments=["probe.condition=5"], out=tmp_path / "b", quiet=True)
    assert probe.context.condition == 5


def test_a_conditional_model_in_a_role_needs_a_class(forge, probe, run, vae, tmp_path):
    with pytest.raises(UsageError, match="role 'other' needs a class"):
        forge.explore("any-class", vae, roles={"other": run}, out=tmp_path / "a", quiet=True)
    forge.explore(
        "any-class", vae, roles={"other": run}, condition=2, out=tmp_path / "b", quiet=True
    )
    x, model = digits(forge).x[:4], run.load_model()
    expected = model.given(torch.full((4,), 2)).encode(x).mode()
    other = probe.context.roles["other"]
    assert torch.equal(other.model.encode(x).mode(), expected)
    assert "conditional" not in other.provides
    assert set(other.images("test").y.tolist()) == {2}
    images = other.images("test").x / 255
    assert torch.equal(other.codes("test"), other.model.encode(images).mode())


def test_a_conditional_model_is_refused_as_the_role_of_a_training(probe, run, tmp_path):
    class Second:
        @hookimpl
        def latentforge_models(self):
            yield ModelSpec(
                name="second",
                summary="s",
                build=lambda config, data, roles: torch.nn.Linear(1, 1),
                provides={"decode"},
                default_loss="reconstruction",
                roles={"first": {"encode", "decode"}},
            )

        @hookimpl
        def latentforge_losses(self):
            yield LossSpec(name="none", summary="s", build=lambda config, data: torch.nn.Module())

    forge = Forge([Second()])
    with pytest.raises(UsageError, match="role 'first': model 'cvae' is conditional"):
        forge.train("second", loss="none", data="digits", roles={"first": run}, run=tmp_path / "a")
    with pytest.raises(UsageError, match="needs a run for role first") as error:
        forge.train("second", loss="none", data="digits", run=tmp_path / "a")
    models = error.value.hint.partition("where RUN is a run of ")[2]
    assert "beta-vae, conv-vae" in models
    assert "cvae" not in models


def test_a_split_without_images_of_the_class_is_refused(forge, run, tmp_path):
    batch = digits(forge)
    data = (batch.x[batch.y != 3], batch.y[batch.y != 3])
    with pytest.raises(UsageError, match="'test' has no images of class 3"):
        forge.explore("probe", run, data=data, condition=3, out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (10, "must be the number of a class, from 0 to 9; got 10"),
        (-1, "from 0 to 9; got -1"),
        (True, "got True"),
        ("3", "'3' is 3"),
        (2.0, "got 2.0"),
    ],
)
def test_unknown_classes_are_refused(forge, run, tmp_path, condition, message):
    with pytest.raises(ConfigError, match="an error") as error:
        forge.explore("probe", run, condition=condition, out=tmp_path / "out", quiet=True)
    assert message in error.value.details[0]
    assert not (tmp_path / "out").exists()


def test_requests_are_refused_before_torch_is_imported(run, vae):
    """Each request is one that run.json shows to be wrong."""
    code = f"""
import sys
from latentforge import Forge
from latentforge.errors import LatentForgeError

forge, cvae, vae = Forge(), {str(run.path)!r}, {str(vae.path)!r}
requests = [
    lambda: forge.explore("traverse", cvae),
    lambda: forge.explore("traverse", cvae, condition=10),
    lambda: forge.explore("traverse", vae, condition=1),
    lambda: forge.explore("traverse", vae, roles={{"other": cvae}}),
    lambda: forge.decode(cvae, [[0.0]], "out"),
    lambda: forge.decode(cvae, [[0.0]], "out", condition=10),
    lambda: forge.decode(vae, [[0.0]], "out", condition=1),
    lambda: forge.explore("interpolate", cvae, condition=3, classes=[3, 8]),
]
for request in requests:
    try:
        request()
    except LatentForgeError as error:
        print([error.message, *error.details, error.hint])
print("torch" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *messages, loaded = answer.stdout.splitlines()
    assert loaded == "False", answer.stderr
    expected = (
        "explorer 'traverse' needs a class, because model 'cvae' is conditional",
        "traverse.condition: must be the number of a class, from 0 to 9; got 10",
        "condition=1: model 'vae' is not conditional",
        "role 'other' needs a class, because model 'cvae' is conditional",
        "model 'cvae' is conditional and needs a class for the codes",
        "must be the number of a class, from 0 to 9; got 10",
        "model 'vae' is not conditional",
        "interpolate.classes is [3, 8], but ",
    )
    for message, text in zip(messages, expected, strict=True):
        assert text in message
    assert "condition=0" in messages[0]
    assert "condition=3 leaves only the images of class 3" in messages[-1]


def test_hints_of_the_command_line_are_followed_literally(cli, run):
    refused = cli("explore", "probe-is-unknown", str(run.path))
    assert refused.code == 2
    refused = cli("explore", "manifold", str(run.path), "--set", "size=3")
    assert "try: --set condition=0" in refused.err
    answer = cli("explore", "manifold", str(run.path), "--set", "size=3", "--set", "condition=0")
    assert answer.code == 0
    walk = ("explore", "interpolate", str(run.path), "--set", "condition=3")
    refused = cli(*walk, "--set", "classes=[3,8]")
    assert "try: leave out classes, which gives images of this class" in refused.err
    assert cli(*walk, "--out", "one").code == 0
    assert cli(*walk, "--out", "both", "--set", "classes=[3,3]").code == 0
    flag = cli("explore", "manifold", str(run.path), "--condition", "0")
    assert "--set condition=0" in flag.err


# ---------------------------------------------------------------- labels


def test_data_without_labels_is_refused(forge, run, tmp_path):
    x = digits(forge).x
    message = "model 'cvae' is conditional and needs labels"
    with pytest.raises(UsageError, match=message):
        forge.train("cvae", data=x, run=tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()
    for request in (
        lambda: forge.evaluate(run, data=x),
        lambda: forge.encode(run, tmp_path / "codes.npz", data=x),
        lambda: forge.explore("probe", run, data=x, condition=1, out=tmp_path / "out", quiet=True),
        lambda: forge.diagnose(run, data=x),
    ):
        with pytest.raises(UsageError, match=message):
            request()


# ---------------------------------------------------------------- encode and decode


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_encode_and_decode_use_the_labels_of_the_images(forge, run, tmp_path, suffix):
    codes = tmp_path / f"codes.{suffix}"
    forge.encode(run, codes)
    forge.decode(run, codes, tmp_path / "own")
    forge.decode(run, codes, tmp_path / "four", condition=4)
    batch, model = digits(forge), run.load_model()
    z = model.given(batch.y).encode(batch.x).mode()
    own, four = (arrays_in(tmp_path / name / "decoded.npz")["x"] for name in ("own", "four"))
    np.testing.assert_allclose(own, model.given(batch.y).decode(z), rtol=0, atol=1e-5)
    expected = model.given(torch.full_like(batch.y, 4)).decode(z)
    np.testing.assert_allclose(four, expected, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "four" / "decode.json").read_text())["condition"] == 4


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_labels_in_codes_of_another_run_are_matched_by_name(forge, run, tmp_path, suffix):
    images = forge.load_data("digits").split("test")
    names = tuple(map(str, range(10)))
    options = {"model": SMALL, "train": {**TRAIN, "epochs": 1}, "quiet": True}
    reversed_names = {"train": Arrays(images.x, 9 - images.y, names[::-1])}
    other = forge.train("cvae", data=reversed_names, run=tmp_path / "run", **options)
    codes = tmp_path / f"codes.{suffix}"
    forge.encode(run, codes)
    forge.decode(other, codes, tmp_path / "out")
    batch = digits(forge)
    z = run.load_model().given(batch.y).encode(batch.x).mode()
    expected = other.load_model().given(9 - batch.y).decode(z)
    np.testing.assert_allclose(
        arrays_in(tmp_path / "out" / "decoded.npz")["x"], expected, rtol=0, atol=1e-5
    )


def test_labels_of_classes_that_the_run_does_not_have_are_refused(forge, run, tmp_path):
    images = forge.load_data("digits").split("test")
    data = {"train": Arrays(images.x, images.y, [f"d{i}" for i in range(10)])}
    options = {"model": SMALL, "train": {**TRAIN, "epochs": 1}, "quiet": True}
    other = forge.train("cvae", data=data, run=tmp_path / "run", **options)
    forge.encode(run, tmp_path / "codes.npz")
    with pytest.raises(UsageError, match=r"codes.npz has examples of '0', '1', .* are 'd0', 'd1'"):
        forge.decode(other, tmp_path / "codes.npz", tmp_path / "out")


@pytest.mark.parametrize("y", [None, [0, 10], [0, -1], [0.0, 1.0], [0]])
def test_files_without_valid_labels_are_refused(cli, run, work, y):
    arrays = {"z": np.zeros((2, 4), np.float32)} | ({} if y is None else {"y": np.array(y)})
    np.savez(work / "codes.npz", **arrays)
    request = ("decode", str(run.path), "codes.npz", "--out", "out")
    refused = cli(*request)
    assert refused.code == 2
    assert "labels" in refused.err
    assert cli(*request, "--condition", "0").code == 0  # the hint


# ---------------------------------------------------------------- export


@pytest.mark.parametrize(("part", "first"), [("encoder", "x"), ("decoder", "z")])
def test_exported_parts_have_labels_as_second_input(forge, run, tmp_path, part, first):
    answer = forge.export(run, part, out=tmp_path / part)
    assert [tensor["name"] for tensor in answer["inputs"]] == [first, "y"]
    assert [tensor["dtype"] for tensor in answer["inputs"]] == ["float32", "int64"]
    session = onnxruntime.InferenceSession(answer["files"][0], providers=["CPUExecutionProvider"])
    model, batch = run.load_model(), digits(forge)
    for count in (1, 4):
        x, y = batch.x[:count], batch.y[:count]
        view = model.given(y)
        values = x if part == "encoder" else view.encode(x).mode()
        expected = view.encode(x).mode() if part == "encoder" else view.decode(values)
        [found, *_] = session.run(None, {first: values.numpy(), "y": y.numpy()})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("part", "first"), [("encoder", "x"), ("decoder", "z")])
def test_rows_of_an_exported_part_without_a_class_are_nan(forge, run, tmp_path, part, first):
    answer = forge.export(run, part, out=tmp_path / part)
    labels = answer["inputs"][1]
    assert labels["range"] == [0, 9]
    assert "NaN" in labels["outside"]
    session = onnxruntime.InferenceSession(answer["files"][0], providers=["CPUExecutionProvider"])
    x = digits(forge).x[:4]
    values = (
        x if part == "encoder" else run.load_model().given(digits(forge).y[:4]).encode(x).mode()
    ).numpy()
    valid = session.run(None, {first: values, "y": np.array([3, 0, 9, 1])})
    mixed = session.run(None, {first: values, "y": np.array([3, 10, 9, -1])})
    for one, other in zip(valid, mixed, strict=True):
        assert np.isnan(other[[1, 3]]).all()
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(other[[0, 2]], one[[0, 2]])


def test_a_class_is_no_option_of_an_export(cli, forge, run, vae):
    refused = cli("export", str(run.path), "--part", "decoder", "--set", "condition=3")
    assert refused.code == 2
    assert "have the class as the input y, int64 (batch,)" in refused.err
    assert "sampler" not in refused.err
    with pytest.raises(UsageError, match="model 'vae' is not conditional"):
        forge.export(vae, "decoder", sampler={"condition": 3})
