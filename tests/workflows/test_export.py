"""Exported files match the model, describe themselves, and are complete or absent."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from latentforge import Forge
from latentforge.errors import PluginError

from ..params import slow_except
from .conftest import ODD

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "ae": ("encoder", "decoder"),
    "vae": ("encoder", "decoder"),
    "conv-vae": ("encoder", "decoder"),
    "deconv-vae": ("encoder", "decoder"),
    "spatial": ("encoder", "decoder"),
    "mlp-classifier": ("classifier",),
    "cnn-classifier": ("classifier",),
}
CASES = slow_except(
    [("vae", "encoder")], [(model, part) for model, parts in MODELS.items() for part in parts]
)


@pytest.fixture(scope="session")
def exported(forge, run_of, tmp_path_factory):
    """Exports a part of a model's run once; returns the result. Read only."""

    @cache
    def call(model, part, **options):
        out = tmp_path_factory.mktemp("export") / "out"
        return forge.export(run_of(model), part, out=out, **options)

    return call


def session_of(answer) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(answer["files"][0], providers=["CPUExecutionProvider"])


def by_torch(model, part, given):
    """The outputs of a part, by name."""
    with torch.no_grad():
        if part == "classifier":
            return {"logits": model(given)}
        if part == "decoder":
            return {"x": model.decode(given)}
        posterior = model.encode(given)
        log_var = getattr(posterior, "log_var", None)
        return {"mean": posterior.mode()} | ({} if log_var is None else {"log_var": log_var})


@pytest.mark.parametrize(("model", "part"), CASES)
def test_onnxruntime_matches_torch_for_any_batch_size(forge, run_of, exported, model, part):
    answer = exported(model, part)
    session, network = session_of(answer), run_of(model).load_model()
    images = forge.load_data("digits").split("test")
    for batch in (1, 3, 7):
        given = images.batch_at(list(range(batch))).x
        if part == "decoder":
            given = 3 * torch.randn(batch, *network.latent.shape)
        expected = by_torch(network, part, given)
        names = [output.name for output in session.get_outputs()]
        assert names == list(expected)
        computed = session.run(names, {"z" if part == "decoder" else "x": given.numpy()})
        for name, values in zip(names, computed, strict=True):
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-5)
    assert answer["check"]["largest_difference"] <= 1e-5


def test_variational_encoder_exports_mean_and_log_variance(exported):
    answer = exported("vae", "encoder")
    assert [output["name"] for output in answer["outputs"]] == ["mean", "log_var"]


@pytest.mark.parametrize(("model", "part"), [("vae", "encoder"), ("ae", "decoder")])
def test_export_json_describes_the_file(run_of, exported, model, part):
    answer = exported(model, part)
    file, about = Path(answer["files"][0]), json.loads(Path(answer["files"][1]).read_text())
    session, run = session_of(answer), run_of(model)
    for ours, theirs in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert about[ours] == [
            {"name": node.name, "shape": node.shape, "dtype": "float32"} for node in theirs
        ]
        assert all(node.type == "tensor(float)" for node in theirs)
    graph = onnx.load(file)
    onnx.checker.check_model(graph, full_check=True)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", about["opset"])]
    assert about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert about["data"]["preprocessing"]["divide_by"] == 255
    assert about["weights"] == "as trained"
    assert (about["data"]["shape"], about["data"]["range"]) == ([1, 28, 28], [0.0, 1.0])
    assert about["data"]["classes"] == [str(digit) for digit in range(10)]
    assert about["latent"] == {"shape": [4], "prior": "normal" if model == "vae" else None}
    assert (about["config"], about["plugins"]) == (run.config, run.manifest["plugins"])
    assert (about["run"], about["checkpoint"]) == (str(run.path), "step-00000003")
    assert about["versions"]["torch"] == torch.__version__


def test_graph_contains_no_local_paths(exported):
    content = Path(exported("cnn-classifier", "classifier")["files"][0]).read_bytes()
    assert b"weight" in content
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


