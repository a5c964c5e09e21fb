from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from latentforge_plugins.folder import FolderConfig, load
from PIL import Image

from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare, prepare_whole
from latentforge.errors import RunFailed, UsageError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)
PHOTO = np.linspace(40, 220, 64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)  # smooth: for JPEG
ORIENTATION = 0x0112  # EXIF tag


def save(path: Path, pixels: np.ndarray = RGB, mode: str = "", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def read(root: Path, **options):
    return load(FolderConfig(root, **options), "train").whole()


def pixels(root: Path, **options) -> np.ndarray:
    """Return the only image as uint8 (H, W) or (H, W, 3)."""
    (image,) = read(root, **options).x
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


# ---------------------------------------------------------------- files and classes


def test_sub_folders_are_classes_in_natural_order(root: Path):
    for name, value in (
        ("10/a", 3),
        ("9/b", 1),
        ("9/a2", 0),
        ("10/.a", 7),
        ("x/c", 4),
        ("9/a10", 9),
    ):
        save(root / f"{name}.png", np.full((4, 4, 3), value, np.uint8))
    (root / "9" / "Thumbs.db").write_bytes(b"no image")
    (root / ".cache").mkdir()
    arrays = read(root)
    assert arrays.classes == ("9", "10", "x")
    assert arrays.y == [0, 0, 0, 1, 2]
    assert arrays.x[:, 0, 0, 0].tolist() == [0, 9, 1, 3, 4]
    assert prepare_whole({"train": arrays}, "folder").spec.shape == (3, 4, 4)  # not 4 channels


def test_class_names_with_undecodable_bytes_are_shown(cli, root: Path):
    for name in (b"caf\xe9", b"\x1b[31m", "été 1".encode()):
        for i in range(4):
            save(root / os.fsdecode(name) / f"{i}.png")
    shown = cli("data", "show", "folder", "--set", f"root={root}", "--json")
    assert shown.json["classes"] == ["\\x1b[31m", "caf\\udce9", "été 1"]


def test_a_flat_folder_has_no_labels(root: Path):
    for name in ("2.png", "10.JPG", "1.Png", ".hidden.png"):
        save(root / name, PHOTO)
    (root / "notes.txt").write_text("no image")
    arrays = read(root)
    assert arrays.x.shape == (3, 3, 64, 48)
    assert (arrays.y, arrays.classes) == (None, ())
    assert np.abs(arrays.x[2].transpose(1, 2, 0).astype(int) - PHOTO).max() < 12  # the JPEG
    assert np.array_equal(arrays.x[1].transpose(1, 2, 0), PHOTO)


# ---------------------------------------------------------------- decoding of pixels


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF", "a.ppm", "a.webp"])
def test_colour_pixels_are_read_unchanged(root: Path, name: str):
    save(root / name, **({"lossless": True} if name == "a.webp" else {}))
    assert np.array_equal(pixels(root), RGB)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.pgm", "a.gif"])
def test_grey_pixels_are_read_unchanged(root: Path, name: str):
    save(root / name, GREY)
    assert np.array_equal(pixels(root), GREY)


def test_palette_images_are_read_as_rgb(root: Path):
    save(root / "a.gif", RGB // 128 * 255)  # 8 colours, so the palette is exact
    assert np.array_equal(pixels(root), RGB // 128 * 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_values_are_kept(root: Path, name: str):
    deep = RANDOM.integers(0, 65536, (6, 5), dtype=np.uint16)
    save(root / name, deep)
    assert pixels(root).dtype == np.uint16
    assert np.array_equal(pixels(root), deep)


@pytest.mark.parametrize(("dtype", "value"), [(np.int8, -64), (np.uint32, 3_000_000_000)])
def test_the_type_of_tiff_files_is_kept(root: Path, dtype, value):
    tifffile.imwrite(root / "a.tif", np.full((6, 5), value, dtype))
    assert read(root).x.dtype == dtype
    assert (pixels(root) == value).all()


DEEP_RGB = RANDOM.integers(0, 65536, (6, 5, 3), dtype=np.uint16)


def png_bytes(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG file with 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}],
)
def test_16_bit_colours_of_tiff_are_kept(root: Path, options):
    tifffile.imwrite(root / "a.tif", DEEP_RGB, photometric="rgb", **options)
    assert np.array_equal(pixels(root), DEEP_RGB)


def test_16_bit_colours_of_png_are_kept_and_converted_to_grey(root: Path):
    (root / "a.png").write_bytes(png_bytes(DEEP_RGB, 2))
    assert np.array_equal(pixels(root), DEEP_RGB)
    grey = DEEP_RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels(root, channels="grey") - grey).max() <= 0.5


