"""`encode` and `decode`: file contents, round trips and refusals."""

from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from latentforge import LatentSpec
from latentforge.errors import PluginError, UsageError
from latentforge.latent import DiagonalGaussian
from latentforge.workflows.encode import encode_batch

from ..params import slow_except

SPLITS = ("train", "validation", "test")


def arrays_in(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def digits(forge, split="test"):
    """All images of a split as one batch."""
    images = forge.load_data("digits").split(split)
    return images.batch_at(range(len(images)))


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize(
    ("model", "suffix"),
    slow_except(
        [("vae", "npz"), ("spatial", "parquet")],
        itertools.product(("ae", "vae", "spatial"), ("npz", "parquet")),
    ),
)
def test_encode_then_decode_equals_the_model_reconstruction(forge, run_of, tmp_path, model, suffix):
    run, x = run_of(model), digits(forge).x
    forge.encode(run, tmp_path / f"codes.{suffix}", split="test")
    forge.decode(run, tmp_path / f"codes.{suffix}", tmp_path / "out")
    network = run.load_model()
    expected = network.decode(network.encode(x).mode())
    decoded = arrays_in(tmp_path / "out" / "decoded.npz")["x"]
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)


def test_decode_accepts_arrays_flat_or_in_the_latent_shape(forge, run_of, tmp_path):
    run, z = run_of("spatial"), torch.randn(5, 2, 7, 7)
    expected = run.load_model().decode(z)
    for i, codes in enumerate((z, z.flatten(1), z.double().numpy())):
        said = forge.decode(run, codes, tmp_path / str(i))
        decoded = arrays_in(tmp_path / str(i) / "decoded.npz")["x"]
        np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)
        assert said["images"] == 5


@pytest.mark.parametrize("suffix", slow_except(["npz"], ["npz", "parquet"]))
def test_codes_of_another_run_are_decoded_with_a_warning(cli, runs, suffix):
    codes = f"codes.{suffix}"
    cli("encode", "runs/ae", "--out", codes)
    (runs / "ae").rename(runs / "moved")
    assert cli("decode", "runs/moved", codes, "--out", "same").err == ""

    small = ("--set", "model.hidden=[32]", "--set", "model.latent_dim=4")
    small += ("--epochs", 1, "--batch-size", 999, "--quiet")
    for name, options, differing in (
        ("wide", ("--set", "model.hidden=[48]"), "model, train, checkpoint"),
        ("black", ("--set", "data.binarize=threshold"), "train, data, checkpoint"),
    ):
        assert cli("train", "ae", *small, *options, "--run", f"runs/{name}").code == 0
        answer = cli("decode", f"runs/{name}", codes, "--out", name)
        assert answer.code == 0
        assert f"the codes of {codes} were made by runs/ae (step-000000" in answer.err
        assert f"are decoded by runs/{name} (step-000000" in answer.err
        assert f"which differs in {differing}\n" in answer.err


def test_codes_of_another_checkpoint_are_decoded_with_a_warning(forge, tmp_path, caplog):
    train, other = np.random.default_rng(0).random((2, 30, 40), np.float32)
    run = forge.train(
        "ae",
        data={"train": train, "validation": other, "test": other},
        train={"epochs": 15, "lr": 3e-2},  # a rate so large that the first epoch is the best
        run=tmp_path / "run",
        quiet=True,
    )
    made = {c: forge.encode(run, tmp_path / f"{c}.npz", checkpoint=c) for c in ("last", "best")}
    last, best = (made[c]["checkpoint"] for c in ("last", "best"))
    assert last != best
    caplog.clear()
    forge.decode(run, tmp_path / "last.npz", tmp_path / "a")
    assert not caplog.records
    forge.decode(run, tmp_path / "best.npz", tmp_path / "b")
    assert f"made by {run.path} ({best})" in caplog.messages[0]
    assert f"by {run.path} ({last}), which differs in checkpoint" in caplog.messages[0]


