"""Pytest fixtures and conformance checks for the tests of a plugin, explained in docs/plugins.md.
Requires pytest. Enable the fixtures with `pytest_plugins = ["latentforge.testing"]`.

    @pytest.mark.parametrize("check", check_model("swirl"), ids=str)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from latentforge.conformance import Check as _Check
from latentforge.conformance import CheckFailed, CheckSkipped, NotChecked, checks_of

if TYPE_CHECKING:
    from latentforge.forge import Forge
    from latentforge.workflows.run import Run

__all__ = [
    "Answer",
    "Check",
    "CheckFailed",
    "check_callback",
    "check_dataset",
    "check_explorer",
    "check_loss",
    "check_measure",
    "check_model",
    "check_objective",
    "tiny_images",
]


class Check(_Check):
    """A conformance check for pytest. A check that does not apply to a component is skipped, and so
    is one that could not be tried; its reason then begins with "not checked"."""

    def __call__(self) -> None:
        try:
            super().__call__()
        except NotChecked as why:
            pytest.skip(f"not checked: {why}")
        except CheckSkipped as why:
            pytest.skip(str(why))

    def see(self, plugins: Sequence[Any]) -> None:
        """Use `plugins`, which need not be installed, unless the check names its own."""
        subject = self.arguments[0]
        subject.plugins = subject.plugins or tuple(plugins)


def _checks(kind: str, name: str, how: dict[str, Any]) -> list[Check]:
    return [
        Check(check.name, check.function, check.arguments) for check in checks_of(kind, name, **how)
    ]


def check_model(name: str, **how: Any) -> list[Check]:
    """Return the checks of a model; `how` is passed to `latentforge.conformance.checks_of`."""
    return _checks("models", name, how)


def check_loss(name: str, **how: Any) -> list[Check]:
    """Return the checks of a loss; see `check_model`."""
    return _checks("losses", name, how)


def check_dataset(name: str, **how: Any) -> list[Check]:
    """Return the checks of a dataset; see `check_model`."""
    return _checks("datasets", name, how)


def check_explorer(name: str, **how: Any) -> list[Check]:
    """Return the checks of an explorer; see `check_model`."""
    return _checks("explorers", name, how)


def check_objective(name: str, **how: Any) -> list[Check]:
    """Return the checks of an objective. `example=` is a function that returns five rows of x, for
    an objective that does not score images."""
    return _checks("objectives", name, how)


def check_measure(name: str, **how: Any) -> list[Check]:
    """Return the checks of a measure; see `check_model`."""
    return _checks("measures", name, how)


def check_callback(name: str, **how: Any) -> list[Check]:
    """Return the checks of a callback; see `check_model`."""
    return _checks("callbacks", name, how)


def tiny_images(train: int = 60, test: int = 15) -> dict[str, Any]:
    """Images (N, 1, 16, 16), uint8, of three classes, in the form of `Forge.train(data=...)`."""
    from latentforge.conformance.examples import images

    return images(train=train, test=test)


# ---------------------------------------------------------------- fixtures


@dataclass(frozen=True)
class Answer:
    """The result of a command line: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object on stdout. Raises an error if stdout contains anything else."""
        value = json.loads(self.out, parse_constant=_refuse)
        assert isinstance(value, dict)
        return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture(scope="session")
def latentforge_plugins() -> Sequence[str | ModuleType | object]:
    """The plugins under test, in the form of `Forge(plugins=...)`; override it in conftest.py."""
    return ()


@pytest.fixture
def latentforge_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enable every installed plugin, even if the user's environment disables some."""
    monkeypatch.delenv("LATENTFORGE_PLUGINS", raising=False)


@pytest.fixture
def latentforge_work(
    latentforge_all: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Change to an empty working folder and unset LatentForge's environment variables."""
    for name in ("DATA", "DEBUG"):
        monkeypatch.delenv(f"LATENTFORGE_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def latentforge_only(
    latentforge_all: None, latentforge_plugins: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> Sequence[Any]:
    """Disable installed plugins that are neither built in nor under test, because they would
    affect the test. Returns the plugins under test."""
    from latentforge.plugins.discovery import find_installed

    under_test = {getattr(plugin, "__name__", str(plugin)) for plugin in latentforge_plugins}
    found = [c.plugin for c in find_installed() if c.plugin.module in under_test]
    enabled = ["latentforge", *(f"{plugin.distribution}/{plugin.name}" for plugin in found)]
    monkeypatch.setenv("LATENTFORGE_PLUGINS", ",".join(enabled))
    return latentforge_plugins


@pytest.fixture(autouse=True)
def latentforge_checks(request: pytest.FixtureRequest) -> None:
    """Pass the plugins under test to each check that names no plugins of its own."""
    params = getattr(getattr(request.node, "callspec", None), "params", {})
    for check in params.values():
        if isinstance(check, Check):
            check.see(request.getfixturevalue("latentforge_only"))


@pytest.fixture
def forge(latentforge_work: Path, latentforge_only: Sequence[Any]) -> Forge:
    """A Forge with the built-in plugins and those under test, in an empty working folder."""
    from latentforge.forge import Forge

    return Forge(latentforge_only)


@pytest.fixture
def latentforge_cli(
    latentforge_work: Path, latentforge_only: Sequence[Any], capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Return a function that runs a command in this process: `cli("train", "ae").code`. It loads
    the plugins of the fixture `forge`, which must be files, dotted names or modules."""
    from latentforge.cli.app import run

    names = [getattr(plugin, "__name__", str(plugin)) for plugin in latentforge_only]
    options = [argument for name in names for argument in ("-p", name)]

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = run([*options, *map(str, arguments)])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture
def tiny_run(forge: Forge) -> Run:
    """A run of `ae`, trained for two epochs on `tiny_images()`."""
    train = {"epochs": 2, "batch_size": 16, "device": "cpu"}
    model = {"hidden": [16], "latent_dim": 2}
    return forge.train("ae", data=tiny_images(), model=model, train=train, quiet=True)