def test_transparent_16_bit_colours_are_blended_with_white(root: Path):
    alpha = np.full((6, 5, 1), 16384, np.uint16)
    (root / "a.png").write_bytes(png_bytes(np.concatenate([DEEP_RGB, alpha], 2), 6))
    opaque = 16384 / 65535
    expected = DEEP_RGB * opaque + 65535 * (1 - opaque)
    assert np.abs(pixels(root) - expected).max() <= 0.5


def test_16_bit_images_that_pillow_reads_with_8_bits_are_refused(root: Path):
    (root / "a.png").write_bytes(png_bytes(DEEP_RGB[..., :2], 4))  # grey with transparency
    (root / "b.ppm").write_bytes(b"P6 5 6 65535\n" + DEEP_RGB.astype(">u2").tobytes())
    planes = np.moveaxis(DEEP_RGB, 2, 0)
    tifffile.imwrite(root / "c.tif", planes, photometric="rgb", planarconfig="separate")
    ink = np.concatenate([DEEP_RGB, DEEP_RGB[..., :1]], 2)
    tifffile.imwrite(root / "d.tif", ink, photometric="separated")
    with pytest.raises(UsageError, match="4 of 4 image files cannot be read") as caught:
        read(root)
    assert all("reads only 8 bits of each channel" in detail for detail in caught.value.details)


@pytest.mark.parametrize("white", [None, 4095])
def test_4096_levels_of_a_camera_are_kept(cli, root: Path, caplog, white: int | None):
    levels = np.arange(4096, dtype=np.uint16)
    RANDOM.shuffle(levels)
    for i, image in enumerate(levels.reshape(16, 16, 16)):
        save(root / f"{i}.png", image)
    splits = prepare_whole(
        {"train": load(FolderConfig(root), "train")}, "f", DataConfig(white=white)
    )
    x = splits.split("train").x
    assert len(x.unique()) == 4096
    assert x.max() == pytest.approx(1 if white else 4095 / 65535)
    assert ("try --set data.white=4095" in caplog.text) == (white is None)


def test_float_images_need_a_scale_that_the_message_suggests(cli, root: Path):
    for i in range(20):
        save(root / f"{i}.tif", np.linspace(0, 37.4, 30, dtype=np.float32).reshape(6, 5))
    line = ("data", "show", "folder", "--json", "--set", f"root={root}")
    error = cli(*line).err
    assert "float32 with values in [0, 37.4000015], but values must be in [0, 1]" in error
    suggestion = error.partition("try: ")[2].split()
    assert suggestion == ["--set", "data.white=37.5"]
    low, high = cli(*line, *suggestion).json["range"]
    assert (low, high) == (0, pytest.approx(37.4 / 37.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_files_with_white_as_0_are_inverted(root: Path, dtype):
    values = np.arange(30, dtype=dtype).reshape(6, 5) * 7
    tifffile.imwrite(root / "a.tif", values, photometric="miniswhite")
    assert np.array_equal(pixels(root), np.iinfo(dtype).max - values)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16])
def test_suggested_levels_are_those_of_all_images(cli, root: Path, dtype):
    values = np.random.default_rng(0).integers(-900, 3000, (40, 6, 5)).astype(dtype)
    for i, image in enumerate(values):
        tifffile.imwrite(root / f"{i}.tif", image)
    line = ("data", "show", "folder", "--json", "--set", f"root={root}")
    suggestion = cli(*line).err.partition("try: ")[2].split()
    low, high = cli(*line, *suggestion).json["range"]
    assert 0 <= low < 0.01
    assert 0.99 < high <= 1