def test_codes_of_other_in_memory_data_give_a_warning(forge, tmp_path, caplog):
    for i in range(2):
        x = np.random.default_rng(i).random((60, 30), np.float32)
        forge.train("ae", data=x, train={"epochs": 1}, run=tmp_path / str(i), quiet=True)
        forge.encode(tmp_path / str(i), tmp_path / f"{i}.npz", data=x)
    forge.decode(tmp_path / "0", tmp_path / "0.npz", tmp_path / "a")
    assert not caplog.records
    forge.decode(tmp_path / "0", tmp_path / "1.npz", tmp_path / "b")
    assert caplog.messages[0].endswith("which differs in data")


@pytest.mark.parametrize(
    "said", [None, "no JSON", "[]", "{}", '{"config": 1, "run": 2, "checkpoint": 3}', 7]
)
def test_codes_without_metadata_are_decoded_without_a_warning(cli, runs, said):
    about = {} if said is None else {"latentforge": np.array(said)}
    np.savez("codes.npz", z=np.zeros((3, 4)), **about)
    answer = cli("decode", "runs/ae", "codes.npz", "--out", "out")
    assert (answer.code, answer.err) == (0, "")


# ---------------------------------------------------------------- file contents


def test_parquet_file_has_one_row_per_image_in_row_groups(forge, run_of, tmp_path):
    run, path = run_of("vae"), tmp_path / "codes.parquet"
    said = forge.encode(run, path, split="all")
    file = parquet.ParquetFile(path)
    table = file.read()
    names = ["index", "split", "source", "label", "label_id", "kl", "z", "image"]
    assert table.schema.names == said["columns"] == names
    assert str(table.schema.field("z").type) == "fixed_size_list<element: float>[4]"
    assert str(table.schema.field("image").type) == "struct<bytes: binary, path: string>"
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [1000, 294, 144, 359]  # train, train, validation, test
    assert said["images"] == {"train": 1294, "validation": 144, "test": 359}

    rows, start, network = table.to_pylist(), 0, run.load_model()
    for split in SPLITS:
        batch = digits(forge, split)
        part = rows[start : start + len(batch.x)]
        start += len(batch.x)
        assert {row["split"] for row in part} == {split}
        assert [row["index"] for row in part] == list(range(len(part)))
        assert [row["label_id"] for row in part] == batch.y.tolist()
        assert [row["label"] for row in part] == [str(y) for y in batch.y.tolist()]
        posterior = network.encode(batch.x)
        z = torch.tensor([row["z"] for row in part])
        torch.testing.assert_close(z, posterior.mean, rtol=0, atol=1e-6)
        exact = torch.distributions.kl_divergence(
            torch.distributions.Normal(posterior.mean, (posterior.log_var / 2).exp()),
            torch.distributions.Normal(0.0, 1.0),
        ).sum(1)
        kl = torch.tensor([row["kl"] for row in part])
        torch.testing.assert_close(kl, exact, rtol=1e-4, atol=1e-4)
        pixels = [np.array(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in part]
        stored = forge.load_data("digits").split(split).x
        assert np.array_equal(np.stack(pixels), stored[:, 0].numpy())
    assert start == len(rows)
    assert rows[-1]["image"]["path"] == "test-358.png"


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_codes_file_records_run_data_and_checkpoint(forge, run_of, tmp_path, suffix):
    run, path = run_of("vae"), tmp_path / f"codes.{suffix}"
    forge.encode(run, path)
    if suffix == "npz":
        about = json.loads(str(arrays_in(path)["latentforge"]))
    else:
        about = json.loads(parquet.read_schema(path).metadata[b"latentforge"])
    assert (about["run"], about["checkpoint"]) == (str(run.path), "step-00000003")
    assert about["config"] == run.config
    assert about["latent"] == {"shape": [4], "prior": "normal"}
    assert about["encoded"]["name"] == "digits"
    assert about["encoded"]["images"] == {"test": 359}
    assert about["encoded"]["fingerprint"] == run.manifest["data"]["fingerprint"]
    assert about["encoded"]["preprocessing"] == run.manifest["data"]["preprocessing"]


def test_npz_file_has_flat_arrays_without_pickle(forge, run_of, tmp_path):
    forge.encode(run_of("vae"), tmp_path / "codes.npz", split="all")
    arrays = arrays_in(tmp_path / "codes.npz")
    assert set(arrays) == {"z", "index", "split", "source", "y", "kl", "latentforge"}
    assert (arrays["z"].shape, arrays["z"].dtype) == ((1797, 4), np.float32)
    assert arrays["y"].tolist() == [int(y) for s in SPLITS for y in digits(forge, s).y]
    assert list(dict.fromkeys(arrays["split"].tolist())) == list(SPLITS)
    assert (arrays["kl"] > 0).all()
    forge.encode(run_of("spatial"), tmp_path / "more.npz")
    more = arrays_in(tmp_path / "more.npz")
    assert more["z"].shape == (359, 2 * 7 * 7)
    assert "kl" not in more
    assert json.loads(str(more["latentforge"]))["latent"]["shape"] == [2, 7, 7]


def test_the_kl_to_a_prior_that_knows_it_is_encoded():
    class Prior:
        def kl(self, posterior):
            return posterior.kl_to(DiagonalGaussian(torch.ones(2), torch.zeros(2)))

    model = SimpleNamespace(latent=LatentSpec((2,), "own"), prior=Prior)
    model.encode = lambda x: DiagonalGaussian(x, torch.zeros_like(x))
    x = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    z, kl = encode_batch(model, x, None, {"encode", "prior", "log_prob", "variational"})
    assert torch.equal(z, x)
    torch.testing.assert_close(kl, torch.tensor([0.0, 2.5]))


def test_vector_data_gives_no_images(forge, tmp_path):
    x = np.random.default_rng(0).random((60, 30), np.float32)
    run = forge.train("ae", data=x, train={"epochs": 1}, run=tmp_path / "run", quiet=True)
    said = forge.encode(run, tmp_path / "codes.parquet", split="all")
    assert said["columns"] == ["index", "split", "source", "z"]
    forge.decode(run, tmp_path / "codes.parquet", tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"decoded.npz", "contact-sheet.png", "decode.json"}
    assert arrays_in(tmp_path / "out" / "decoded.npz")["x"].shape == (60, 30)


def test_images_keep_colours_and_large_ones_become_thumbnails(forge, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 20, 32), np.uint8)
    large = np.repeat(np.repeat(x, 8, axis=2), 8, axis=3)
    for name, images, size in (("small", x, (32, 20)), ("large", large, (128, 80))):
        run = forge.train(
            "ae",
            data=images,
            model={"hidden": [4]},
            train={"epochs": 1},
            run=tmp_path / name,
            quiet=True,
        )
        forge.encode(run, tmp_path / f"{name}.parquet", data=images)
        rows = parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
        picture = Image.open(io.BytesIO(rows[0]["image"]["bytes"]))
        assert (picture.size, picture.mode) == (size, "RGB")
        if name == "small":
            kept = run.in_memory.split("test").x[0].permute(1, 2, 0).numpy()
            assert np.array_equal(np.array(picture), kept)


