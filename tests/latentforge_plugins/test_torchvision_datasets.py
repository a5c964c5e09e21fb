"""Reads small files in the layout of torchvision. The tests patch only the tables of torchvision:
the MD5 sums, and the URLs of downloads, which point to a server in this process."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from latentforge_plugins.torchvision_datasets import latentforge_datasets
from latentforge_plugins.torchvision_import import import_torchvision

from latentforge.data.preparation import prepare
from latentforge.errors import MissingError

RANDOM = np.random.default_rng(0)
SPECS = {spec.name: spec for spec in latentforge_datasets()}
GREY = RANDOM.integers(0, 256, (4, 28, 28), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
VARIANTS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LATENTFORGE_DATA", str(folder))
    return folder


def load(name: str, split: str = "train", **options):
    spec = SPECS[name]
    return spec.load(spec.config(**options), split)


def prepare_dataset(name: str, **options):
    spec = SPECS[name]
    return prepare(lambda split: spec.load(spec.config(**options), split), spec.splits, name)


# ---------------------------------------------------------------- files


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(raw: Path, part: str, x: np.ndarray, y: np.ndarray) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(x))
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(y))


def write_like_mnist(root: Path, folder: str) -> Path:
    raw = root / folder / "raw"
    write_idx(raw, "train", GREY, np.array([0, 9, 1, 2]))
    write_idx(raw, "t10k", GREY[:2], np.array([3, 4]))
    return raw


def write_emnist(root: Path, variant: str, x: np.ndarray, y: np.ndarray) -> Path:
    raw = root / "EMNIST" / "raw"
    for split in ("train", "test"):
        write_idx(raw, f"emnist-{variant}-{split}", x, y)
    return raw


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images per batch, labels 0 to 9; the test batch repeats the first two."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    kind = import_torchvision().datasets.CIFAR10
    rows = COLOUR.reshape(10, 3072)
    batches = [(f"data_batch_{i + 1}", slice(2 * i, 2 * i + 2)) for i in range(5)]
    for name, part in [*batches, ("test_batch", slice(0, 2))]:
        batch = {"data": rows[part], "labels": list(range(10))[part]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for table in ("train_list", "test_list"):
        sums = [[name, md5(folder / name)] for name, _ in getattr(kind, table)]
        monkeypatch.setattr(kind, table, sums)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / "batches.meta")})
    return folder


@pytest.fixture
def svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten images per split with labels 1 to 10; label 10 is the digit 0."""
    kind = import_torchvision().datasets.SVHN
    known = dict(kind.split_list)
    for split in ("train", "test"):
        url, name, _ = known[split]
        x = COLOUR.transpose(2, 3, 1, 0)  # (32, 32, 3, N), the Matlab order
        scipy.io.savemat(root / name, {"X": x, "y": np.arange(1, 11)[:, None].astype(np.uint8)})
        known[split] = [url, name, md5(root / name)]
    monkeypatch.setattr(kind, "split_list", known)
    return root


# ---------------------------------------------------------------- images and labels


@pytest.mark.parametrize(
    ("name", "folder", "first", "last"),
    [
        ("fashion-mnist", "FashionMNIST", "T-shirt/top", "Ankle boot"),
        ("kmnist", "KMNIST", "o", "wo"),
    ],
)
def test_mnist_variants_are_read_with_their_classes(root: Path, name, folder, first, last):
    write_like_mnist(root, folder)
    data = prepare_dataset(name)
    assert data.spec.shape == (1, 28, 28)
    assert len(data.spec.classes) == 10
    assert (data.spec.classes[0], data.spec.classes[-1]) == (first, last)
    train, test = data.split("train"), data.split("test")
    assert np.array_equal(train.x[:, 0].numpy(), GREY)
    assert train.y.tolist() == [0, 9, 1, 2]
    assert np.array_equal(test.x[:, 0].numpy(), GREY[:2])
    assert test.y.tolist() == [3, 4]


@pytest.mark.parametrize(("variant", "classes"), VARIANTS.items())
def test_emnist_is_upright_and_its_labels_count_from_0(root: Path, variant: str, classes: int):
    upright = np.zeros((2, 28, 28), np.uint8)
    upright[0, 4:24, 6] = upright[0, 23, 6:20] = 255  # an L
    upright[1, 4, 6:22] = upright[1, 4:24, 14] = 255  # a T
    first = 1 if variant == "letters" else 0
    stored = upright.transpose(0, 2, 1)  # the source is column-major
    write_emnist(root, variant, stored, np.array([first, first + classes - 1]))
    data = prepare_dataset("emnist", variant=variant)
    assert np.array_equal(data.split("train").x[:, 0].numpy(), upright)
    assert data.split("test").y.tolist() == [0, classes - 1]
    assert len(data.spec.classes) == classes
    ends = (data.spec.classes[0], data.spec.classes[-1])
    assert ends == {62: ("0", "z"), 47: ("0", "t"), 26: ("a", "z"), 10: ("0", "9")}[classes]