def test_1_bit_values_are_read_as_0_or_255(root: Path):
    save(root / "a.png", GREY > 100)
    assert np.array_equal(pixels(root), np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_are_blended_with_white(root: Path, channels: int):
    alpha = RANDOM.integers(0, 256, (6, 5, 1), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    below = GREY[..., None] if channels == 1 else RGB
    save(root / "a.png", np.concatenate([below, alpha], 2))
    share = alpha / 255
    expected = (below * share + 255 * (1 - share)).squeeze()
    assert np.abs(pixels(root) - expected).max() <= 1
    assert (pixels(root)[0] == 255).all()


def test_transparent_palette_entries_become_white(root: Path):
    image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(root / "a.png", transparency=1)
    white = [255, 255, 255]
    assert pixels(root).tolist() == [[[10, 20, 30], white], [white, [70, 80, 90]]]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_exif_orientation_is_applied(root: Path, name: str):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # rotate clockwise by 90 degrees
    save(root / name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    assert np.array_equal(pixels(root), np.rot90(RGB, -1))


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_frames_are_read_or_counted(root: Path, caplog, name: str):
    values = (50, 200, 100)
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in values]
    lossless = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(root / name, save_all=True, append_images=frames[1:], **lossless)
    assert (pixels(root, channels="grey") == 50).all()
    assert "2 further frames of 1 files are not read (data.frames=all reads them)" in caplog.text
    every = read(root, channels="grey", frames="all")
    assert every.x[:, 0, 0, 0].tolist() == list(values)
    assert every.files == [name, f"{name}#1", f"{name}#2"]


def test_the_frames_of_a_file_stay_in_one_split(root: Path):
    for i in range(20):
        frames = [Image.fromarray(np.full((4, 4), 10 * i, np.uint8))] * (1 + i % 4)
        frames[0].save(root / f"{i}.tif", save_all=True, append_images=frames[1:])
    dataset = load(FolderConfig(root, frames="all"), "train")
    splits = prepare({"train": dataset}.__getitem__, ["train"], "folder").splits
    held = {name: {*(int(x.max()) for x in images.x)} for name, images in splits.items()}
    assert sum(map(len, held.values())) == len(set.union(*held.values())) == 20
    assert len(splits["test"]) >= 10  # a fifth of 50


@pytest.mark.parametrize("sizes", [(2, 98), (10, 200), (100, 100, 100), (50, 50)])
def test_files_of_other_sizes_are_split_without_parts(root: Path, caplog, sizes):
    for i, count in enumerate(sizes):
        frames = [Image.fromarray(np.full((4, 4), 10 + i, np.uint8))] * count
        frames[0].save(root / f"{i}.tif", save_all=True, append_images=frames[1:])
    dataset = load(FolderConfig(root, frames="all"), "train")
    config = DataConfig(validation=0, test=0.2)
    splits = prepare({"train": dataset}.__getitem__, ["train"], "folder", config).splits
    assert len(splits["test"]) == min(sizes)
    assert len(splits["train"]) == sum(sizes) - min(sizes)
    assert f"{min(sizes)} images instead of" in caplog.text


def test_all_frames_of_one_file_cannot_be_split(root: Path):
    frames = [Image.fromarray(GREY)] * 9
    frames[0].save(root / "a.tif", save_all=True, append_images=frames[1:])
    dataset = load(FolderConfig(root, frames="all"), "train")
    with pytest.raises(UsageError, match="all 9 images are frames of one file"):
        prepare({"train": dataset}.__getitem__, ["train"], "folder")


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPEG"])
def test_other_extensions_of_jpeg_are_read(root: Path, name: str):
    save(root / name, PHOTO, format="JPEG")
    assert np.abs(pixels(root).astype(int) - PHOTO).max() < 12


def test_channels_converts_all_images(root: Path):
    save(root / "a.png", GREY)
    save(root / "b.png", RGB)
    rgb = read(root, channels="rgb").x
    assert np.array_equal(rgb[0], np.stack([GREY] * 3))
    assert np.array_equal(rgb[1], RGB.transpose(2, 0, 1))
    grey = read(root, channels="grey").x
    assert np.array_equal(grey[0, 0], GREY)
    luma = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(grey[1, 0] - luma).max() <= 1


def test_downscaling_averages_and_upscaling_does_not_overshoot(root: Path):
    checks = np.indices((48, 32)).sum(0) % 2 * 255  # every 4th pixel is black
    save(root / "a.png", checks.astype(np.uint8))
    assert np.abs(pixels(root, size=(12, 8)).astype(int) - 127).max() <= 20
    save(root / "a.png", np.repeat([[50], [200]], 6, axis=1).astype(np.uint8))
    grown = pixels(root, size=(32, 20))
    assert grown.shape == (32, 20)
    assert (grown.min(), grown.max()) == (50, 200)


def test_size_resizes_all_files_to_one_shape(root: Path):
    for i, shape in enumerate([(3, 9), (64, 48), (1, 1), (12, 10)]):
        save(root / f"{i}.png", np.full((*shape, 3), 10 * i, np.uint8))
    x = read(root, size=(12, 10)).x
    assert x.shape == (4, 3, 12, 10)
    assert x.min(axis=(1, 2, 3)).tolist() == x.max(axis=(1, 2, 3)).tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("stretch", [[10, 10, 20, 20]] * 4),
        ("crop", [[10, 10, 20, 20]] * 4),
        ("pad", [[0] * 4, [10, 10, 20, 20], [10, 10, 20, 20], [0] * 4]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_fit_stretches_crops_or_pads(root: Path, fit: str, expected, dtype):
    save(root / "a.png", np.repeat([[10] * 4 + [20] * 4], 4, 0).astype(dtype))
    found = pixels(root, size=4, fit=fit)
    np.testing.assert_allclose(found, expected, atol=1)  # the filter is wider than a pixel
    assert found.dtype == dtype
    assert np.array_equal(pixels(root, size=(4, 4), fit=fit), found)


# ---------------------------------------------------------------- official splits


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Test")])
@pytest.mark.parametrize("classes", [("cat", "dog"), ()])
def test_folders_named_after_splits_are_splits(cli, root: Path, names, classes):
    for split, count in zip(names, (6, 4, 2), strict=True):
        for name in classes or [""]:
            for i in range(count):
                save(root / split / name / f"{i}.png", GREY)
    shown = cli("data", "show", "folder", "--set", f"root={root}", "--json").json
    times = len(classes) or 1
    assert shown["images"] == {"train": 6 * times, "validation": 4 * times, "test": 2 * times}
    assert shown["classes"] == list(classes)


def test_a_class_that_a_split_lacks_keeps_its_name(root: Path):
    for split, classes in (("train", "abc"), ("test", "ac")):
        for name in classes:
            save(root / split / name / "1.png", GREY)
    given = {split: load(FolderConfig(root), split) for split in ("train", "test")}
    splits = prepare_whole(given, "folder")
    assert splits.spec.classes == ("a", "b", "c")
    assert splits.split("test").y.tolist() == [0, 2]


def test_other_folders_beside_those_of_splits_are_refused(root: Path, refused):
    for name in ("train/cat", "train/dog", "test/cat", "test/dog", "extra"):
        save(root / name / "1.png", GREY)
    said = refused()
    assert "has folders of splits and also extra" in said
    assert f"try: move extra out of {root}" in said


def test_train_can_be_a_class(root: Path):
    for name in ("bus", "plane", "train"):
        save(root / name / "1.png", GREY)
    assert read(root).classes == ("bus", "plane", "train")


def test_an_empty_folder_of_a_split_is_refused_with_what_to_do(root: Path, refused):
    for name in ("train/a", "train/b"):
        save(root / name / "1.png", GREY)
    (root / "val").mkdir()
    assert f"put images into {root / 'val'}, or remove it" in refused()


def test_two_splits_must_not_be_the_same_folder(root: Path, refused):
    save(root / "train/1.png", GREY)
    (root / "test").symlink_to("train")
    assert "are links to the same folder" in refused()


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("seg_train", "seg_test")])
def test_the_place_of_images_that_are_too_deep_is_named(root: Path, refused, names):
    for name in names:
        for kind in ("cat", "dog"):
            save(root / name / kind / "1.png", GREY)
    said = refused()
    assert f"1 .png files in {root / names[0] / 'cat'}" in said
    assert "FOLDER/train/CLASS" in said


def test_a_split_may_have_a_single_class(root: Path):
    for split, classes in (("train", "ab"), ("test", "b")):
        for name in classes:
            save(root / split / name / "1.png", GREY)
    given = {split: load(FolderConfig(root), split) for split in ("train", "test")}
    assert prepare_whole(given, "folder").split("test").y.tolist() == [1]


# ---------------------------------------------------------------- labels in a table


@pytest.mark.parametrize("place", ["train/{}.png", "{}.png"])
def test_labels_of_official_splits_are_read_from_one_table(root: Path, place: str, caplog):
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        for i in numbers:
            save(root / split / f"{i}.png", GREY)
    table = root.parent / "labels.csv"
    names = [f"{place.format(i)},{'cat' if i % 2 else 'dog'}" for i in range(6)]
    names += [f"test/{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(6, 9)]
    table.write_text("\n".join(["file,label", *names]))
    config = FolderConfig(root, labels=table)
    given = {split: load(config, split) for split in ("train", "test")}
    splits = prepare_whole(given, "folder")
    assert splits.spec.classes == ("cat", "dog")
    assert splits.split("train").y.tolist() == [1, 0] * 3
    assert splits.split("test").y.tolist() == [1, 0, 1]
    assert "not read" not in caplog.text


def test_one_hot_columns_are_labels(root: Path, table: Path):
    rows = [
        f"{i}.png,{float(i % 3 == 0)},{float(i % 3 == 1)},{float(i % 3 == 2)}" for i in range(20)
    ]
    table.write_text("\n".join(["image,cat,dog,eel", *rows]))
    arrays = read(root, labels=table)
    expected = {f"{i}.png": ("cat", "dog", "eel")[i % 3] for i in range(20)}
    assert {Path(f).name: y for f, y in zip(arrays.files, arrays.y, strict=True)} == expected


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{i}.png,{i + 0.5}" for i in range(20)], "20 different real numbers"),
        ([f"{i}.png,{i % 3 - 1}" for i in range(20)], "7 labels are -1"),
    ],
)
def test_the_rules_for_numbers_apply_to_numbers_in_a_table(root, table, lines, said):
    table.write_text("\n".join(["file,label", *lines]))
    with pytest.raises(UsageError, match=said):
        prepare_whole({"train": load(FolderConfig(root, labels=table), "train")}, "folder")


