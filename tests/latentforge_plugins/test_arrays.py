from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from latentforge_plugins.arrays import ArraysConfig, load
from latentforge_plugins.arrays import splits as list_splits

from latentforge import Factor
from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare_whole
from latentforge.errors import RunFailed, UsageError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.random((12, 28, 20)).astype(np.float32)
RGB = RANDOM.integers(0, 256, (12, 9, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.npz"


def read(path: Path):
    return load(ArraysConfig(path), "train")


def load_split(path: Path, **options):
    config = DataConfig(**options)
    return prepare_whole({"train": read(path)}, "arrays", config).split("train")


# ---------------------------------------------------------------- accepted arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (GREY, GREY[:, None]),
        (RGB, RGB.transpose(0, 3, 1, 2)),
        (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),
        (RGB.transpose(0, 3, 1, 2)[..., :5], RGB.transpose(0, 3, 1, 2)[..., :5]),
        (RGB[..., :1], RGB[..., :1].transpose(0, 3, 1, 2)),
        (GREY.reshape(12, -1)[:, :30], GREY.reshape(12, -1)[:, :30]),
        (GREY.astype(np.float16), GREY.astype(np.float16)[:, None]),
        (GREY.astype(np.float64), GREY[:, None]),
        (GREY.astype(">f4"), GREY[:, None]),
        (GREY > 0.5, (GREY > 0.5)[:, None]),
        (np.asfortranarray(RGB), RGB.transpose(0, 3, 1, 2)),
    ],
    ids=lambda x: f"{x.dtype} {x.shape}",
)
def test_every_axis_order_and_dtype_gives_the_same_pixels(path: Path, save, x, expected):
    save(path, x=x)
    images = load_split(path)
    assert np.array_equal(images.x.numpy(), expected)
    assert images.y is None


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.uint64])
def test_labels_and_class_names_are_optional(path: Path, kind):
    np.savez(path, x=GREY, y=LABELS.astype(kind))
    assert load_split(path).y.tolist() == LABELS.tolist()
    assert load_split(path).spec.classes == ("0", "1", "2")
    np.savez(path, x=GREY, y=LABELS.astype(kind), classes=np.array(["cat", "dog", "eel", "fox"]))
    assert load_split(path).spec.classes == ("cat", "dog", "eel", "fox")


def test_control_characters_of_class_names_are_escaped(cli, path: Path):
    np.savez(path, x=GREY, y=LABELS, classes=np.array(["\x1b[31mred", "caf\xe9", "two\nlines"]))
    shown = cli("data", "show", "arrays", "--set", f"path={path}")
    assert shown.code == 0
    assert r"\x1b[31mred" in shown.out
    assert "café" in shown.out
    assert r"two\nlines" in shown.out
    assert "\x1b" not in shown.out


