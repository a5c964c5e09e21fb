from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def refused(cli, root: Path):
    def call(*options: str, code: int = 2) -> str:
        sets = [part for option in (f"data.root={root}", *options) for part in ("--set", option)]
        answer = cli("train", "ae", "--data", "folder", *sets)
        assert (answer.code, answer.out) == (code, "")
        assert "Traceback" not in answer.err
        assert not Path("runs").exists()
        return answer.err

    return call