def test_texts_that_look_like_numbers_keep_their_zeros(root: Path, table: Path):
    table.write_text("\n".join(["file,label", *(f"{i}.png,00{i % 2}" for i in range(20))]))
    assert {*read(root, labels=table).y} == {"000", "001"}


def test_numbers_that_name_columns_and_images_are_no_missing_header(root: Path, table: Path):
    rows = [f"{i}.png,{int(i % 2 == 0)},{int(i % 2 == 1)}" for i in range(20)]
    table.write_text("\n".join(["file,0,1", *rows]))
    assert {*read(root, labels=table).y} == {0, 1}


def test_a_column_of_splits_is_announced(root: Path, table: Path, caplog):
    rows = [f"{i}.png,{i % 2},{'train' if i < 15 else 'test'}" for i in range(20)]
    table.write_text("\n".join(["file,label,split", *rows]))
    read(root, labels=table)
    assert "column split is not used: splits come from folders" in caplog.text


def test_an_exact_path_in_a_table_is_not_ambiguous(root: Path):
    save(root / "1.png", GREY)
    save(root / "old" / "1.png", GREY)
    table = root.parent / "labels.csv"
    table.write_text("file,label\n1.png,new\nold/1.png,old\n")
    arrays = read(root, labels=table)
    assert dict(zip(arrays.files, arrays.y, strict=True)) == {"1.png": "new", "old/1.png": "old"}


