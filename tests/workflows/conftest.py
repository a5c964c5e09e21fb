"""Small trained runs, one per model, created on first use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """A context in which no file may grow beyond 3,000 bytes, as on a full disk.

    The limit is per process and affects pytest's own log too: wrap only the tested call.
    """
    resource = pytest.importorskip("resource", reason="needs file size limits")

    @contextmanager
    def limited() -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def odd(work: Path, run_of: Callable[[str], Run]) -> Callable[[str], Path]:
    """Copies the run of a model of odd.py into the working folder."""

    def copied(model: str) -> Path:
        return Path(shutil.copytree(run_of(model).path, work / model))

    return copied
