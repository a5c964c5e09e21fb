"""External packages from their wheels, in a virtual environment: install, use, uninstall."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentforge.plugins.scaffold import IMPLEMENTED

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = """
import json, sys
from latentforge.cli.app import run

for line in sys.argv[1:]:
    assert run(json.loads(line)) == 0
"""


def test_vq_vae_package_installs_trains_explores_resumes_and_uninstalls(venv, wheel_of):
    venv.run("pip", "install", "--quiet", "--no-deps", wheel_of(EXAMPLES / "latentforge-vq"))
    listed = venv.run("latentforge", "plugins", "list")
    assert "latentforge-vq 0.1.0" in " ".join(listed.split())
    venv.run(
        "latentforge", "train", "latentforge-vq/vq-vae", "--epochs", "1", "--run", "vq", "--quiet"
    )
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
    assert "latentforge-vq" not in venv.run("latentforge", "plugins", "list")
    gone = venv.run("latentforge", "evaluate", "vq", code=3)
    assert "pip install latentforge-vq==0.1.0" in gone
    config = venv.work / "vq.toml"
    name = "latentforge-vq/vq-vae"
    config.write_text(f'requires_plugins = ["latentforge-vq>=0.1"]\n[model]\nname = "{name}"\n')
    assert "pip install 'latentforge-vq>=0.1'" in venv.run(
        "latentforge", "train", "--config", config, code=3
    )


def test_physics_package_adds_the_aim_command(venv, wheel_of):
    venv.run("pip", "install", "--quiet", "--no-deps", wheel_of(EXAMPLES / "latentforge-physics"))
    assert "aim" in venv.run("latentforge", "--help")
    flights = json.loads(venv.run("latentforge", "aim", "--target", "3,0", "--json"))["flights"]
    assert flights[0]["met"]
    check = ["latentforge", "plugins", "check", "latentforge-physics", "--deep"]
    assert "not checked objective arrive: rows are independent" in venv.run(*check, code=4)
    assert "0 failed, 2 skipped, 0 not checked" in venv.run(*check, "--shape", "2")
    shutil.copytree(EXAMPLES / "latentforge-physics/tests", venv.work / "tests")
    venv.run("python", "-m", "pytest", "-q", "tests")
    venv.run("pip", "uninstall", "--quiet", "--yes", "latentforge-physics")
    assert "No such command" in venv.run("latentforge", "aim", "--target", "3,0", code=2)


def test_scaffolded_package_of_each_kind_passes_its_own_tests(venv):
    names = [f"swirl-{kind}" for kind in IMPLEMENTED]
    created = [["plugins", "new", f"swirl-{kind}", "--kind", kind] for kind in IMPLEMENTED]
    venv.run("python", "-c", RUN, *map(json.dumps, created))
    folders = [venv.work / f"latentforge-{name}" for name in names]
    editable = [word for folder in folders for word in ("-e", folder)]
    venv.run("pip", "install", "--quiet", "--no-deps", *editable)
    failed = {}
    for folder in folders:
        tested = venv.run("python", "-m", "pytest", "-q", folder, code=None)
        if " passed" not in tested or "failed" in tested:
            failed[folder.name] = tested
    assert failed == {}
    checks = [["plugins", "check", name, "--deep"] for name in names]
    checked = venv.run("python", "-c", RUN, *map(json.dumps, checks))
    assert checked.count(" 0 failed") == len(names)