@pytest.mark.parametrize(
    ("option", "said"),
    [("fit=crop", "fit=crop needs size"), ("label_column=kind", "label_column need labels")],
)
def test_options_without_effect_are_refused(root: Path, refused, option: str, said: str):
    save(root / "1.png", GREY)
    assert said in refused(f"data.{option}")


@pytest.fixture
def table(root: Path) -> Path:
    for i in range(20):
        save(root / ("a" if i < 10 else "b") / f"{i}.png", GREY)
    return root.parent / "labels.csv"


@pytest.mark.parametrize(
    "rows",
    [
        "file,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(20)),
        "id;class;age\n" + "".join(f"{i};{i % 2};{i}\n" for i in range(20)),
        "label\tpath\n"
        + "".join(f"{i % 2}\t{'a' if i < 10 else 'b'}/{i}.png\n" for i in range(20)),
        "\ufefffile,label\r\n" + "".join(f'"{i}.png","{i % 2}"\r\n' for i in range(20)),
    ],
)
def test_labels_are_read_from_a_table(root: Path, table: Path, rows: str):
    table.write_text(rows, "utf-8")
    arrays = read(root, labels=table)
    expected = {Path(file).stem: int(Path(file).stem) % 2 for file in arrays.files}
    assert len(expected) == 20
    assert [int(label) for label in arrays.y] == list(expected.values())


