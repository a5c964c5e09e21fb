from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from latentforge.errors import LatentForgeError, MissingError, RunFailed
from latentforge.runs.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def weights(seed: int, size: int = 8) -> dict[str, dict[str, torch.Tensor]]:
    value = torch.full((size,), float(seed))
    return {"model": {"w": value}, "optimizer": {"w.exp_avg": -value}}


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


# ---------------------------------------------------------------- round trips


def test_a_network_and_its_optimizer_load_bit_identical(store: CheckpointStore):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    moments = {
        f"{i}.{key}": value
        for i, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    state = {"step": 1, "loss": 0.1 + 0.2, "history": [1.5, None], "name": "é"}
    store.save("step-1", {"model": net.state_dict(), "optimizer": moments}, state)

    loaded = store.load()
    assert (loaded.name, loaded.groups) == ("step-1", ("model", "optimizer"))
    assert loaded.state == state
    for group, saved in (("model", net.state_dict()), ("optimizer", moments)):
        tensors = loaded.tensors(group)
        assert tensors.keys() == saved.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, saved[name])
            assert tensor.dtype == saved[name].dtype
            assert tensor.is_contiguous()


def test_tied_and_strided_tensors_load_as_separate_tensors(store: CheckpointStore):
    base = torch.arange(12.0).view(3, 4)
    group = {"a": base, "tied": base, "row": base[1], "columns": base[:, 1:3], "t": base.T}
    store.save("s", {"model": group, "none": {}}, {})
    back = store.load().tensors("model")
    assert all(torch.equal(back[name], group[name]) for name in group)
    back["a"].zero_()
    assert torch.equal(back["tied"], base)
    assert store.load().tensors("none") == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_every_dtype_is_stored_bit_exactly_with_nan_and_scalars(store: CheckpointStore, dtype):
    value = torch.tensor([1, 0, -3]).to(dtype)
    if dtype.is_floating_point:
        value[1] = float("nan")
    store.save("s", {"g": {"v": value, "scalar": value[0].clone()}}, {})
    back = store.load().tensors("g")
    assert back["v"].dtype == dtype
    assert torch.equal(back["v"].view(torch.uint8), value.view(torch.uint8))
    assert back["scalar"].shape == ()


def test_state_that_is_not_json_is_refused_before_anything_is_written(store: CheckpointStore):
    store.save("one", weights(1), {"step": 1})
    for bad in ({"best": float("nan")}, {"model": torch.zeros(1)}):
        with pytest.raises(RunFailed, match="not JSON"):
            store.save("two", weights(2), bad)
    assert store.names() == ["one"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "LATEST", "best", "a\nb"])
def test_a_name_that_could_leave_the_folder_or_hide_a_pointer_is_refused(store, name):
    with pytest.raises(ValueError, match="is not a valid name for"):
        store.save(name, weights(1), {})
    with pytest.raises(ValueError, match="is not a valid name for"):
        store.save("fine", {name: {}}, {})
    assert not store.folder.exists()


# ---------------------------------------------------------------- pointers and retention


def test_the_last_two_and_the_best_are_kept(store: CheckpointStore):
    for step in range(1, 6):
        path = store.save(f"step-{step}", weights(step), {"step": step}, best=step == 2)
        assert path == store.folder / f"step-{step}"
    assert store.names() == ["step-2", "step-4", "step-5"]
    for pointer, name in (("LATEST", "step-5"), ("BEST", "step-2")):
        manifest = (store.folder / name / "manifest.json").read_bytes()
        published = f"{name}\n{hashlib.sha256(manifest).hexdigest()}\n"
        assert (store.folder / pointer).read_text() == published
    assert store.load().state == {"step": 5}
    assert store.load("best").state == {"step": 2}
    assert store.load("step-4").tensors("model")["w"][0] == 4


