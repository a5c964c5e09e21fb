"""The wheel is complete: built, installed and used without the source tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def call(*command, cwd):
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    # from the sdist, which must be complete too
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    [built] = out.glob("*.whl")
    return built


def test_the_wheel_has_both_packages_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"latentforge", "latentforge_plugins"}
    assert "latentforge_plugins/presets/vanilla-ae.toml" in names
    assert {f"{top}/py.typed" for top in tops} <= {*names}  # type checkers look for it
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_trains_in_a_fresh_environment(wheel, tmp_path):
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    site = next((tmp_path / "venv").glob("[Ll]ib/**/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # the dependencies come from the test environment, whose .pth files are not read this way
    site.joinpath("rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    location = call(python, "-c", "import latentforge; print(latentforge.__file__)", cwd=tmp_path)
    assert Path(location.strip()).is_relative_to(tmp_path)
    plugins = call(python, "-m", "latentforge", "plugins", "list", cwd=tmp_path)
    assert "problems" not in plugins
    assert "autoencoder" in plugins
    call(python, "-m", "latentforge", "train", "ae", "--epochs", "1", cwd=tmp_path)
    call(python, "-m", "latentforge", "explore", "interpolate", "runs/ae-digits-1", cwd=tmp_path)
