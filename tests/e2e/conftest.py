"""A virtual environment with the wheel of LatentForge and pip, shared by the tests of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build_wheel(source: Path, out: Path) -> Path:
    before = set(out.glob("*.whl"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    command.append(str(source))
    done = subprocess.run(command, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = set(out.glob("*.whl")) - before
    return wheel


@dataclass
class Venv:
    """A virtual environment. It sees the dependencies of LatentForge in the environment of the
    tests, and so does pip, but not LatentForge itself."""

    folder: Path
    work: Path

    def run(self, *command: object, code: int | None = 0) -> str:
        """Runs a command with the environment's programs first; returns its merged output."""
        programs = str(self.folder / "bin")
        environment = {**os.environ, "PATH": os.pathsep.join([programs, os.environ["PATH"]])}
        for name in ("PYTHONPATH", "LATENTFORGE_PLUGINS"):
            environment.pop(name, None)
        # pip reads "false" as --no-build-isolation; hatchling is already installed
        environment["PIP_NO_BUILD_ISOLATION"] = "false"
        environment["PIP_CHECK_BUILD_DEPENDENCIES"] = "true"
        done = subprocess.run(
            [*map(str, command)],
            cwd=self.work,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert code is None or done.returncode == code, f"{command}: {done.stdout}"
        return done.stdout


@pytest.fixture(scope="session")
def latentforge_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def venv_folder(tmp_path_factory: pytest.TempPathFactory, latentforge_wheel: Path) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    made = Venv(folder / "venv", folder)
    subprocess.run([sys.executable, "-m", "venv", made.folder], check=True)
    [site] = made.folder.glob("lib/python*/site-packages")
    # .pth files of that folder, such as the editable install of LatentForge, are not read
    site.joinpath("rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    made.run("pip", "install", "--quiet", "--no-deps", "--force-reinstall", latentforge_wheel)
    # puts its script into bin/, as `pip install -e '.[test]'` would
    made.run("pip", "install", "--quiet", "--no-deps", "--ignore-installed", "pytest")
    return made.folder


@pytest.fixture
def venv(tmp_path: Path, venv_folder: Path) -> Iterator[Venv]:
    """The shared environment with a new working folder. The packages that a test has installed are
    uninstalled after it."""

    def packages() -> set[str]:
        infos = venv_folder.glob("lib/python*/site-packages/*.dist-info")
        return {info.name.partition("-")[0] for info in infos}

    work = tmp_path / "work"
    work.mkdir()
    before, made = packages(), Venv(venv_folder, work)
    yield made
    if new := packages() - before:
        made.work = work
        made.run("pip", "uninstall", "--quiet", "--yes", *new)


@pytest.fixture
def wheel_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Builds a wheel from a package folder."""

    def build(source: Path) -> Path:
        out = tmp_path / "wheels"
        out.mkdir(exist_ok=True)
        return build_wheel(source, out)

    return build