@pytest.mark.parametrize("rows", ["./a/0.png|x\n./b/10.png|y", "a/0.png|x\nb/10.png|y"])
def test_tables_may_use_bars_and_paths_with_a_dot(root: Path, table: Path, rows: str):
    table.write_text(f"file|label\n{rows}\n")
    arrays = read(root, labels=table)
    assert dict(zip(arrays.files, arrays.y, strict=True)) == {"a/0.png": "x", "b/10.png": "y"}


def test_a_name_of_two_images_is_refused_with_both(root: Path, table: Path, refused):
    save(root / "b/1.png", GREY)
    table.write_text("file,label\n1.png,x\n2.png,y\n")
    said = refused(f"data.labels={table}")
    assert "1.png in line 2 of" in said
    assert "can be a/1.png or b/1.png" in said
    table.write_text("file,label\na/1.png,x\n2.png,y\n")
    assert len(read(root, labels=table).x) == 2


@pytest.mark.parametrize(
    "labels", [("1e3", "1000"), ("12345678901234567890123", "7"), ("1_0", "9")]
)
def test_identifiers_remain_texts(root: Path, table: Path, labels):
    table.write_text("file,label\n" + "".join(f"{i}.png,{labels[i % 2]}\n" for i in range(20)))
    assert {*read(root, labels=table).y} == {*labels}


def test_files_and_rows_without_a_partner_are_counted(root: Path, table: Path, caplog):
    table.write_text("file,label\n" + "".join(f"{i}.png,x{i % 2}\n" for i in range(5, 40)))
    assert len(read(root, labels=table).x) == 15
    assert "5 without a row in labels.csv" in caplog.text
    assert "20 named in labels.csv, but missing" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\nz.png,1\n", "no column of"),
        ("file\n1.png\n", "not clear which column"),
        ("file,height,width\n1.png,2,3\n", "data.label_column=COLUMN with one of them"),
        ("file,label\n1.png\n", "line 2 of"),
        ("file,label\n1.png,\n", "has no label"),
        ("file,label\n1.png,a\n1.png,b\n", "the labels 'a' and 'b'"),
        ("", "has no rows"),
        ("1.png,a\n2.png,b\n", "the first line of"),
        ("one,other,label\n1.png,2.png,a\n3.png,4.png,b\n", "data.file_column=one"),
        (
            "file,weight,by,kind\n"
            + "".join(f"{i}.png,0.{i},me,{'ab'[i % 2]}\n" for i in range(1, 5)),
            "data.label_column=kind",
        ),
    ],
)
def test_unclear_tables_are_refused(refused, table: Path, text: str, said: str):
    table.write_text(text)
    assert said in refused(f"data.labels={table}")


