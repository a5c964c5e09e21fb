"""Each model trains on every data shape that it supports and refuses the others."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentforge import Forge

from ..params import slow_except

MODELS = [entry.name for entry in Forge().registry.entries("models")]
IMAGES = 40
IMAGES_ONLY = {"conv-vae", "deconv-vae", "vq-vae", "fsq", "cnn-classifier"}  # these refuse vectors
SIGNALS_ONLY = {"signal-vae"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of colour images in two classes, and npz files with labels."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    labels = np.arange(IMAGES) % 2
    for i, label in enumerate(labels):
        place = folder / "colour" / ("bright" if label else "dark")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 100, (32, 32, 3)) + 150 * label
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    for name, shape in {
        "grey": (28, 20),
        "large": (64, 64),
        "vectors": (30,),
        "signals": (2, 30),
    }.items():
        x = random.random((IMAGES, *shape), dtype=np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=labels)
    return folder


def arguments(own: Path, data: str) -> list[str]:
    if data == "colour":
        return ["--data", "folder", "--set", f"data.root={own / 'colour'}"]
    layout = ["--set", "data.layout=NCL"] if data == "signals" else []
    return ["--data", "arrays", "--set", f"data.path={own / f'{data}.npz'}", *layout]


def accepts(model: str, data: str) -> bool:
    if data in ("vectors", "signals"):
        return model not in IMAGES_ONLY and (data == "signals" or model not in SIGNALS_ONLY)
    if model in SIGNALS_ONLY:
        return False
    return not (model == "deconv-vae" and data == "grey")  # 20 pixels wide; the minimum is 28


SHAPES = {"colour": [3, 32, 32], "grey": [1, 28, 20], "large": [1, 64, 64], "vectors": [30]}
SHAPES["signals"] = [2, 30]

LONG = {("conv-vae", "colour"), ("deconv-vae", "colour"), *((model, "large") for model in MODELS)}
CASES = list(product(MODELS, SHAPES))


def test_all_built_in_models_are_covered():
    assert set(MODELS) >= {"ae", "vae", "beta-vae", "mlp-classifier", *IMAGES_ONLY, *SIGNALS_ONLY}


@pytest.mark.parametrize(("model", "data"), slow_except(set(CASES) - LONG, CASES))
def test_trains_two_epochs_or_refuses_the_shape(cli, work, own, model, data):
    line = ["train", model, *arguments(own, data), "--epochs", 2, "--batch-size", 16, "--quiet"]
    answer = cli(*line, "--run", "run", "--json")
    if accepts(model, data):
        assert answer.code == 0, answer.err
        assert answer.json["epochs"] == 2
        assert np.isfinite(answer.json["metrics"]["test"]["loss"])
        assert Forge().open_run(work / "run").manifest["data"]["shape"] == SHAPES[data]
    else:
        assert answer.code == 2
        assert "size" in answer.err
        instead = re.search("(?:try:|or) the model ([a-z-]+), which supports", answer.err)
        assert instead
        assert accepts(instead[1], data)
        assert not (work / "run").exists()