# ---------------------------------------------------------------- other data


def test_another_dataset_is_encoded_with_its_own_options(cli, runs):
    line = ("encode", "runs/ae", "--data", "digits", "--json")
    answer = cli(*line, "--set", "test=0.5", "--out", "a.npz")
    assert answer.json["images"] == {"test": 898}
    answer = cli(*line, "--set", "size=12", "--out", "b.npz")
    assert answer.code == 2
    assert "images of shape (1, 28, 28), this data has shape (1, 12, 12)" in answer.err
    assert not Path("b.npz").exists()


def test_other_dataset_is_binarized_like_the_training_data(cli, work):
    small = ("--set", "model.hidden=[8]", "--epochs", 1, "--batch-size", 999, "--quiet")
    assert cli("train", "ae", *small, "--set", "data.binarize=threshold", "--run", "r").code == 0
    assert cli("encode", "r", "--data", "digits", "--out", "a.parquet").code == 0
    first = parquet.read_table("a.parquet").to_pylist()[0]["image"]["bytes"]
    assert set(np.array(Image.open(io.BytesIO(first))).ravel().tolist()) == {0, 255}


def test_data_without_splits_is_encoded_once(forge, run_of, tmp_path):
    data = (np.zeros((40, 28, 28), np.uint8), np.arange(40) % 3)
    said = forge.encode(run_of("ae"), tmp_path / "codes.npz", data=data, split="all")
    assert sum(said["images"].values()) == 40
    arrays = arrays_in(tmp_path / "codes.npz")
    assert arrays["y"].tolist() == data[1].tolist()
    assert json.loads(str(arrays["latentforge"]))["encoded"]["name"] == "in-memory"