def test_rounding_errors_beyond_the_range_are_clamped(path: Path):
    np.savez(path, x=np.array([[0.0, 1.0000001], [-1e-8, 0.5]]))
    assert load_split(path).x.tolist() == [[0.0, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize("share", [0, 0.009, 0.05, 0.4])
@pytest.mark.parametrize("mark", [-9999.0, 500.0])
def test_a_mark_for_missing_values_is_named(path: Path, refused, mark, share):
    x = np.clip(GREY, 0.01, 0.99)
    x[0, 0, 0] = mark
    x[np.random.default_rng(1).random(x.shape) < share] = mark
    np.savez(path, x=x)
    said = refused()
    assert f"all but {(x == mark).sum()} of {x.size} in [0.01, 0.99]" in said
    code = said.partition("try: store ")[2].partition(", if the others")[0]
    np.savez(path, x=eval(code, {"numpy": np, "x": x}))
    assert load_split(path).x.max() > 0.9


@pytest.mark.parametrize(
    ("shape", "layout"), [((8, 9, 3, 20), "HWCN"), ((8, 9, 20), "HWN"), ((3, 8, 9, 20), "CHWN")]
)
def test_images_along_the_last_axis_are_recognised_by_the_labels(path, refused, shape, layout):
    np.savez(path, x=np.zeros(shape, np.uint8), y=np.arange(20) % 2)
    assert f"try: --set data.layout={layout}" in refused()


def test_two_arrays_with_one_role_are_refused(path: Path, refused):
    small, large = np.zeros((20, 4, 4), np.uint8), np.zeros((20, 8, 8), np.uint8)
    np.savez(path, data=small, images=large)
    assert "has the arrays 'data' and 'images', and it is not clear which contains" in refused()


def test_x_and_y_take_precedence_over_other_names(path: Path, caplog):
    x = np.zeros((20, 4, 4), np.uint8)
    np.savez(path, x=x, images=np.zeros((20, 8, 8)), label=np.ones(20), y=np.arange(20) % 2)
    arrays = read(path)
    assert arrays.x.shape == x.shape
    assert arrays.y.tolist() == [0, 1] * 10
    assert "2 arrays are not read: 'images', 'label'" in caplog.text


def test_factors_are_read_for_each_split(path: Path, caplog):
    x, angle = np.zeros((6, 4, 4), np.uint8), np.linspace(-1, 1, 6)
    shape = np.array(["disc", "square"])[np.arange(6) % 2]
    tests = {"factor_Angle_test": angle + 1, "test_factor_shape": shape[::-1]}
    trains = {"train_factor_Angle": angle, "factor_shape": shape}
    extra = {"factor_Angle_val": angle, "factor_": angle}
    np.savez(path, x_train=x, x_test=x, **trains, **tests, **extra)
    config = ArraysConfig(path)
    data = {split: load(config, split) for split in list_splits(config)}
    assert "2 arrays are not read: 'factor_', 'factor_Angle_val'" in caplog.text
    splits = prepare_whole(data, "arrays", DataConfig())
    assert splits.spec.factors == (Factor("Angle"), Factor("shape", ("disc", "square")))
    train, test = (splits.split(name).factors for name in ("train", "test"))
    assert train["Angle"].tolist() == pytest.approx(angle)
    assert test["Angle"].tolist() == pytest.approx(angle + 1)
    assert (train["shape"].tolist(), test["shape"].tolist()) == ([0, 1] * 3, [1, 0] * 3)


def test_factors_without_the_name_of_a_split_are_those_of_x(path: Path):
    x = np.zeros((6, 4, 4), np.uint8)
    np.savez(path, x=x, factor_test=np.arange(6.0), factor_size=np.arange(6) > 2)
    factors = load_split(path).factors
    assert factors["test"].tolist() == [*range(6)]  # its name, not a split
    assert factors["size"].tolist() == [0, 0, 0, 1, 1, 1]


def test_faulty_factors_are_refused_by_name(path: Path):
    x = np.zeros((6, 4, 4), np.uint8)
    np.savez(path, x=x, factor_size=np.arange(6.0), train_factor_size=np.arange(6.0))
    with pytest.raises(UsageError, match="'factor_size' and 'train_factor_size', which are the sa"):
        load_split(path)
    np.savez(path, x=x, factor_size=np.arange(5.0))
    with pytest.raises(UsageError, match="factor 'size' has 5 values, but x has 6 examples"):
        load_split(path)


def test_arrays_that_are_not_read_are_announced(path: Path, caplog):
    x = np.zeros((20, 4, 4), np.uint8)
    np.savez(path, x_train=x, x_test=x, y_val=np.zeros(20), meta=np.zeros(3))
    read(path)
    assert "2 arrays are not read: 'meta', 'y_val'" in caplog.text


def test_unknown_keys_are_not_read(path: Path):
    np.savez(path, x=GREY, notes=np.array([{"a": 1}], dtype=object), z=RGB)
    data = bytearray(path.read_bytes())
    data[data.rindex(RGB.tobytes()[-32:])] ^= 255  # z fails its checksum
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "z.npy"
    assert np.array_equal(read(path).x, GREY)


# ---------------------------------------------------------------- refused arrays, from the CLI


class Touch:
    """Unpickling an instance creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def refused(cli, path: Path):
    """Runs `data show` on an invalid file; returns its stderr, which names the file."""

    def call(code: int = 2) -> str:
        answer = cli("data", "show", "arrays", "--set", f"path={path}")
        assert (answer.code, answer.out) == (code, "")
        assert "Traceback" not in answer.err
        assert str(path) in answer.err
        return answer.err

    return call


def with_value(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x[3, 2, 1] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": LABELS}, "has no key x; existing keys: 'y'"),
        ({"pictures": GREY, "z": GREY}, "has no key x; existing keys: 'pictures', 'z'"),
        ({"x_test": GREY}, "has x_test, but no images for training"),
        (
            {"x": np.array([{}, [1, 2]], dtype=object)},
            ": x contains Python objects, which LatentForge",
        ),
        ({"x": np.float32(3)}, ": x has shape ()"),
        ({"x": np.arange(5, dtype=np.uint8)}, ": x has shape (5,)"),
        ({"x": RGB[None]}, ": x has shape (1, 12, 9, 8, 3)"),
        ({"x": GREY[:0]}, ": x has no examples: its shape is (0, 28, 20)"),
        ({"x": GREY[:, :0]}, ": x has no examples: its shape is (12, 0, 20)"),
        ({"x": np.zeros((3, 6, 4, 5))}, ": x has shape (3, 6, 4, 5), which can be read in two"),
        ({"x": with_value(GREY, np.nan)}, ": 1 of 6720 values of x is NaN or infinite"),
        ({"x": with_value(GREY, -np.inf)}, ": 1 of 6720 values of x is NaN or infinite"),
        ({"x": with_value(GREY, -0.25)}, ": x is float32 with values in [-0.25, "),
        ({"x": with_value(GREY * 0, 255.0)}, "values in [0, 255], but values must be in [0, 1]"),
        ({"x": RGB.astype(np.int64)}, ": x is int64 with values in [0, 255], and no value is"),
        ({"x": GREY.astype(complex)}, ": x has values of type complex128"),
        ({"x": np.array([["a", "b"]])}, ": x has values of type str"),
        ({"x": np.zeros((3, 2), dtype=[("a", "f4")])}, ": x has values of type void"),
        ({"x": GREY, "y": LABELS[:-1]}, ": y has shape (11,), but x has 12 examples"),
        ({"x": GREY, "y": np.ones((12, 2))}, ": y has shape (12, 2), but x has 12 examples"),
        ({"x": GREY, "y": LABELS / 2}, ": y has 3 different real numbers in [0, 1]"),
        ({"x": GREY, "y": np.array([{}] * 12)}, ": y contains Python objects"),
        ({"x": GREY, "y": LABELS - 1}, ": 4 labels are -1, which can be a class or mean that"),
        (
            {"x": GREY, "y": LABELS, "classes": np.array(["a", "b"])},
            ": labels go from 0 to 2; they must go from 0 to 1 for the 2 classes",
        ),
        (
            {"x": GREY, "y": LABELS, "classes": np.arange(3)},
            ": classes has dtype int64 and shape (3,); class names must be a one-dimensional "
            "array of strings",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_an_invalid_array_is_refused_with_its_key(path: Path, refused, arrays, message: str):
    np.savez(path, **arrays)
    assert message in refused()


@pytest.mark.parametrize(
    ("x", "levels"),
    [
        (GREY * 255, {"white": 255}),
        (GREY.round() * 2 - 1, {"black": -1, "white": 1}),
        (np.linspace(-10.0, 900.0, 40).reshape(20, 2), {"black": -10, "white": 900}),
        (RGB.astype(int), {"white": 255}),
        (GREY * 6.9077, {"white": 6.91}),
        (101324.63 + 12.34 * GREY.astype(float), {"black": 101324.6, "white": 101337}),
        (np.linspace(260.0, 300.0, 40).reshape(20, 2), {"black": 260, "white": 300}),
        (np.linspace(190.5, 250.0, 40).reshape(20, 2), {"black": 190.5, "white": 250}),
        (np.arange(2020).reshape(20, 101) % 101 + 3000, {"black": 3000, "white": 3100}),
        (RGB.astype(np.int32) * 16, {"white": 4095}),
        (GREY.round(1) * 160 // 10, {"white": 16}),
        (np.arange(257.0 * 20).reshape(20, 257) % 257, {"white": 256}),
        (np.arange(2020).reshape(20, 101) % 101, {"white": 100}),
    ],
)
def test_the_suggested_levels_use_the_whole_range(path: Path, refused, cli, x, levels):
    np.savez(path, x=x)
    suggestion = " ".join(f"--set data.{key}={value}" for key, value in levels.items())
    before = ", or " if x.ndim == 2 else "try: "  # vectors may be real numbers or counts
    assert refused().endswith(f"{before}{suggestion}\n")
    line = ["data", "show", "arrays", "--set", f"data.path={path}", *suggestion.split(), "--json"]
    low, high = cli(*line).json["range"]
    assert 0 <= low < 0.2
    assert 0.95 < high <= 1
    stored = prepare_whole({"train": read(path)}, "arrays", DataConfig(**levels)).split("train").x
    assert len(stored.unique()) > 0.9 * len(np.unique(x.astype(np.float32)))  # levels are kept


def npz_bytes(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_bytes() -> bytes:
    file = io.BytesIO()
    np.save(file, GREY)
    return file.getvalue()


GOOD = npz_bytes(x=GREY, y=LABELS)
HEADER = GOOD.index(b"{'descr'")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an .npz file"),
        (b"x,y\n1,2\n", "is not an .npz file"),
        (npy_bytes(), "is a single array (.npy), not an .npz file"),
        (GOOD[:-30], "is truncated or damaged"),
        (GOOD[: len(GOOD) // 2], "is truncated or damaged"),
        (GOOD[:9000] + bytes([GOOD[9000] ^ 1]) + GOOD[9001:], ": x is truncated or damaged"),
        (GOOD[:HEADER] + b"(" + GOOD[HEADER + 1 :], ": x is truncated or damaged"),
        (GOOD.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03", 1), ": x is truncated or damaged"),
        (GOOD.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09", 1), ": x is truncated or damaged"),
        (GOOD.replace(b"\x93NUMPY", b"\x00NUMPY", 1), ": x is truncated or damaged"),
    ],
    ids=["empty", "csv", "npy", "end", "half", "bit", "header", "v3", "v9", "magic"],
)
def test_damaged_files_and_other_formats_are_refused(path: Path, refused, data: bytes, message):
    path.write_bytes(data)
    assert message in refused()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_unknown_to_numpy_is_refused(path: Path, refused, method: int):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", npy_bytes())
    assert "x is truncated or damaged" in refused()


def test_a_missing_file_or_a_folder_is_refused(path: Path, refused, cli):
    assert "does not exist" in refused(4)
    path.mkdir()
    assert "is not an .npz file" in refused()
    answer = cli("train", "ae", "--data", "arrays")
    assert (answer.code, answer.out) == (2, "")
    assert "data.path is not given" in answer.err


def test_objects_are_never_unpickled(path: Path, tmp_path: Path, refused):
    malicious = {key: np.array([Touch(tmp_path / key)] * 12, dtype=object) for key in ("x", "y")}
    for arrays in ({"x": malicious["x"]}, {"x": GREY, "y": malicious["y"]}):
        np.savez(path, **arrays)
        assert "contains Python objects, which LatentForge does not unpickle" in refused()
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y").exists()
    np.load(path, allow_pickle=True)["y"]
    assert (tmp_path / "y").exists()  # shows that unpickling runs code


def forge_npz(shape: str, directory: bool) -> bytes:
    """Return an npz whose header of x declares `shape`; with `directory`, the zip sizes agree."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(1000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
    data = file.getvalue()
    if directory:
        true, false = len(member).to_bytes(4, "little"), (128 + 3_000_000_000).to_bytes(4, "little")
        assert data.count(true) == 2  # in the member's own header and in the directory
        data = data.replace(true, false)
    return data


@pytest.mark.parametrize("directory", [False, True], ids=["header", "header and directory"])
def test_a_forged_size_allocates_nothing(path: Path, directory: bool):
    path.write_bytes(forge_npz("(30000, 100000)", directory))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="the header declares 3000000128 bytes") as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert f"{path}: x is truncated or damaged" in str(caught.value)


@pytest.mark.parametrize("shape", ["(-1, -1000)", "(10**30, 2)", "(2.0, 500)", "9"])
def test_an_invalid_shape_is_refused(path: Path, shape: str):
    path.write_bytes(forge_npz(shape, directory=False))
    with pytest.raises(UsageError, match=r"x is truncated or damaged|x has shape"):
        read(path)


# ---------------------------------------------------------------- official splits


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_valid", "Y_valid", "X_test", "Y_test"),
    ],
)
def test_splits_are_recognised_by_the_names_of_the_arrays(cli, path: Path, keys):
    parts = (GREY[:6], LABELS[:6], GREY[6:9], LABELS[6:9], GREY[9:], LABELS[9:])
    np.savez(path, **dict(zip(keys, parts, strict=True)))
    shown = cli("data", "show", "arrays", "--set", f"path={path}", "--json").json
    assert shown["images"] == {"train": 6, "validation": 3, "test": 3}
    assert np.array_equal(load(ArraysConfig(path), "test").x, GREY[9:])
    assert load(ArraysConfig(path), "test").y.tolist() == LABELS[9:].tolist()