# ---------------------------------------------------------------- files that are not read


def test_every_file_that_is_not_read_is_counted_with_its_reason(root: Path, caplog):
    for name in ("cat/1.png", "cat/more/2.png", "cat/more/yet/3.png", "dog/4.png"):
        save(root / name)
    for name in ("README", "cat/notes.txt", "cat/raw.CR2", "dog/a.txt", "dog/.x", "dog/._4.png"):
        (root / name).write_text("no image")
    assert len(read(root).x) == 2
    [message] = [record.getMessage() for record in caplog.records]
    assert message == (
        f"{root}: 7 files are not read: 2 with the extension .txt; "
        "2 in the deeper folder cat/more; 1 without an extension; 1 with the extension .cr2; "
        "1 whose names, or those of their folders, begin with a dot"
    )


# ---------------------------------------------------------------- refused folders, from the CLI


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


def test_a_missing_folder_or_a_file_is_reported(root: Path, refused, cli):
    root.rmdir()
    assert f"data.root: {root} does not exist" in refused(code=4)
    root.write_text("a file")
    assert f"data.root: {root} is a file" in refused(code=4)
    answer = cli("train", "ae", "--data", "folder")
    assert answer.code == 2
    assert "data.root is not given" in answer.err


def test_a_folder_without_images_lists_supported_extensions(root: Path, refused):
    assert f"no images in {root} or its sub-folders" in refused()
    (root / "cat").mkdir()
    (root / "cat" / "a.svg").write_text("<svg/>")
    text = refused()
    assert f"no images in {root} or its sub-folders" in text
    assert "supported extensions: .png .apng .jpg" in text


def test_a_folder_around_the_class_folders_is_suggested(cli, root: Path, refused):
    for name in ("cat", "dog"):
        for i in range(10):
            save(root / "images" / name / f"{i}.png")
    (root / "notes").mkdir()
    [suggestion] = [line for line in refused().splitlines() if "try: " in line]
    assert suggestion == f"  try: --set data.root={root}/images"
    assert cli("data", "show", "folder", *suggestion.split()[1:]).code == 0


def test_an_empty_class_folder_is_refused_by_name(root: Path, refused):
    save(root / "cat" / "1.png")
    save(root / "dog" / "1.png")
    (root / "eel").mkdir()
    assert f"no images in {root}/eel; each sub-folder of {root} is a class" in refused()


def test_a_single_class_is_refused_and_loads_without_labels(root: Path, refused):
    for i in range(5):
        save(root / "cat" / f"{i}.png")
    text = refused()
    assert f"{root} has only one sub-folder, cat, but labels need at least two classes" in text
    assert f"try: --set data.root={root}/cat, to load" in text
    assert read(root / "cat").x.shape == (5, 3, 6, 5)


def test_images_next_to_class_folders_are_refused(root: Path, refused):
    save(root / "1.png")
    save(root / "cat" / "2.png")
    assert "contains both images (1.png) and sub-folders (cat)" in refused()


def test_mixed_sizes_are_refused_with_a_hint(root: Path, refused):
    one, two = save(root / "1.png", PHOTO), save(root / "2.png", PHOTO[:, :40])
    text = refused()
    assert f"several sizes (height x width): {one} is 64 x 48, {two} is 64 x 40" in text
    assert "try: --set 'data.size=[64,48]'" in text
    assert "data.size" in refused("data.size=[64]")
    assert "data.size[1]" in refused("data.size=[64,0]")