def test_safetensors_contains_all_weights_of_the_model(run_of, exported):
    answer = exported("conv-vae", None, format="safetensors")
    weights = run_of("conv-vae").load_model().state_dict()
    read = load_file(answer["files"][0])
    assert set(read) == set(weights)
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    about = json.loads(Path(answer["files"][1]).read_text())
    assert "whole model" in about["holds"]
    assert about["tensors"] == {name: list(weight.shape) for name, weight in weights.items()}


def test_tied_and_strided_weights_are_exported(run_of, exported):
    read = load_file(exported("tied", None, format="safetensors")["files"][0])
    weights = run_of("tied").load_model().state_dict()
    assert set(read) == {"down.weight", "down.bias", "up.weight", "up.bias"}
    assert all(torch.equal(read[name], weights[name]) for name in weights)


# ---------------------------------------------------------------- folders and output


def test_second_export_overwrites_nothing(cli, runs):
    outs = [cli("export", "runs/ae", "--part", "decoder", "--json").json["out"] for _ in range(2)]
    assert outs == ["runs/ae/export/decoder-onnx", "runs/ae/export/decoder-onnx-2"]
    before = Path(outs[0], "model.onnx").stat().st_mtime_ns
    answer = cli("export", "runs/ae", "--part", "decoder", "--out", outs[0])
    assert answer.code == 2
    assert f"{outs[0]} is not empty and will not be overwritten" in answer.err
    assert Path(outs[0], "model.onnx").stat().st_mtime_ns == before


@pytest.mark.slow
def test_export_prints_names_shapes_and_check_without_exporter_logs(process, runs):
    answer = process("export", "runs/cnn", "--part", "classifier", "--out", "out")
    assert (answer.code, answer.err) == (0, "")
    *facts, check = answer.out.splitlines()
    assert facts == [
        "out/model.onnx",
        "out/export.json",
        "input x: float32 (batch, 1, 28, 28)",
        "output logits: float32 (batch, 10)",
    ]
    assert check.startswith("checked with onnxruntime 1.")
    assert float(check.split()[-1]) < 1e-5


def test_missing_onnxruntime_is_reported_as_not_checked(cli, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    answer = cli("export", "runs/ae", "--part", "encoder")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "not checked: onnxruntime is not installed"


def test_export_accepts_the_best_checkpoint(cli, runs):
    said = cli("export", "runs/ae", "--part", "encoder", "--checkpoint", "best", "--json").json
    assert said["checkpoint"] == Path("runs/ae/checkpoints/BEST").read_text().split()[0]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_extra_is_named(cli, runs, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    answer = cli("export", "runs/ae", "--part", "encoder")
    assert answer.code == 4
    assert f"ONNX needs {package} (not installed)" in answer.err
    assert "pip install 'latentforge[export]'" in answer.err


@pytest.mark.slow
def test_untraceable_model_gives_a_short_error(process, odd):
    run = odd("branching")
    answer = process("-p", ODD, "export", run, "--part", "encoder")
    assert (answer.code, answer.out) == (3, "")
    assert "exporting the encoder of model 'branching' failed" in answer.err
    assert "data-dependent" in answer.err
    assert "model 'branching' of plugin odd" in answer.err
    assert len(answer.err.splitlines()) == 3
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("model", "reason", "hint"),
    [("fixed", "Constraints violated", "x.shape[0] instead"), ("rare", "ndtri", "ONNX does not")],
)
def test_the_hint_says_what_can_be_exported(odd, model, reason, hint):
    with pytest.raises(PluginError, match=reason) as caught:
        Forge(plugins=[ODD]).export(odd(model), "encoder")
    assert hint in caught.value.hint


def test_graph_that_does_not_match_the_model_is_refused(odd):
    """The output of this decoder depends on its call count, which tracing makes a constant."""
    run = odd("counting")
    with pytest.raises(Exception, match=r"output 'x' of onnxruntime and torch differs by 0\.\d+"):
        Forge(plugins=[ODD]).export(run, "decoder")
    assert not (run / "export").exists()