def test_cifar_is_read_in_order_with_its_classes(cifar: Path):
    data = prepare_dataset("cifar10")
    assert data.spec.shape == (3, 32, 32)
    assert data.spec.classes == tuple("abcdefghij")
    assert np.array_equal(data.split("train").x.numpy(), COLOUR)
    assert data.split("train").y.tolist() == list(range(10))
    assert np.array_equal(data.split("test").x.numpy(), COLOUR[:2])


def test_svhn_is_read_with_ten_for_the_digit_zero(svhn: Path):
    data = prepare_dataset("svhn")
    assert data.spec.shape == (3, 32, 32)
    assert data.spec.classes == tuple("0123456789")
    for split in ("train", "test"):
        assert np.array_equal(data.split(split).x.numpy(), COLOUR)
        assert data.split(split).y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


# ---------------------------------------------------------------- missing and damaged files


MISSING = {
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "kmnist": "KMNIST/raw/t10k-labels-idx1-ubyte",
    "emnist": "EMNIST/raw/emnist-balanced-train-images-idx3-ubyte",
    "cifar10": "cifar-10-batches-py/data_batch_5",
    "svhn": "train_32x32.mat",
}


@pytest.mark.parametrize(("name", "file"), MISSING.items())
def test_missing_files_are_listed_with_the_fetch_command(cli, root, monkeypatch, name, file):
    monkeypatch.delenv("LATENTFORGE_DATA")
    answer = cli("train", "ae", "--data", name, "--set", f"data.root={root}")
    assert (answer.code, answer.out) == (4, "")
    assert "Traceback" not in answer.err
    assert f"images of {name} are not in {root}" in answer.err
    assert f"looked for {root / file}" in answer.err
    assert f"latentforge data fetch {name} --set root={root}" in answer.err
    assert "LATENTFORGE_DATA" in answer.err
    assert list(root.iterdir()) == []


def test_the_fetch_hint_names_the_variant(cli, root: Path):
    answer = cli("data", "show", "emnist", "--set", "variant=letters")
    assert answer.code == 4
    assert "latentforge data fetch emnist --set variant=letters" in answer.err
    assert "emnist-letters-train-images-idx3-ubyte" in answer.err


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:15],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:4] + b"\xff" * 4 + data[8:],
        lambda data: b"<!DOCTYPE html><html>404</html>",
        lambda data: idx(np.arange(5)),
    ],
    ids=["empty", "header", "short", "long", "huge", "web page", "labels"],
)
def test_a_damaged_idx_file_is_named(cli, root: Path, damage: Callable[[bytes], bytes]):
    path = write_like_mnist(root, "FashionMNIST") / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    answer = cli("data", "show", "fashion-mnist")
    assert (answer.code, answer.out) == (4, "")
    assert "Traceback" not in answer.err
    assert str(path) in answer.err
    assert "delete the damaged files yourself, then: latentforge data fetch" in answer.err


def test_labels_that_do_not_fit_the_images_are_refused(root: Path):
    write_idx(root / "KMNIST" / "raw", "t10k", GREY, np.arange(4))
    write_idx(root / "KMNIST" / "raw", "train", GREY, np.arange(3))
    with pytest.raises(MissingError, match="4 images and 3 labels"):
        load("kmnist")


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_with_a_wrong_md5_is_refused_before_loading(cifar: Path, name: str):
    ran = cifar / "ran"
    (cifar / name).write_bytes(pickle.dumps(Touch(ran)))
    with pytest.raises(
        MissingError, match=f"{cifar / name}: damaged, or a different file"
    ) as caught:
        load("cifar10")
    assert "data_batch_1" not in caught.value.message
    assert not ran.exists()
    pickle.loads((cifar / name).read_bytes())
    assert ran.exists()  # shows that unpickling runs code


def test_torchvision_also_refuses_a_pickle_with_a_wrong_md5(cifar: Path, root: Path):
    for name in ("data_batch_3", "batches.meta"):
        good = (cifar / name).read_bytes()
        (cifar / name).write_bytes(pickle.dumps(Touch(cifar / "ran")))
        with pytest.raises(RuntimeError, match="corrupted"):
            import_torchvision().datasets.CIFAR10(str(root))
        (cifar / name).write_bytes(good)
    assert not (cifar / "ran").exists()


