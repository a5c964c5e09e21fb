from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from latentforge_plugins.mnist import MnistConfig, fetch, idx, latentforge_datasets, load

from latentforge.data.preparation import prepare
from latentforge.errors import MissingError

real_mnist = pytest.mark.skipif(
    not os.environ.get("LATENTFORGE_DATA"), reason="real MNIST: set LATENTFORGE_DATA"
)
X = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
Y = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)


def idx_bytes(array: np.ndarray, type_code: int = 8) -> bytes:
    head = bytes([0, 0, type_code, array.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A small MNIST with six images per split."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(X))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(Y))
    return folder


def config(raw: Path) -> MnistConfig:
    return MnistConfig(root=raw.parent.parent)


# ---------------------------------------------------------------- location of files


@pytest.mark.parametrize("split", ["train", "test"])
def test_plain_and_gzip_files_give_the_same_arrays(raw: Path, split: str):
    plain = load(config(raw), split)
    assert np.array_equal(plain.x, X)
    assert np.array_equal(plain.y, Y)
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load(config(raw), split)
    assert np.array_equal(packed.x, X)
    assert np.array_equal(packed.y, Y)


def test_the_option_precedes_the_environment_and_the_cache(monkeypatch):
    monkeypatch.setenv("LATENTFORGE_DATA", "/env")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert idx.raw_folder(Path("/option")) == Path("/option/MNIST/raw")
    assert idx.raw_folder(None) == Path("/env/MNIST/raw")
    monkeypatch.setenv("LATENTFORGE_DATA", "")
    assert idx.raw_folder(None) == Path("/cache/latentforge/MNIST/raw")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert idx.raw_folder(None) == Path("/home/someone/.cache/latentforge/MNIST/raw")


def test_missing_files_are_listed_with_the_fetch_command(raw: Path):
    (raw / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingError) as caught:
        load(config(raw), "train")
    assert caught.value.exit_code == 4
    assert caught.value.details == (
        f"looked for {raw / 'train-labels-idx1-ubyte'} and train-labels-idx1-ubyte.gz",
    )
    assert caught.value.hint.startswith("latentforge data fetch mnist")
    assert "LATENTFORGE_DATA" in caught.value.hint
    assert len(load(config(raw), "test").x) == 6


# ---------------------------------------------------------------- damaged files


GOOD = idx_bytes(X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes, but the header alone needs 16"),
        (GOOD[:15], "15 bytes, but the header alone needs 16"),
        (GOOD[:-1], "4719 bytes, but the header declares 16 . 6 x 28 x 28"),
        (GOOD + b"\0", "4721 bytes, but the header declares 16 . 6 x 28 x 28"),
        (GOOD[:4] + b"\xff" * 4 + GOOD[8:], "the header declares 16 . 4294967295 x 28 x 28"),
        (idx_bytes(X, type_code=13), "begins with 0x00000d03, not 0x00000803"),
        (idx_bytes(np.tile(Y, 9)), "begins with 0x00000801, not 0x00000803"),
        (b"<!DOCTYPE html><html>404</html>", "begins with 0x3c21444f"),
    ],
    ids=["empty", "header", "short", "long", "huge", "floats", "labels", "web page"],
)
def test_a_damaged_image_file_is_named_with_the_reason(raw: Path, data: bytes, message: str):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(MissingError, match=message) as caught:
        load(config(raw), "train")
    assert str(path) in caught.value.message
    assert "delete that file yourself" in caught.value.hint
    assert path.read_bytes() == data  # the file is unchanged


@pytest.mark.parametrize(
    ("labels", "message"),
    [(Y[:-1], "5 labels, but .* has 6 images"), (Y + 1, "the label 10")],
)
def test_labels_that_do_not_fit_the_images_are_refused(raw: Path, labels, message: str):
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(MissingError, match=message) as caught:
        load(config(raw), "test")
    assert "t10k-labels-idx1-ubyte" in caught.value.message


@pytest.mark.parametrize("cut", [slice(0, -20), slice(1, None), slice(0, 0)])
def test_a_damaged_gzip_file_is_named(raw: Path, cut: slice):
    path = raw / "train-images-idx3-ubyte"
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes())[cut])
    path.unlink()
    with pytest.raises(MissingError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        load(config(raw), "train")


# ---------------------------------------------------------------- fetching


def test_fetching_existing_files_reads_them_without_download(raw: Path):
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    assert fetch(config(raw)) == raw
    assert {path: path.stat().st_mtime_ns for path in raw.iterdir()} == before
    (raw / "t10k-images-idx3-ubyte").write_bytes(GOOD[:-1])
    with pytest.raises(MissingError, match="is damaged"):
        fetch(config(raw))


NO_NETWORK = """
import sys
from pathlib import Path
from latentforge.errors import MissingError
from latentforge_plugins.mnist import MnistConfig, fetch
from latentforge_plugins.torchvision_import import import_torchvision

import_torchvision().datasets.MNIST.mirrors = ["http://127.0.0.1:9/", "http://127.0.0.1:9/b/"]
try:
    fetch(MnistConfig(root=Path(sys.argv[1])))
except MissingError as error:
    print(f"error: {error}")
"""


@pytest.mark.slow
def test_a_failed_download_reports_one_cause_and_a_hint(tmp_path: Path):
    out = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(tmp_path)], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    first, cause, remedy = out.stdout.splitlines()
    assert first == f"error: MNIST could not be downloaded to {tmp_path}"
    assert "refused" in cause
    assert remedy.startswith("  try: check the network")


