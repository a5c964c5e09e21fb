"""Real distributions in a folder on sys.path: a module, and a dist-info folder as pip writes it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import latentforge.options  # noqa: F401  the plugins here import it while site-packages is hidden

MODELS = """
from dataclasses import dataclass, field
from pathlib import Path
from latentforge import (DataSpec, DatasetSpec, ExplorerSpec, LossSpec, MeasureSpec, ModelSpec,
    ObjectiveSpec, PresetSpec, hookimpl)

def build(config, data):
    raise NotImplementedError

def model(name, **changes):
    options = dict(summary="a model", build=build, provides={"encode"}, default_loss="elbo")
    return ModelSpec(name=name, **(options | changes))

"""


class Site:
    """A temporary site-packages folder, the only one on sys.path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def module(self, name: str, code: str) -> None:
        (self.folder / f"{name}.py").write_text(MODELS + code)

    def metadata(self, distribution: str, entry_points: str, version: str = "1.0") -> Path:
        stem = distribution.replace("-", "_")
        info = self.folder / f"{stem}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[latentforge]\n{entry_points}\n")
        (info / "RECORD").write_text("".join(f"{info.name}/{p.name},,\n" for p in info.iterdir()))
        return info

    def add(self, distribution: str, code: str, plugin: str = "", version: str = "1.0") -> str:
        """Install a distribution with one plugin; returns the name of its module."""
        module = re.sub(r"\W", "_", f"{distribution}_{plugin}".rstrip("_"))
        self.module(module, code)
        self.metadata(distribution, f"{plugin or distribution} = {module}", version)
        return module

    def commands(self, distribution: str, points: dict[str, str], version: str = "1.0") -> None:
        """Install a distribution that offers commands."""
        info = self.metadata(distribution, "", version)
        text = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[latentforge.commands]\n{text}")

    def command(self, code: str, version: str = "1.0") -> None:
        """Install latentforge-aim, whose command `aim` is in the module `aiming`."""
        self.module("aiming", code)
        self.commands("latentforge-aim", {"aim": "aiming:aim"}, version)

    @staticmethod
    def offering(*names: str) -> str:
        """The code of a hook that offers models of those names."""
        specs = ", ".join(f"model({name!r})" for name in names)
        return f"@hookimpl\ndef latentforge_models():\n    return [{specs}]\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    visible = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(folder), *visible])
    yield Site(folder)  # monkeypatch restores sys.path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