def test_a_new_best_deletes_the_old_one(store: CheckpointStore):
    for step in range(1, 5):
        store.save(f"step-{step}", weights(step), {"step": step}, best=step in (1, 3))
    assert store.names() == ["step-3", "step-4"]
    assert store.load("best").state == {"step": 3}


def test_a_second_save_under_a_name_keeps_the_first(store: CheckpointStore):
    first = store.save("step-1", weights(1), {"attempt": 1})
    second = store.save("step-1", weights(2), {"attempt": 2})
    assert (first.name, second.name) == ("step-1", "step-1.2")
    assert store.load().state == {"attempt": 2}
    assert store.load("step-1").state == {"attempt": 1}


def test_only_folders_created_by_a_store_are_removed(store: CheckpointStore):
    foreign = [store.folder / "notes", store.folder / "step-0"]
    for folder in foreign:
        folder.mkdir(parents=True)
        (folder / "keep.txt").write_text("mine")
    (foreign[1] / "manifest.json").write_text('{"format": "another"}')
    for step in range(1, 5):
        store.save(f"step-{step}", weights(step), {})
    assert store.names() == ["step-3", "step-4"]
    assert all((folder / "keep.txt").read_text() == "mine" for folder in foreign)


def test_retention_does_not_follow_symbolic_links(store, tmp_path: Path):
    other = CheckpointStore(tmp_path / "other")
    precious = other.save("precious", weights(7), {"step": 7})
    store.save("step-1", weights(1), {})
    (store.folder / "link").symlink_to(precious)
    store.save("step-2", weights(2), {})
    assert other.load().state == {"step": 7}
    assert (store.folder / "link").is_symlink()


# ---------------------------------------------------------------- missing checkpoints


def test_loading_from_an_empty_store_names_its_folder(store: CheckpointStore):
    assert store.names() == []
    for which in ("last", "best"):
        with pytest.raises(MissingError, match="no checkpoint yet") as caught:
            store.load(which)
        assert str(store.folder) in caught.value.message


def test_a_missing_best_checkpoint_is_explained(store: CheckpointStore):
    store.save("step-1", weights(1), {})
    with pytest.raises(MissingError, match="no best checkpoint") as caught:
        store.load("best")
    assert "validation split" in caught.value.details[0]


def test_an_unknown_name_or_group_lists_those_that_exist(store: CheckpointStore):
    store.save("step-1", weights(1), {})
    with pytest.raises(MissingError) as caught:
        store.load("step-9")
    assert "step-1" in caught.value.details[0]
    with pytest.raises(MissingError) as caught:
        store.load("../checkpoints/step-1")
    with pytest.raises(MissingError) as caught:
        store.load().tensors("ema")
    assert "model, optimizer" in caught.value.details[0]


# ---------------------------------------------------------------- damage


FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_in_any_byte_is_found(store: CheckpointStore, file: str):
    path = store.save("step-1", weights(1), {"step": 1}) / file
    for place in range(path.stat().st_size):
        flip(path, place, place % 8)
        with pytest.raises(
            RunFailed, match=r"the SHA-256 of \S+ does not match manifest\.json"
        ) as caught:
            store.load()
        assert str(path.parent) in caught.value.message
        assert file in caught.value.message
        flip(path, place, place % 8)
    assert store.load().state == {"step": 1}


@pytest.mark.parametrize("file", ["step-2/manifest.json", "LATEST"])
def test_a_flipped_bit_in_the_manifest_or_the_pointer_is_found(store: CheckpointStore, file: str):
    store.save("step-1", weights(1), {"step": 1})
    store.save("step-2", weights(2), {"step": 2})
    path = store.folder / file
    for place in range(path.stat().st_size):
        for bit in (0, 2, 6):
            flip(path, place, bit)
            with pytest.raises(LatentForgeError):
                store.load()
            flip(path, place, bit)
    assert store.load().state == {"step": 2}