def test_a_matlab_file_with_a_wrong_md5_is_refused(svhn: Path):
    path = svhn / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MissingError, match=f"{path}: damaged, or a different file"):
        load("svhn")
    assert len(load("svhn", "test").x) == 10


# ---------------------------------------------------------------- fetching


@pytest.mark.parametrize("name", MISSING)
def test_fetching_existing_files_reads_them_without_download(cli, root, cifar, svhn, name: str):
    write_like_mnist(root, "FashionMNIST")
    write_like_mnist(root, "KMNIST")
    write_emnist(root, "balanced", GREY, np.arange(4))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    answer = cli("data", "fetch", name, "--json")
    assert answer.code == 0, answer.err
    assert answer.json == {"dataset": name, "folder": str((root / MISSING[name]).parent)}
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_fetching_does_not_overwrite_unreadable_files(cli, svhn: Path):
    path = svhn / "test_32x32.mat"
    path.write_text("mine")
    answer = cli("data", "fetch", "svhn")
    assert (answer.code, answer.out) == (4, "")
    assert f"{path}: damaged, or a different file of the same name" in answer.err
    assert path.read_text() == "mine"


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a local HTTP server serves, and its URL."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def pack(files: list[Path], folder: Path) -> None:
    for path in files:
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))


def serve_kmnist(root: Path, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(list(write_like_mnist(root, "KMNIST").iterdir()), folder)
    kind = import_torchvision().datasets.KMNIST
    monkeypatch.setattr(kind, "mirrors", [url])
    sums = [(name, md5(folder / name)) for name, _ in kind.resources]
    monkeypatch.setattr(kind, "resources", sums)


def serve_emnist(root: Path, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(list(write_emnist(root, "balanced", GREY, np.arange(4)).iterdir()), folder)
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for path in folder.glob("*.gz"):
            archive.write(path, f"gzip/{path.name}")
    kind = import_torchvision().datasets.EMNIST
    monkeypatch.setattr(kind, "url", f"{url}gzip.zip")
    monkeypatch.setattr(kind, "md5", md5(folder / "gzip.zip"))


def serve_cifar(root: Path, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = import_torchvision().datasets.CIFAR10
    packed = folder / kind.filename
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(root / kind.base_folder, kind.base_folder)
    monkeypatch.setattr(kind, "url", url + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(packed))


def serve_svhn(root: Path, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = import_torchvision().datasets.SVHN
    for _, name, _ in kind.split_list.values():
        if (root / name).exists():
            shutil.copy(root / name, folder)
    table = {k: [url + name, name, known] for k, (_, name, known) in kind.split_list.items()}
    monkeypatch.setattr(kind, "split_list", table)


SERVERS = {
    "kmnist": serve_kmnist,
    "emnist": serve_emnist,
    "cifar10": serve_cifar,
    "svhn": serve_svhn,
}


@pytest.mark.parametrize(("name", "serve"), SERVERS.items())
@pytest.mark.filterwarnings("ignore:.*extract.*filter.*:DeprecationWarning")  # tarfile, 3.12, 3.13
def test_load_reads_the_fetched_files(
    cli, root: Path, cifar, svhn, served, monkeypatch: pytest.MonkeyPatch, name: str, serve
):
    folder, url = served
    serve(root, folder, url, monkeypatch)
    expected = [load(name, split) for split in ("train", "test")]
    shutil.rmtree(root)
    answer = cli("data", "fetch", name, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["folder"] == str((root / MISSING[name]).parent)  # and nothing else on stdout
    for split, before in zip(("train", "test"), expected, strict=True):
        after = load(name, split)
        assert np.array_equal(after.x, before.x)
        assert np.array_equal(after.y, before.y)


@pytest.mark.parametrize(("name", "serve"), SERVERS.items())
def test_a_failed_download_reports_the_cause_in_one_line(
    cli, root: Path, tmp_path: Path, cifar, svhn, monkeypatch: pytest.MonkeyPatch, name: str, serve
):
    serve(root, tmp_path, "http://127.0.0.1:9/", monkeypatch)
    shutil.rmtree(root)
    answer = cli("data", "fetch", name)
    assert (answer.code, answer.out) == (4, "")
    assert "Traceback" not in answer.err
    *_, error, cause, remedy = answer.err.splitlines()
    assert error == f"error: {name} could not be downloaded to {root}"
    assert "refused" in cause
    assert "try: check the network, or copy the files there: " in remedy
    assert MISSING[name] in remedy