# ---------------------------------------------------------------- .npy


@pytest.mark.parametrize("shape", [(20, 6, 5), (20, 6, 5, 3), (20, 3, 6, 5), (20, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_streamed_npy_file_gives_the_batches_of_a_loaded_one(tmp_path, shape, dtype):
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, shape, np.uint8) if dtype is np.uint8 else draw.random(shape)
    np.save(tmp_path / "x.npy", x.astype(dtype))
    np.save(tmp_path / "y.npy", np.arange(20) % 3)
    config = ArraysConfig(tmp_path / "x.npy", tmp_path / "y.npy")
    both = [
        prepare_whole({"train": load(config, "train")}, "a", DataConfig(stream=mode))
        for mode in ("always", "never")
    ]
    one, other = (splits.split("train") for splits in both)
    assert both[0].spec == both[1].spec
    for batch, same in zip(one.batches(8), other.batches(8), strict=True):
        assert torch.equal(batch.x, same.x)
        assert torch.equal(batch.y, same.y)
        assert torch.equal(batch.index, same.index)


def test_truncated_and_mismatched_npy_files_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 3, 3), np.uint8))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UsageError, match=r"x\.npy: the array is truncated"):
        load(ArraysConfig(path), "train")
    np.save(path, np.asfortranarray(np.zeros((4, 3, 3), np.uint8)))
    with pytest.raises(UsageError, match="Fortran order"):
        load(ArraysConfig(path), "train")
    np.save(path, np.zeros((4, 3, 3), np.uint8))
    np.save(tmp_path / "y.npy", np.zeros(5, np.int64))
    with pytest.raises(UsageError, match=r"y\.npy: the array has shape \(5,\), but x has 4"):
        load(ArraysConfig(path, tmp_path / "y.npy"), "train")
    with pytest.raises(UsageError, match=r"data\.labels can only be used with an \.npy"):
        load(ArraysConfig(tmp_path / "x.npz", tmp_path / "y.npy"), "train")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"data\.path: .*x\.npy is not an \.npy file"),
        (GOOD, r"data\.path: .*x\.npy is not an \.npy file"),
        (npy_bytes() + b"!", r"x\.npy: the array is truncated or damaged"),
        (npy_bytes().replace(b"(12, 28", b"(99, 28"), r"x\.npy: the array is truncated or damaged"),
        (npy_bytes().replace(b"(12, 28", b"(-1, 28"), r"x\.npy: the array is truncated or damaged"),
    ],
    ids=["empty", "npz", "longer", "forged", "negative"],
)
def test_damaged_npy_files_are_refused(tmp_path, data, message):
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        load(ArraysConfig(path), "train")


