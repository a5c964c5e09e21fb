from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from latentforge_plugins.folder import FolderConfig, load
from PIL import Image

from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare, prepare_whole
from latentforge.errors import UsageError

from .images import GREY, ORIENTATION, PHOTO, RANDOM, RGB, pixels, read, save


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
    levels, _, ranges = cli(*line).err.partition("try: ")[2].partition(", or ")
    assert ranges.startswith("--set data.range=any")
    low, high = cli(*line, *levels.split()).json["range"]
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
    assert "2 further frames of 1 file are not read (data.frames=all reads them)" in caplog.text
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


@pytest.mark.parametrize("sizes", [(2, 48), (5, 100), (30, 30, 30), (20, 20)])
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
