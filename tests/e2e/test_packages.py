"""External packages from their wheels, in a fresh environment: install, use, uninstall."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentforge.plugins.scaffold import IMPLEMENTED, new_plugin

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_vq_vae_package_installs_trains_explores_resumes_and_uninstalls(venv, wheel_of):
    venv.run("pip", "install", "--quiet", "--no-deps", wheel_of(EXAMPLES / "latentforge-vq"))
    listed = venv.run("latentforge", "plugins", "list")
    assert "latentforge-vq 0.1.0" in " ".join(listed.split())
    venv.run("latentforge", "train", "vq-vae", "--epochs", "1", "--run", "vq", "--quiet")
    manifest = json.loads((venv.work / "vq/run.json").read_text())
    [plugin] = [p for p in manifest["plugins"] if p["kind"] == "models"]
    assert (plugin["distribution"], plugin["version"]) == ("latentforge-vq", "0.1.0")
    venv.run("latentforge", "explore", "codebook", "vq", "--quiet")
    assert (venv.work / "vq/explore/codebook/entries.png").stat().st_size > 1000
    venv.run("latentforge", "train", "--resume", "vq", "--epochs", "2", "--quiet")
    assert json.loads((venv.work / "vq/run.json").read_text())["epochs"] == 2

    shutil.copytree(EXAMPLES / "latentforge-vq/tests", venv.work / "tests")
    venv.run("python", "-m", "pytest", "-q", "tests")
    assert "0 failed" in venv.run("latentforge", "plugins", "check", "latentforge-vq", "--deep")

    venv.run("pip", "uninstall", "--quiet", "--yes", "latentforge-vq")
    assert "vq" not in venv.run("latentforge", "plugins", "list")
    gone = venv.run("latentforge", "evaluate", "vq", code=3)
    assert "pip install latentforge-vq==0.1.0" in gone
    config = venv.work / "vq.toml"
    config.write_text('requires_plugins = ["latentforge-vq>=0.1"]\n[model]\nname = "vq-vae"\n')
    assert "pip install 'latentforge-vq>=0.1'" in venv.run(
        "latentforge", "train", "--config", config, code=3
    )


def test_physics_package_adds_the_aim_command(venv, wheel_of):
    venv.run("pip", "install", "--quiet", "--no-deps", wheel_of(EXAMPLES / "latentforge-physics"))
    assert "aim" in venv.run("latentforge", "--help")
    flights = json.loads(venv.run("latentforge", "aim", "--target", "3,0", "--json"))["flights"]
    assert flights[0]["met"]
    assert "0 failed" in venv.run(
        "latentforge", "plugins", "check", "latentforge-physics", "--deep"
    )
    shutil.copytree(EXAMPLES / "latentforge-physics/tests", venv.work / "tests")
    venv.run("python", "-m", "pytest", "-q", "tests")
    venv.run("pip", "uninstall", "--quiet", "--yes", "latentforge-physics")
    assert "No such command" in venv.run("latentforge", "aim", "--target", "3,0", code=2)


def test_scaffolded_package_of_each_kind_passes_its_own_tests(venv):
    names = {kind: f"swirl-{kind}" for kind in IMPLEMENTED}
    folders = [new_plugin(name, kind, venv.work)[0] for kind, name in names.items()]
    editable = [word for folder in folders for word in ("-e", folder)]
    venv.run("pip", "install", "--quiet", "--no-deps", *editable)
    failed = {}
    for folder in folders:
        tested = venv.run("python", "-m", "pytest", "-q", folder, code=None)
        if " passed" not in tested or "failed" in tested:
            failed[folder.name] = tested
    assert failed == {}
    checked = venv.run("python", "-c", CHECK, *names.values())
    assert checked.count(" 0 failed") == len(names)
    venv.run("pip", "uninstall", "--quiet", "--yes", *(folder.name for folder in folders))


CHECK = """
import sys
from latentforge.cli.app import run

for name in sys.argv[1:]:
    assert run(["plugins", "check", name, "--deep"]) == 0
"""