REMEDY = """
import sys
try:
    import torchvision
    print("plain")
except RuntimeError as error:
    print("fails" if "torchvision::nms does not exist" in str(error) else error)
    assert not hasattr(sys.modules.get("torchvision"), "datasets")
from latentforge_plugins.torchvision_import import import_torchvision
first = import_torchvision()
import gc; gc.collect()
import torch, torchvision
from torchvision import datasets, utils
from torchvision.transforms import v2
assert first is torchvision is import_torchvision()
grid = utils.make_grid(v2.Resize(4)(torch.rand(6, 1, 8, 8)), nrow=3)
print(tuple(grid.shape), datasets.MNIST.__name__, torch.ops.torchvision.nms.default._schema.name)
"""


@pytest.mark.slow
def test_torchvision_is_imported_even_if_its_operators_fail():
    out = subprocess.run([sys.executable, "-c", REMEDY], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    how, what = out.stdout.splitlines()
    assert how in ("plain", "fails")
    assert what == "(3, 14, 20) MNIST torchvision::nms"


BROKEN = """
import sys
sys.path.insert(0, sys.argv[1])
from latentforge_plugins.torchvision_import import import_torchvision
try:
    import_torchvision()
except RuntimeError as error:
    print(error)
"""


def test_another_import_error_of_torchvision_is_raised_unchanged(tmp_path: Path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('another fault')")
    out = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)], capture_output=True, text=True
    )
    assert out.stdout.strip() == "another fault", out.stderr


# ---------------------------------------------------------------- real MNIST


@real_mnist
def test_real_mnist_has_the_known_counts_and_mean():
    (spec,) = latentforge_datasets()
    splits = prepare(lambda split: spec.load(spec.config(), split), spec.splits, spec.name)
    train, test = splits.split("train"), splits.split("test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.y.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert float(train.x.float().mean() / 255) == pytest.approx(0.1307, abs=1e-4)
    assert test.batch_at([0, 1, 2, 3]).y.tolist() == [7, 2, 1, 0]
    assert splits.spec.classes == tuple("0123456789")
    assert train.x.dtype == torch.uint8


READ_BY_TORCHVISION = """
import os, numpy as np
from latentforge_plugins.mnist import MnistConfig, load
from latentforge_plugins.torchvision_import import import_torchvision
for split in ("train", "test"):
    ours = load(MnistConfig(), split)
    theirs = import_torchvision().datasets.MNIST(os.environ["LATENTFORGE_DATA"], split == "train")
    assert np.array_equal(ours.x, theirs.data.numpy())
    assert np.array_equal(ours.y, theirs.targets.numpy())
print("same")
"""


@pytest.mark.slow
@real_mnist
def test_real_mnist_matches_torchvision():
    if not (idx.raw_folder(None) / "train-images-idx3-ubyte").exists():
        pytest.skip("torchvision reads unpacked files only")
    out = subprocess.run(
        [sys.executable, "-c", READ_BY_TORCHVISION], capture_output=True, text=True
    )
    assert out.stdout.strip() == "same", out.stderr