def test_a_pointer_flipped_to_another_valid_checkpoint_is_found(store: CheckpointStore):
    store.save("step-2", weights(2), {"step": 2})
    store.save("step-3", weights(3), {"step": 3})
    flip(store.folder / "LATEST", len("step-"))  # 3 and 2 differ in one bit
    assert (store.folder / "LATEST").read_text().startswith("step-2\n")
    with pytest.raises(RunFailed, match=r"the SHA-256 of its manifest\.json does not match LATEST"):
        store.load()


def test_a_pointer_without_a_hash_is_accepted(store: CheckpointStore):
    store.save("step-1", weights(1), {"step": 1})
    (store.folder / "LATEST").write_text("step-1\n")
    assert store.load().state == {"step": 1}


def test_load_newest_falls_back_to_the_newest_valid_checkpoint(store, caplog):
    for step in (1, 2, 3):
        store.save(f"step-{step}", weights(step), {"step": step}, best=step == 1)
    assert store.load_newest().state == {"step": 3}
    assert not caplog.messages
    flip(store.folder / "step-3" / "model.safetensors", -1)
    with caplog.at_level(logging.WARNING, "latentforge"):
        assert store.load_newest().state == {"step": 2}
    assert "step-3 is damaged" in caplog.text
    assert f"using {store.folder / 'step-2'} instead" in caplog.text
    (store.folder / "step-2" / "state.json").unlink()
    (store.folder / "LATEST").write_text("\0")
    assert store.load_newest().state == {"step": 1}
    flip(store.folder / "step-1" / "state.json", 0)
    with pytest.raises(RunFailed, match="LATEST is damaged"):
        store.load_newest()


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
def test_truncated_deleted_and_swapped_files_are_named(store: CheckpointStore, file: str):
    whole = store.save("step-1", weights(1), {"step": 1})
    other = store.save("step-2", weights(2), {"step": 2})
    data = (other / file).read_bytes()

    (other / file).write_bytes(data[:-2])
    with pytest.raises(RunFailed, match=file) as caught:
        store.load()
    assert "step-1" in caught.value.details[0]  # what to load instead

    (other / file).unlink()
    with pytest.raises(RunFailed, match=file):
        store.load()

    shutil.copy(whole / file, other / file)  # valid, but from another checkpoint
    with pytest.raises(RunFailed):
        store.load()
    assert store.load("step-1").state == {"step": 1}


def test_damage_after_loading_is_found(store: CheckpointStore):
    path = store.save("step-1", weights(1), {})
    loaded = store.load()
    flip(path / "model.safetensors", -1)
    with pytest.raises(RunFailed, match=r"the SHA-256 of \S+ does not match manifest\.json"):
        loaded.tensors("model")


def test_a_checkpoint_of_a_later_format_is_refused_by_its_version(store: CheckpointStore):
    manifest = store.save("step-1", weights(1), {}) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 2}))
    with pytest.raises(RunFailed, match="latentforge-checkpoint 2"):
        store.load()


# ---------------------------------------------------------------- untrusted folders


@pytest.mark.parametrize("what", ["file", "checkpoint", "checkpoints"])
def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path, what: str):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    inside = store.save("step-1", weights(1), {"step": 1})
    path = {"file": inside / "state.json", "checkpoint": inside, "checkpoints": store.folder}[what]
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(RunFailed, match="is a link to a place outside"):
        store.load()


def test_a_run_reached_through_a_link_loads(store: CheckpointStore, tmp_path: Path):
    store.save("step-1", weights(1), {"step": 1})
    (tmp_path / "link").symlink_to(store.folder.parent, target_is_directory=True)
    assert CheckpointStore(tmp_path / "link" / "checkpoints").load().state == {"step": 1}


def rewrite(path: Path, file: str, data: bytes) -> None:
    """Write a file with a matching manifest, as anyone who creates a folder by hand can."""
    (path / file).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    manifest["files"][file] = entry
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path.parent / "LATEST").write_text(path.name)


