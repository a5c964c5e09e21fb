"""Small trained runs, one a model, made when a test first asks for it."""

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
SLOW = ("conv-vae", "deconv-vae")  # so a hundred images must do


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge(plugins=[ODD])


@pytest.fixture(scope="session")
def run_of(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A run of a model on digits, read only, by the model's name."""
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
    """Within it a file may grow to 3,000 bytes, and then the disk refuses.

    It holds for the process, so also for a log that pytest itself writes: keep it to the call.
    """
    resource = pytest.importorskip("resource", reason="limits the size of files")

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
