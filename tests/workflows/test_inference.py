"""Options of inference: where they are given, what they change, where they are recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from annotated_types import Ge, Le

from latentforge import ExplorerSpec, Forge, LatentSpec, ModelSpec, PresetSpec
from latentforge.errors import ConfigError, PluginError
from latentforge.findings import Findings

from ..plugin import plugin_of

TRAIN = {"epochs": 1, "batch_size": 256, "lr": 1e-2}


@dataclass(frozen=True)
class Guidance:
    """`scale` is a factor, `kind` its place."""

    scale: float = 1.0
    kind: Literal["inside", "outside"] = "inside"


@dataclass(frozen=True)
class SamplerConfig:
    """`steps` is the number of corrections, `guidance` their weight."""

    steps: Annotated[int, Ge(1), Le(50)] = 3
    guidance: Guidance = Guidance()


@dataclass(frozen=True)
class Config:
    """`latent_dim` is the code's length."""

    latent_dim: int = 4


def build(config, data):
    from latentforge.latent import Point

    class Refine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.latent = LatentSpec(shape=(config.latent_dim,))
            self.encoder = torch.nn.Linear(data.size, config.latent_dim)
            self.first = torch.nn.Linear(config.latent_dim, data.size)
            self.correction = torch.nn.Linear(data.size, data.size)

        def encode(self, x):
            return Point(self.encoder(x.flatten(1)))

        def decode_logits(self, z):
            logits, guidance = self.first(z), self.sampler.guidance
            for _ in range(3 if self.training else self.sampler.steps):
                scale = 1.0 if self.training else guidance.scale
                logits = logits + scale * self.correction(logits.tanh())
            return logits.unflatten(1, data.shape)

        def decode(self, z):
            return self.decode_logits(z).sigmoid()

    return Refine()


SPEC = ModelSpec(
    name="refine",
    summary="s",
    build=build,
    config=Config,
    inference=SamplerConfig,
    provides={"encode", "decode", "decode_logits"},
    default_loss="reconstruction",
)


@pytest.fixture(scope="module")
def forge():
    return Forge([plugin_of(SPEC)])