# ---------------------------------------------------------------- decoded images


def test_decode_writes_images_and_a_contact_sheet(cli, runs):
    cli("encode", "runs/ae", "--split", "all", "--out", "codes.npz")
    answer = cli("decode", "runs/ae", "codes.npz", "--out", "out")
    assert answer.out.splitlines() == [
        "1797 images, 1000 of them as PNG",
        *(f"out/{name}" for name in ("decoded.npz", "contact-sheet.png", "images", "decode.json")),
    ]
    drawn = sorted(path.name for path in Path("out/images").iterdir())
    assert drawn == [f"{i:04}.png" for i in range(1000)]
    x = arrays_in("out/decoded.npz")["x"]
    assert x.shape == (1797, 1, 28, 28)
    for i in (0, 999):
        picture = np.array(Image.open(f"out/images/{i:04}.png"))
        assert np.array_equal(picture, np.round(x[i, 0] * 255).astype(np.uint8))
    height, width = np.array(Image.open("out/contact-sheet.png")).shape[:2]
    assert min(height, width) > 10 * 28
    about = json.loads(Path("out/decode.json").read_text())
    assert (about["codes"], about["images"], about["run"]) == ("codes.npz", 1797, "runs/ae")


def test_counts_of_signals_are_not_called_images(cli, work):
    np.savez("waves.npz", x=np.random.default_rng(0).random((50, 12), np.float32))
    data = ("--data", "arrays", "--set", "data.path=waves.npz", "--set", "data.layout=signal")
    assert cli("train", "ae", *data, "--epochs", 1, "--quiet", "--run", "run").code == 0
    _, counts, columns = cli("encode", "run", "--out", "codes.npz").out.splitlines()
    assert counts.startswith("signals: test ")
    assert columns.startswith("columns: z, ")
    count = counts.removeprefix("signals: test ")
    drawn = cli("decode", "run", "codes.npz", "--out", "out").out.splitlines()[0]
    assert drawn == f"{count} signals, 0 of them as PNG"


@pytest.mark.parametrize("layout", ["auto", "signal"])
def test_decoded_vectors_and_signals_are_drawn_as_curves(forge, tmp_path, layout):
    x = np.random.default_rng(0).random((50, 12), np.float32)
    train, data = {"epochs": 1}, {"train": x, "test": x, "layout": layout}
    run = forge.train("ae", data=data, train=train, run=tmp_path / "ae", quiet=True)
    found = forge.decode(run, torch.zeros(30, 16), tmp_path / "out")
    assert (found["images"], found["pictures"]) == (30, 0)
    names = ["decoded.npz", "contact-sheet.png", "decode.json"]
    assert [Path(file).name for file in found["files"]] == names
    with Image.open(tmp_path / "out/contact-sheet.png") as picture:
        width, height = picture.size
    assert width > height > 4 * 80  # four rows of six panels


def test_encode_prints_counts_and_columns(cli, runs):
    answer = cli("encode", "runs/ae", "--split", "test", "--out", "deep/codes.npz")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "deep/codes.npz",
        "images:  test 359",
        "columns: z, index, split, source, y, latentforge",
    ]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("command", ["encode runs/ae --out c.parquet", "decode runs/ae c.parquet"])