def test_npy_files_with_objects_or_no_examples_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([Touch(tmp_path / "touched")] * 12, dtype=object))
    with pytest.raises(
        UsageError, match=r"x\.npy: the array contains Python objects, which LatentForge does not"
    ):
        load(ArraysConfig(path), "train")
    assert not (tmp_path / "touched").exists()
    np.save(path, GREY[:0])
    with pytest.raises(
        UsageError, match=r"x\.npy: the array has no examples: its shape is \(0, 28, 20\)"
    ):
        load(ArraysConfig(path), "train")


def test_streamed_floats_beyond_1_are_reported_on_read(tmp_path):
    x = np.full((40, 3, 3), 0.5, np.float32)
    np.save(tmp_path / "x.npy", x)
    given = {"train": load(ArraysConfig(tmp_path / "x.npy"), "train")}
    images = prepare_whole(given, "a", DataConfig(stream="always")).split("train")
    x[7, 1, 1] = 9.0
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(RunFailed, match=r"example 7: x is float32 with values in \[0\.5, 9\]"):
        images.batch_at([3, 7])


def test_keys_may_be_the_names_of_the_splits(path: Path):
    train, test = np.zeros((9, 4, 4), np.uint8), np.ones((3, 4, 4), np.uint8)
    np.savez(path, train=train, test=test)
    assert [*list_splits(ArraysConfig(path))] == ["train", "test"]
    assert load(ArraysConfig(path), "test").x.max() == 1
    np.savez(path, train=np.arange(9), x=train)  # indices
    assert load(ArraysConfig(path), "train").x.shape == (9, 4, 4)


