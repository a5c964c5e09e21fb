"""Fixtures: two small trained runs, and the command line in this process or in a new one."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from latentforge.testing import Answer

# Small networks on a busy machine: waiting threads make them up to 30 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that runs the tests in the background lets them ignore SIGINT; a terminal does not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


pytest_plugins = ["latentforge.testing"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with tests/slow: these files are few and long, and the others then fill the gaps."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/slow/"))


def pytest_collection_finish() -> None:
    """Collect garbage rarely and without the imported modules: with them it takes half a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Start each test with the same random numbers, whatever ran before it in this process. Module
    and session fixtures run earlier and seed themselves."""
    import numpy as np  # both after OMP_NUM_THREADS is set
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Let fsync return at once: only a power failure would show the difference. New processes
    wait for the disk as usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # also raises EBADF
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of two runs on digits, `ae` and `cnn`: read-only, shared by all tests."""
    from latentforge import Forge

    folder = tmp_path_factory.mktemp("trained")
    forge = Forge()
    forge.train(
        "ae",
        data="digits",
        model={"hidden": [32], "latent_dim": 4},
        train={"epochs": 3, "batch_size": 128, "lr": 3e-3},
        run=folder / "ae",
        quiet=True,
    )
    forge.train(
        "cnn-classifier",
        data="digits",
        train={"epochs": 1, "batch_size": 256, "lr": 1e-3},
        run=folder / "cnn",
        quiet=True,
    )
    before = modification_times(folder)
    yield folder
    assert modification_times(folder) == before, "a test changed the runs that all tests share"


def modification_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def work(latentforge_work: Path) -> Path:
    """An empty working folder, without the user's settings."""
    return latentforge_work


@pytest.fixture
def runs(work: Path, trained: Path) -> Path:
    """`runs/ae` and `runs/cnn` in the working folder, which a test may change."""
    shutil.copytree(trained, work / "runs")
    return work / "runs"


@pytest.fixture
def cli(latentforge_cli: Callable[..., Answer]) -> Callable[..., Answer]:
    """Runs a command line in this process, in the working folder."""
    return latentforge_cli


# SIGINT may be ignored if the tests run in the background; a terminal does not ignore it.
LAUNCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
from latentforge.__main__ import main
main()
"""


@pytest.fixture
def start(work: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a command line in a new process; `before` is code that it runs first."""

    def call(
        *arguments: object, before: str = "", env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        code = ["-c", LAUNCH.format(before=before)] if before else ["-m", "latentforge"]
        return subprocess.Popen(
            [sys.executable, *code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=work,
            env={**os.environ, **(env or {})},
        )

    return call


@pytest.fixture
def process(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Answer]:
    """Runs a command line in a new process and waits for its end."""

    from latentforge.testing import Answer

    def call(*arguments: object, **options: Any) -> Answer:
        started = start(*arguments, **options)
        out, err = started.communicate(timeout=120)
        return Answer(started.returncode, out, err)

    return call


LINEAR_CLASSIFIER = """

def build(config, data):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(data.size, len(data.classes)))


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="{name}",
        summary="A linear classifier",
        build=build,
        provides={{"classify"}},
        default_loss="cross-entropy",
    )
"""


@pytest.fixture
def linear_classifier() -> Callable[[str], str]:
    """The code of a model, for a plugin file that imports hookimpl and ModelSpec."""
    return lambda name: LINEAR_CLASSIFIER.format(name=name)