@pytest.fixture(scope="module")
def run(forge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inference") / "refine"
    return forge.train("refine", data="digits", train=TRAIN, run=folder, quiet=True)


def read(folder, name):
    return json.loads((folder / name).read_text("utf-8"))


def sampler(steps, scale=1.0, kind="inside"):
    return {"steps": steps, "guidance": {"scale": scale, "kind": kind}}


# ---------------------------------------------------------------- training


def test_a_run_stores_its_inference_options_and_uses_them(forge, run, work):
    options = {"steps": 5, "guidance": {"scale": 0.5}}
    other = forge.train(
        "refine", data="digits", train=TRAIN, sampler=options, run="other", quiet=True
    )
    assert run.config["sampler"] == sampler(3)
    assert other.config["sampler"] == read(other.path, "run.json")["config"]["sampler"]
    assert other.config["sampler"] == sampler(5, 0.5)
    reopened = forge.open_run("other").load_model()
    assert reopened.sampler == SamplerConfig(5, Guidance(0.5))
    one, same = (r.load_model().state_dict() for r in (run, other))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert run.metrics["test"]["recon"] != other.metrics["test"]["recon"]


def test_toml_and_assignments_set_the_options(cli, work, monkeypatch):
    (work / "page.py").write_text(MODULE)
    (work / "own.toml").write_text("[sampler]\nsteps = 7\n\n[model]\nname = 'tiny'\n")
    answer = cli("-p", "./page.py", "config", "check", "own.toml", "--json")
    assert answer.json["config"]["sampler"] == {"steps": 7}
    train = ("train", "--config", "own.toml", "--epochs", "1", "--json", "--run")
    sets = ("--set", "sampler.steps=9", "--set", "train.batch_size=512")
    answer = cli("-p", "./page.py", *train, "one", *sets)
    assert answer.code == 0, answer.err
    assert read(work / "one", "run.json")["config"]["sampler"] == {"steps": 9}
    answer = cli("-p", "./page.py", "evaluate", "one", "--set", "sampler.steps=2")
    assert "inference options: steps=2" in answer.out
    for extra in ([], ["--set", "sampler.steps=2"]):
        answer = cli("-p", "./page.py", "explore", "reconstruct", "one", "--set", "n=3", *extra)
        assert answer.out.count("inference options") == 1
    answer = cli("-p", "./page.py", "show", "tiny", "--json")
    [option] = answer.json["inference"]
    assert (option["name"], option["default"]) == ("steps", 3)
    text = cli("-p", "./page.py", "show", "tiny").out
    assert "inference options (`steps` is a number.)" in text
    assert "sampler.steps  int > 0  3" in text


def test_another_model_drops_the_inference_options_of_a_config(forge, work):
    (work / "own.toml").write_text("[model]\nname = 'refine'\n\n[sampler]\nsteps = 7\n")
    run = forge.train(
        config="own.toml", model={"name": "ae"}, data="digits", train=TRAIN, quiet=True
    )
    assert "sampler" not in run.config


def test_a_resumed_run_keeps_its_inference_options(forge, run, cli, work):
    (work / "page.py").write_text(MODULE)
    train = ("train", "tiny", "--epochs", "1", "--set", "train.batch_size=512", "--run", "one")
    assert cli("-p", "./page.py", *train).code == 0
    answer = cli(
        "-p", "./page.py", *("train", "--resume", "one", "--epochs", "2"), "--set=sampler.steps=4"
    )
    assert answer.code == 2
    assert "sampler.steps: 3 in the run, not 4" in answer.err
    assert "latentforge evaluate" in answer.err
    assert cli("-p", "./page.py", "train", "--resume", "one", "--epochs", "2").code == 0
    assert read(work / "one", "run.json")["config"]["sampler"] == {"steps": 3}


def test_a_sweep_does_not_vary_inference_options(forge, work):
    with pytest.raises(ConfigError, match="grid cannot be used") as caught:
        forge.sweep("refine", grid={"sampler.steps": [1, 2]}, quiet=True)
    assert "does not change the training" in caught.value.details[0]
    with pytest.raises(ConfigError, match="space cannot be used"):
        forge.sweep("refine", search=2, space={"sampler.steps": "int(1, 3)"}, quiet=True)


def test_a_sweep_may_start_from_other_inference_options(forge, work):
    grid, options = {"train.seed": [0, 1]}, {"steps": 2}
    sweep = forge.sweep(
        "refine", data="digits", train=TRAIN, sampler=options, grid=grid, out="sweep", quiet=True
    )
    assert [member.config["sampler"] for member in sweep.runs()] == [sampler(2)] * 2
    assert sweep.runs()[0].load_model().sampler.steps == 2


# ---------------------------------------------------------------- use


def expected_recon(run, steps, scale=1.0):
    """The reconstruction error of the test images, computed without the core."""
    images = Forge().load_data("digits").split("test")
    x = images.batch_at(range(len(images))).x
    model = run.load_model()
    model.sampler = SamplerConfig(steps, Guidance(scale))
    logits = model.decode_logits(model.encode(x).mode())
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return float(bce.sum() / len(x))


def test_evaluate_uses_and_records_other_options(forge, run):
    before = {p: p.read_bytes() for p in run.path.rglob("*.safetensors")}
    for given, steps in (({}, 3), ({"sampler": {"steps": 1}}, 1)):
        found = forge.evaluate(run, measures=["recon"], **given)
        assert found["metrics"]["recon"] == pytest.approx(expected_recon(run, steps), rel=1e-4)
        assert found["sampler"] == sampler(steps)
        line = (run.path / "evaluations.jsonl").read_text("utf-8").splitlines()[-1]
        assert json.loads(line)["sampler"] == sampler(steps)
    texts = ["sampler.guidance.scale=0.5", "sampler.steps=2"]
    nested = {"sampler": {"guidance": {"scale": 0.5}, "steps": 2}}
    for options in ({"options": texts}, {"options": nested}, {"sampler": texts}):
        found = forge.evaluate(run, measures=["recon"], **options)
        assert found["sampler"] == sampler(2, 0.5)
        assert found["metrics"]["recon"] == pytest.approx(expected_recon(run, 2, 0.5), rel=1e-4)
    assert {p: p.read_bytes() for p in run.path.rglob("*.safetensors")} == before
    assert run.load_model().sampler.steps == 3


def test_a_value_that_no_request_names_is_that_of_the_run(forge, work):
    run = forge.train(
        "refine", data="digits", train=TRAIN, sampler={"guidance": {"scale": 0.5}}, quiet=True
    )
    assert run.evaluate(sampler={"steps": 4}) != run.metrics["test"]
    found = forge.evaluate(run, sampler={"steps": 4, "guidance": {"kind": "outside"}})
    assert found["sampler"] == sampler(4, 0.5, "outside")


def test_explore_uses_and_records_other_options(forge, run, work):
    options = {"sampler": {"steps": 8}, "n": 3, "out": "eight"}
    answer = forge.explore("reconstruct", run, quiet=True, **options)
    assert read(work / "eight", "findings.json")["sampler"] == sampler(8)
    assert answer["sampler"] == sampler(8)
    assert answer["notes"][0].startswith("inference options: steps=8, guidance.scale=1.0")
    own = forge.explore("reconstruct", run, n=3, out="own", quiet=True)
    assert own["sampler"] == read(work / "own", "findings.json")["sampler"] == sampler(3)
    assert not any("inference" in note for note in own["notes"])
    drawn = [read(work / out, "findings.json").get("other_sampler") for out in ("eight", "own")]
    assert drawn == [{"steps": 8}, None]
    forge.explore("latent-map", run, out="map", sampler={"steps": 8}, quiet=True)
    [page] = (work / "map").glob("*.html")  # its footer is that of the pictures
    assert "sampler.steps=8" in page.read_text("utf-8")
    texts = ["sampler.steps=8", "n=3"]
    again = forge.explore("reconstruct", run, assignments=texts, out="again", quiet=True)
    assert again["metrics"] == answer["metrics"] != own["metrics"]


def test_a_preset_of_an_explorer_may_have_the_section(run, tmp_path):
    path = tmp_path / "quick.toml"
    path.write_text("[explore]\nname = 'reconstruct'\nn = 3\n\n[sampler]\nsteps = 2\n")
    preset = PresetSpec(name="quick", summary="s", path=path)
    forge = Forge([plugin_of(SPEC, preset)])
    options = {"preset": "quick", "quiet": True}
    found = forge.explore("reconstruct", run, out=tmp_path / "one", **options)
    assert found["sampler"] == sampler(2)
    found = forge.explore("reconstruct", run, out=tmp_path / "two", sampler={"steps": 6}, **options)
    assert found["sampler"] == sampler(6)


def test_encode_decode_and_export_use_and_record_other_options(forge, run, work):
    forge.encode(run, "codes.npz", options=["sampler.steps=2"])
    with np.load("codes.npz") as codes:
        z = torch.from_numpy(codes["z"][:5])
        assert json.loads(str(codes["latentforge"]))["sampler"] == sampler(2)
    model = run.load_model()
    for steps in (2, 6):
        model.sampler = SamplerConfig(steps)
        forge.decode(run, z, f"decoded-{steps}", sampler={"steps": steps})
        with np.load(f"decoded-{steps}/decoded.npz") as decoded:
            assert np.allclose(decoded["x"], model.decode(z).numpy(), atol=1e-6)
        assert read(work / f"decoded-{steps}", "decode.json")["sampler"] == sampler(steps)
        answer = forge.export(run, "decoder", out=f"onnx-{steps}", sampler={"steps": steps})
        assert read(work / f"onnx-{steps}", "export.json")["sampler"] == sampler(steps)
        session = onnxruntime.InferenceSession(answer["files"][0])
        assert np.allclose(session.run(None, {"z": z.numpy()})[0], model.decode(z), atol=1e-5)


def test_the_report_shows_them_and_its_command_repeats_them(forge, work):
    run = forge.train("refine", data="digits", train=TRAIN, run="run", quiet=True)
    forge.explore("reconstruct", run, n=3, sampler={"steps": 8}, quiet=True)
    forge.evaluate(run, measures=["recon"], sampler={"steps": 8})
    forge.evaluate(run, measures=["recon"])
    page = (work / forge.report(run)["report"]).read_text("utf-8")
    assert "--set sampler.steps=8" in page
    assert "--set sampler.guidance" not in page  # it is that of the run
    assert page.count("; inference options steps=") == 2


def test_a_run_in_a_role_uses_its_own_options(run, work):
    def compare(context, config):
        steps = [m.sampler.steps for m in (context.model, context.roles["other"].model)]
        return Findings([], {"own": steps[0], "other": steps[1]}, "the numbers of steps")

    roles = {"other": {"decode"}}
    explorer = ExplorerSpec(name="compare", summary="s", explore=compare, roles=roles)
    forge = Forge([plugin_of(SPEC, explorer)])
    options = {"roles": {"other": run}, "sampler": {"steps": 8}, "quiet": True}
    assert forge.explore("compare", run, **options)["metrics"] == {"own": 8, "other": 3}


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 51}, "sampler.steps: must be less than or equal to 50, got 51"),
        ({"steps": True}, "sampler.steps: must be a valid integer, got true"),
        ({"order": 2}, "sampler.order: no such option of model 'refine'; known options: steps, gu"),
        ({"stepz": 2}, "sampler.stepz: no such option of model 'refine'; did you mean 'steps'?"),
        ({"guidance": {"scale": "a"}}, "sampler.guidance.scale: must be a valid number"),
    ],
)
def test_wrong_options_are_refused_by_every_operation(forge, run, work, options, text):
    calls = [
        lambda: forge.evaluate(run, sampler=options),
        lambda: forge.explore("reconstruct", run, sampler=options, quiet=True),
        lambda: forge.encode(run, "codes.npz", sampler=options),
        lambda: forge.decode(run, np.zeros((1, 4)), "decoded", sampler=options),
        lambda: forge.export(run, "decoder", sampler=options),
        lambda: forge.train("refine", data="digits", sampler=options, quiet=True),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        [line] = caught.value.details
        assert line.replace(" (from sampler=)", "").startswith(text)
    assert not [*work.iterdir()]


def test_a_model_without_inference_options_refuses_them(runs):
    forge = Forge()
    for call in (
        lambda: forge.evaluate(runs / "ae", sampler={"steps": 5}),
        lambda: forge.explore("reconstruct", runs / "ae", sampler={"steps": 5}, quiet=True),
        lambda: forge.encode(runs / "ae", "codes.npz", options=["sampler.steps=5"]),
        lambda: forge.train("ae", sampler={"steps": 5}, quiet=True),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        [line] = caught.value.details
        assert "model 'ae' has no inference options" in line
    assert "sampler" not in forge.evaluate(runs / "ae", measures=["loss"])


def test_an_inference_option_in_the_section_of_the_model_is_refused(forge):
    with pytest.raises(ConfigError) as caught:
        forge.train("refine", model={"steps": 5}, quiet=True)
    [line] = caught.value.details
    assert line.endswith("is an inference option of model 'refine': write sampler.steps")


def test_refusals_do_not_load_torch(run, work):
    (work / "page.py").write_text(MODULE)
    code = (
        "import sys; from latentforge import Forge; from latentforge.errors import ConfigError\n"
        "forge = Forge(['./page.py'])\n"
        "try:\n    forge.train('tiny', sampler={'steps': 0}, quiet=True)\n"
        "except ConfigError as error:\n    print(error.details[0])\n"
        "try:\n    Forge().evaluate(sys.argv[1], sampler={'steps': 0})\n"
        "except ConfigError as error:\n    print(error.details[0])\n"
        "assert 'torch' not in sys.modules\n"
    )
    model = Forge().train("ae", data="digits", train=TRAIN, run=work / "ae", quiet=True)
    process = subprocess.run(
        [sys.executable, "-c", code, str(model.path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    first, second = process.stdout.splitlines()
    assert first == "sampler.steps (from sampler=): must be greater than 0, got 0"
    assert second == "sampler.steps: model 'ae' has no inference options"


def test_a_wrong_class_of_inference_options_is_a_fault_of_the_plugin():
    @dataclass
    class Loose:
        steps: int = 3

    @dataclass(frozen=True)
    class Named:
        name: str = "a"
        steps: int = 3

    for config, text in (
        (Loose, "model 'refine': inference Loose must be frozen"),
        (Named, "inference Named.name: LatentForge has an option of that name"),
        (3, "inference must be a dataclass"),
    ):
        with pytest.raises(PluginError, match=text):
            Forge([plugin_of(replace(SPEC, inference=config))])


def test_wrong_defaults_are_a_fault_of_the_plugin(work):
    @dataclass(frozen=True)
    class Wrong:
        steps: Annotated[int, Ge(1)] = 0

    forge = Forge([plugin_of(replace(SPEC, inference=Wrong))])
    with pytest.raises(PluginError, match="wrong defaults") as caught:
        forge.train("refine", data="digits", quiet=True)
    assert "steps" in caught.value.details[0]


MODULE = '''
from dataclasses import dataclass
from latentforge import LatentSpec, ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class Config:
    """No options."""


@dataclass(frozen=True)
class Sampler:
    """`steps` is a number."""

    steps: Size = 3


def build(config, data):
    import torch
    from latentforge.latent import Point

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.latent = LatentSpec(shape=(2,))
            self.encoder = torch.nn.Linear(data.size, 2)
            self.decoder = torch.nn.Linear(2, data.size)

        def encode(self, x):
            return Point(self.encoder(x.flatten(1)))

        def decode_logits(self, z):
            steps = 3 if self.training else self.sampler.steps
            return self.decoder(z).unflatten(1, data.shape) * steps

        def decode(self, z):
            return self.decode_logits(z).sigmoid()

    return Tiny()


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="tiny", summary="s", build=build, config=Config, inference=Sampler,
        provides={"encode", "decode", "decode_logits"}, default_loss="reconstruction",
    )
'''