def test_the_mark_is_counted_in_all_values_of_a_large_array(path: Path, refused):
    x = np.random.default_rng(0).random((300, 30, 30)).astype(np.float32)
    x.flat[::4001] = -9999
    np.savez(path, x=x)
    said = refused()
    assert f"all but {(x < 0).sum()} of {x.size}" in said
    low, high = (float(text) for text in said.partition("clip(x, ")[2].partition(")")[0].split(","))
    assert (low, high) == (pytest.approx(x[x >= 0].min(), rel=1e-5), pytest.approx(x.max()))


def test_marks_near_the_values_are_named_too(path: Path, refused):
    x = 500 + np.random.default_rng(0).random((100, 8, 8)) * 3500
    x.flat[::10] = -9999
    np.savez(path, x=x)
    said = refused()
    assert "numpy.clip(x, 500" in said
    assert ", or else --set data.black=-10000" in said


def test_the_largest_uint16_may_mark_missing_values(path: Path, caplog):
    x = np.random.default_rng(0).integers(0, 4096, (30, 8, 8)).astype(np.uint16)
    x.flat[::50] = 65535
    np.savez(path, x=x)
    load_split(path)
    assert f"{(x == 65535).sum()} values are 65535 and the others go up to 40" in caplog.text


@pytest.mark.parametrize(("low", "levels"), [(-0.001, (-0.001, 1)), (-0.05, (-0.05, 0.05))])
def test_levels_of_small_negative_values_use_the_whole_range(path: Path, refused, low, levels):
    x = np.linspace(*levels, 640, dtype=np.float32).reshape(10, 8, 8)
    np.savez(path, x=x)
    options = dict(
        part.split("=") for part in refused().partition("try: ")[2].split() if "=" in part
    )
    scaled = load_split(path, **{key[5:]: float(value) for key, value in options.items()}).x
    assert float(scaled.max() - scaled.min()) > 0.9