def test_a_missing_extra_is_named(cli, runs, monkeypatch, command):
    Path("c.parquet").write_bytes(b"") if "decode" in command else None
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = cli(*command.split(), *(["--out", "out"] if "decode" in command else []))
    assert answer.code == 4
    assert "Parquet needs pyarrow (not installed)" in answer.err
    assert "pip install 'latentforge[embed]'" in answer.err


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


GOOD = np.zeros((6, 4), np.float32)


def flipped(content: bytes) -> bytes:
    """Changes one byte of the values, so that the checksum in the zip does not match."""
    return content.replace(bytes(16), bytes(15) + b"\1", 1)


BAD_CODES = {
    "no zip": (b"no zip", "is not an .npz file"),
    "a byte changed": (flipped(npz(z=GOOD)), "Bad CRC-32"),
    "no z": (npz(a=GOOD, b=GOOD), "has no key z; existing keys: 'a', 'b'"),
    "pickled": (
        npz(z=np.array([{}], object)),
        "Python objects, which LatentForge does not unpickle",
    ),
    "text": (npz(z=np.array([["a"]])), "is <U1, not numbers"),
    "complex": (npz(z=GOOD.astype(complex)), "is complex128, not numbers"),
    "width": (npz(z=np.zeros((6, 5))), "z has shape (6, 5); codes of runs/ae have shape (4,)"),
    "one code": (npz(z=np.zeros(4)), "z has shape (4,); codes of runs/ae have shape (4,), so z"),
    "none": (npz(z=np.zeros((0, 4))), "z has shape (0, 4)"),
    "nan": (npz(z=np.array([[0.0] * 4, [0, np.nan, np.inf, 0]])), "1 of 2 codes is NaN or inf"),
}


@pytest.mark.parametrize("name", BAD_CODES)
def test_invalid_codes_are_refused(cli, runs, name):
    content, said = BAD_CODES[name]
    Path("codes.npz").write_bytes(content)
    answer = cli("decode", "runs/ae", "codes.npz", "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert "codes.npz" in answer.err
    assert said in answer.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [1.0]}, "has no column 'z'"),
        ({"z": [1.0, 2.0]}, "lists of numbers"),
        ({"z": [[1.0], [1.0, 2.0]]}, "lists of numbers of equal length"),
        ({"z": [["a"] * 4]}, "not numbers"),
        ({"z": [[1.0] * 3]}, "z has shape (1, 3); codes of runs/ae have shape (4,)"),
        ({"z": [[1.0, None, 1.0, 1.0]]}, "1 of 1 code is NaN or infinite"),
        (None, "cannot be read as Parquet"),
    ],
)
def test_parquet_file_without_valid_codes_is_refused(cli, runs, columns, said):
    import pyarrow as pa

    Path("codes.parquet").write_bytes(b"PAR1")
    if columns:
        parquet.write_table(pa.table(columns), "codes.parquet")
    answer = cli("decode", "runs/ae", "codes.parquet", "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert not Path("out").exists()


def test_codes_passed_in_python_are_validated(forge, run_of, tmp_path):
    for codes in (np.zeros((2, 3)), torch.zeros(4), [["a"]], np.full((2, 4), np.nan)):
        with pytest.raises(UsageError, match="codes: "):
            forge.decode(run_of("ae"), codes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_latent_spec_is_a_plugin_error_and_leaves_no_files(forge, odd, work):
    manifest = odd("spatial") / "run.json"
    manifest.write_text(manifest.read_text().replace("odd/spatial", "odd/liar"))
    with pytest.raises(PluginError, match=r"a code has shape \(2, 7, 7\), not \(98,\)"):
        forge.encode("spatial", "codes.npz")
    with pytest.raises(PluginError, match=r"an image has shape \(784,\), not \(1, 28, 28\)"):
        forge.decode("spatial", np.zeros((3, 98)), "out")
    assert {path.name for path in work.iterdir()} == {"spatial"}
