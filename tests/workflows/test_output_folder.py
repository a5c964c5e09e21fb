"""The folder that explore, export and decode write to: what an error leaves there."""

import pytest

from latentforge.errors import RunFailed
from latentforge.workflows.export import output_folder


def write_half(folder):
    (folder / "half.npz").write_bytes(b"1")
    (folder / "images").mkdir()
    (folder / "images" / "0.png").write_bytes(b"2")
    raise ZeroDivisionError


def failing(wanted, default):
    """The folder, after an error with a file and a folder in it."""
    with pytest.raises(ZeroDivisionError), output_folder(wanted, default) as folder:
        write_half(folder)
    return folder


def test_a_folder_that_existed_stays_with_what_it_contains(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o750)
    (out / "notes.txt").write_text("mine")  # put there after the check that it is empty
    before = out.stat()
    assert failing(out, tmp_path / "run" / "export" / "model") == out
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert (out.stat().st_ino, out.stat().st_mode) == (before.st_ino, before.st_mode)


def test_a_linked_folder_is_emptied_and_the_link_stays(tmp_path):
    there, out = tmp_path / "disk", tmp_path / "out"
    there.mkdir()
    out.symlink_to(there)
    failing(out, out)
    assert out.is_symlink()
    assert list(there.iterdir()) == []


def test_a_new_folder_is_removed_and_the_folders_of_the_run_too_if_they_are_empty(tmp_path):
    other = tmp_path / "run" / "explore"
    other.mkdir(parents=True)
    failing(tmp_path / "out", other / "map")
    assert other.exists()  # an empty folder that has nothing to do with --out
    assert not (tmp_path / "out").exists()
    failing(None, other / "map")
    assert not other.exists()


def test_an_earlier_export_stays_whatever_fails(tmp_path):
    earlier = tmp_path / "export" / "model"
    earlier.mkdir(parents=True)
    (earlier / "model.onnx").write_bytes(b"1")
    assert failing(None, earlier) == tmp_path / "export" / "model-2"
    assert [path.name for path in earlier.parent.iterdir()] == ["model"]
    assert (earlier / "model.onnx").exists()


def test_a_folder_that_cannot_be_made_is_named_and_nothing_is_removed(tmp_path):
    (tmp_path / "file").write_text("mine")
    for wanted in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(RunFailed, match="cannot write to"), output_folder(wanted, wanted):
            pytest.fail("there is no folder to write to")
    assert (tmp_path / "file").read_text() == "mine"