DEEP = b"[" * 10**6 + b"]" * 10**6
HUGE = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("state.json", DEEP, "nested too deeply"),
        ("state.json", b"[1, 2]", "cannot be read"),
        ("state.json", b" " * 2**26 + b"{}", "it is larger than"),
        ("model.safetensors", pickle.dumps({"w": 1}), "cannot be read"),
        ("model.safetensors", struct.pack("<Q", len(HUGE)) + HUGE, "cannot be read"),
        ("model.safetensors", struct.pack("<Q", 2**62), "cannot be read"),
    ],
    ids=["deep", "list", "long", "pickle", "huge shape", "huge header"],
)
def test_a_hostile_file_with_a_correct_hash_is_refused(store, file, data, message):
    rewrite(store.save("step-1", weights(1), {"step": 1}), file, data)
    with pytest.raises(RunFailed, match=message):
        store.load().tensors("model")


@pytest.mark.parametrize(
    ("file", "entry", "message"),
    [
        ("state.json", {"sha256": "0", "size": "9"}, "damaged"),
        ("state.json", {"sha256": 1, "size": None}, "damaged"),
        ("state.json", 7, "damaged"),
        ("../../secret.safetensors", {"sha256": "0" * 64, "size": 9}, "does not list"),
    ],
)
def test_an_invalid_manifest_entry_is_reported_as_damage(store, file, entry, message):
    path = store.save("step-1", weights(1), {}) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][file] = entry
    path.write_text(json.dumps(manifest))
    with pytest.raises(RunFailed, match=message):
        store.load()


def test_a_deeply_nested_manifest_is_refused(store: CheckpointStore):
    (store.save("step-1", weights(1), {}) / "manifest.json").write_bytes(DEEP)
    with pytest.raises(RunFailed, match=r"manifest\.json cannot be read"):
        store.load()


def test_more_bytes_than_expected_are_never_read(store: CheckpointStore):
    path = store.save("step-1", weights(1, size=4), {})
    expected = (path / "model.safetensors").stat().st_size
    loaded = store.load()
    assert loaded.tensors("model", limit=expected)["w"].numel() == 4
    with pytest.raises(RunFailed, match="more than the expected maximum of"):
        loaded.tensors("model", limit=expected - 1)


@pytest.mark.parametrize("text", ["", "../elsewhere", "\x00\x00", "two\nlines"])
def test_a_damaged_pointer_is_an_error_and_nothing_is_deleted(store: CheckpointStore, text: str):
    store.save("step-1", weights(1), {}, best=True)
    store.save("step-2", weights(2), {})
    (store.folder / "BEST").write_text(text)
    with pytest.raises(RunFailed, match="BEST is damaged"):
        store.load("best")
    with pytest.raises(RunFailed, match="BEST is damaged"):
        store.save("step-3", weights(3), {})
    assert store.names() == ["step-1", "step-2"]


# ---------------------------------------------------------------- kills and full disks


def test_leftovers_of_a_killed_save_are_removed_by_the_next_one(store: CheckpointStore):
    store.save("step-1", weights(1), {"step": 1})
    half = store.folder / ".tmp-step-2-4711"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (store.folder / ".tmp-LATEST-4711").write_text("step-2")
    assert store.load().state == {"step": 1}
    assert store.names() == ["step-1"]
    store.save("step-2", weights(2), {"step": 2})
    assert sorted(p.name for p in store.folder.iterdir()) == ["LATEST", "step-1", "step-2"]


