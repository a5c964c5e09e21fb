"""Small trained runs, one per model, created on first use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from latentforge import Forge, Run

ODD = str(Path(__file__).with_name("odd.py"))
OPTIONS = {
    "ae": {"hidden": [32], "latent_dim": 4},
    "vae": {"encoder": [32], "decoder": [32], "latent_dim": 4},
}
SLOW = ("conv-vae", "deconv-vae")  # trained on 100 images only


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge(plugins=[ODD])


@pytest.fixture(scope="session")
def run_of(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Returns a run of a model on digits by the model's name; read only."""
    folder = tmp_path_factory.mktemp("deploy")

    @cache
    def trained(model: str) -> Run:
        some = forge.load_data("digits").split("train").batch_at(range(100))
        return forge.train(
            model,
            data=(some.x, some.y) if model in SLOW else "digits",
            model=OPTIONS.get(model),
            train={"epochs": 1, "batch_size": 512, "lr": 1e-2},
            run=folder / model,
            quiet=True,
        )

    return trained


@pytest.fixture
def odd(work: Path, run_of: Callable[[str], Run]) -> Callable[[str], Path]:
    """Copies the run of a model of odd.py into the working folder."""

    def copied(model: str) -> Path:
        return Path(shutil.copytree(run_of(model).path, work / model))

    return copied