def test_mixed_channels_are_refused_with_a_hint(root: Path, refused):
    one, two = save(root / "1.png", GREY), save(root / "2.png", RGB)
    text = refused("data.size=[8,8]")
    assert f"mixed channels: {one} is grey, {two} is colour" in text
    assert "try: --set data.channels=rgb, or data.channels=grey" in text
    assert "data.channels" in refused("data.channels=red")


def test_a_large_image_is_refused_with_the_option_that_reads_it(cli, root: Path, refused):
    for i in range(10):
        save(root / f"{i}.png", np.zeros((100, 110), np.uint8))
    text = refused("data.max_pixels=9999")
    suggestion = text.partition("try: ")[2].strip()
    assert suggestion == "--set data.max_pixels=11000"
    line = ["data", "show", "folder", "--set", f"root={root}", *suggestion.split()]
    assert cli(*line).code == 0


def test_all_unreadable_files_are_counted_and_five_are_named(root: Path, refused):
    good = save(root / "0.png", PHOTO).read_bytes()
    save(root / "9.jpg", PHOTO)
    (root / "1.png").write_bytes(good[: len(good) // 2])
    (root / "2.png").write_bytes(b"")
    (root / "3.jpg").write_text("<html>404</html>")
    (root / "4.png").write_bytes(good[:60] + bytes([good[60] ^ 1]) + good[61:])
    save(root / "5.png", np.zeros((1000, 1100, 3), np.uint8))  # a small file of a large image
    (root / "6.png").symlink_to(root / "gone.png")
    (root / "7.gif").write_bytes(b"GIF89a")
    text = refused("data.max_pixels=1000000")
    assert "data.root: 7 of 9 image files cannot be read" in text
    assert [f"{root}/{i}.png: " in text for i in range(10)] == [
        *(False, True, True, False, True, True, False, False, False, False)
    ]
    assert f"{root}/3.jpg: " in text
    assert "5.png: TooLarge: it has 1,100,000 pixels, more than data.max_pixels (1,000,000)" in text
    assert "and 2 more" in text


def test_postscript_with_a_png_extension_is_not_run(root: Path, refused, monkeypatch):
    tools = root.parent / "bin"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\ntouch {root.parent}/ran\n")  # Ghostscript, for EPS
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    save(root / "a.eps").rename(root / "a.png")
    assert "1 of 1 image files cannot be read" in refused()
    assert not (root.parent / "ran").exists()


# ---------------------------------------------------------------- streamed


def test_streamed_images_give_the_batches_of_images_in_memory(root: Path):
    for i in range(12):
        save(root / f"c{i % 2}" / f"{i}.png", np.full((6, 5, 3), 20 * i, np.uint8))

    def splits(stream):
        given = {"train": load(FolderConfig(root), "train")}
        return prepare_whole(given, "folder", DataConfig(stream=stream))

    streamed, resident = splits("always"), splits("never")
    assert streamed.spec == resident.spec
    assert (streamed.sample, streamed.fingerprint) == (resident.sample, resident.sample)
    pairs = [s.split("train").batch_at([7, 0, 3]) for s in (streamed, resident)]
    assert torch.equal(pairs[0].x, pairs[1].x)
    assert torch.equal(pairs[0].y, pairs[1].y)


def test_an_unreadable_streamed_image_is_named(root: Path):
    for i in range(4):
        save(root / f"{i}.png", np.full((6, 5, 3), i, np.uint8))
    given = {"train": load(FolderConfig(root), "train")}
    images = prepare_whole(given, "f", DataConfig(stream="always")).split("train")
    (root / "2.png").write_bytes((root / "2.png").read_bytes()[:40])
    with pytest.raises(RunFailed) as caught:
        images.batch_at([1, 2])
    assert f"{root / '2.png'}: " in caught.value.details[0]
    save(root / "2.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(RunFailed, match=r"images of several sizes.*2\.png is 9 x 9"):
        images.batch_at([1, 2])