KILLED_ANYWHERE = """
import os, shutil, sys
from pathlib import Path
import torch
from latentforge.runs.checkpoint import CheckpointStore

def save(store, step):
    store.save(f"step-{step}", {"model": {"w": torch.full((9,), float(step))}}, {"step": step},
               best=True)

def die_before(operation):
    left = operation
    def wrap(module, name):
        real = getattr(module, name)
        def counted(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)  # as a SIGKILL: no handler and no finally runs
            return real(*args, **kwargs)
        setattr(module, name, counted)
    for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"),
                         (os, "unlink"), (os, "rmdir"), (os, "open")):
        wrap(module, name)

torch.set_num_threads(1)
root, killed = Path(sys.argv[1]), 0
for operation in range(200):
    store = CheckpointStore(root / str(operation))
    for step in (1, 2, 3):
        save(store, step)
    child = os.fork()
    if child == 0:
        die_before(operation)
        save(store, 4)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for which in ("last", "best"):
        loaded = store.load(which)
        assert loaded.state["step"] in (3, 4), (operation, which, loaded.state)
        assert loaded.tensors("model")["w"].tolist() == [float(loaded.state["step"])] * 9
    assert len(store.names()) >= 2, (operation, store.names())
    save(store, 5)
    assert store.load().state == {"step": 5}
    assert not list(store.folder.glob(".tmp-*"))
    killed += code == 9
    if code == 0:
        break
print(killed, code)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_a_kill_before_any_file_operation_leaves_valid_checkpoints(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_ANYWHERE, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    killed, last = map(int, done.stdout.split())
    assert killed > 15  # each fsync, rename and deletion of one save
    assert last == 0  # the loop ran until a save completed


class Fault:
    """Makes the file operation that decrements `left` to 0 fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
        self.left, self.reason = 0, reason
        for module, name in (
            *((os, name) for name in ("fsync", "rename", "replace", "mkdir")),
            (io, "open"),
        ):
            monkeypatch.setattr(module, name, self.wrap(getattr(module, name)))

    def wrap(self, real):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise OSError(self.reason, os.strerror(self.reason))
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failing_file_operation_is_one_error_and_old_checkpoints_load(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, reason: int
):
    """Operation by operation, until a save completes."""
    for step in (1, 2):
        store.save(f"step-{step}", weights(step), {"step": step}, best=True)
    fault, messages = Fault(monkeypatch, reason), []
    for operation in range(1, 200):
        fault.left = operation
        try:
            store.save("next", weights(9), {"step": 9}, best=True)
        except RunFailed as error:
            messages.append(str(error))
        reached, fault.left = fault.left <= 0, 0
        if not reached:
            break
        for which in ("last", "best"):
            loaded = store.load(which)
            assert loaded.state["step"] in (2, 9), operation
            assert loaded.tensors("model")["w"].tolist() == [float(loaded.state["step"])] * 8
    assert not reached
    assert all(os.strerror(reason) in message for message in messages)
    assert len(messages) > 15  # the other faults hit optional operations, such as cleaning up
    store.save("after", weights(7), {"step": 7})
    assert store.load().state == {"step": 7}
    assert not list(store.folder.glob(".tmp-*"))


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.errors import RunFailed

store = CheckpointStore(Path(sys.argv[1]))
store.save("step-1", {"model": {"w": torch.ones(10)}}, {"step": 1}, best=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for _ in range(2):
    try:
        store.save("step-2", {"model": {"w": torch.ones(9000)}}, {"step": 2}, best=True)
    except RunFailed as error:
        print(f"error: {error}")
"""


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_keeps_the_previous_checkpoint(tmp_path: Path):
    pytest.importorskip("resource", reason="limits the size of files")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"error: cannot write checkpoint {tmp_path / 'step-2'}: ") == 2
    assert "File too large" in done.stdout
    store = CheckpointStore(tmp_path)
    assert store.load().state == store.load("best").state == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["BEST", "LATEST", "step-1"]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailed, match="cannot write checkpoint"):
        CheckpointStore(tmp_path / "file").save("step-1", weights(1), {})
    with pytest.raises(RunFailed, match="cannot write checkpoint"):
        CheckpointStore(tmp_path / "file" / "below").save("step-1", weights(1), {})
    assert (tmp_path / "file").read_text() == "in the way"
