"""The output of explore, encode, export and decode after an error."""

import sys
from pathlib import Path

import numpy as np
import pytest

from latentforge.errors import RunFailed
from latentforge.workflows.export import output_folder


def write_and_fail(folder):
    (folder / "half.npz").write_bytes(b"1")
    (folder / "images").mkdir()
    (folder / "images" / "0.png").write_bytes(b"2")
    raise ZeroDivisionError


def folder_after_error(wanted, default):
    """Returns the output folder after an error, raised with a file and a folder in it."""
    with pytest.raises(ZeroDivisionError), output_folder(wanted, default) as folder:
        write_and_fail(folder)
    return folder


def test_existing_folder_keeps_its_other_files(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o750)
    (out / "notes.txt").write_text("mine")  # created after the check for an empty folder
    before = out.stat()
    assert folder_after_error(out, tmp_path / "run" / "export" / "model") == out
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert (out.stat().st_ino, out.stat().st_mode) == (before.st_ino, before.st_mode)


def test_linked_folder_is_emptied_and_the_link_is_kept(tmp_path):
    there, out = tmp_path / "disk", tmp_path / "out"
    there.mkdir()
    out.symlink_to(there)
    folder_after_error(out, out)
    assert out.is_symlink()
    assert list(there.iterdir()) == []


def test_new_folder_and_empty_run_folders_are_removed(tmp_path):
    other = tmp_path / "run" / "explore"
    other.mkdir(parents=True)
    folder_after_error(tmp_path / "out", other / "map")
    assert other.exists()  # an empty folder that is not a parent of --out
    assert not (tmp_path / "out").exists()
    folder_after_error(None, other / "map")
    assert not other.exists()


def test_earlier_export_is_kept_after_an_error(tmp_path):
    earlier = tmp_path / "export" / "model"
    earlier.mkdir(parents=True)
    (earlier / "model.onnx").write_bytes(b"1")
    assert folder_after_error(None, earlier) == tmp_path / "export" / "model-2"
    assert [path.name for path in earlier.parent.iterdir()] == ["model"]
    assert (earlier / "model.onnx").exists()


def test_folder_that_cannot_be_created_is_named_and_nothing_is_removed(tmp_path):
    (tmp_path / "file").write_text("mine")
    for wanted in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(RunFailed, match="cannot write to"), output_folder(wanted, wanted):
            pytest.fail("there is no folder to write to")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "line",
    [
        "encode runs/ae --out made.npz",
        "encode runs/ae --out made.parquet",
        "decode runs/ae codes.npz --out out",
        "export runs/ae --part encoder --out out",
        "export runs/ae --format safetensors --out out",
    ],
)
def test_full_disk_leaves_no_partial_output(cli, runs, monkeypatch, line):
    """As on a full disk, no file may grow beyond 3,000 bytes. The limit is per process and affects
    pytest's own log too, so it applies to the tested call only. Python would leave partial .pyc
    files."""
    resource = pytest.importorskip("resource", reason="needs file size limits")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    np.savez("codes.npz", z=np.zeros((8, 4), np.float32))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        answer = cli(*line.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.code, answer.out) == (1, "")
    _, found, cause = answer.err.partition(f"error: cannot write to {line.split()[-1]}: ")
    assert found
    assert "File too large" in cause
    assert {path.name for path in Path().iterdir()} == {"runs", "codes.npz"}
