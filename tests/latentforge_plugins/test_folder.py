from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from latentforge_plugins.folder import FolderConfig, load
from PIL import Image

from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare_whole
from latentforge.errors import RunFailed

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
def test_16_bit_values_are_scaled_to_8_bits(root: Path, name: str):
    deep = RANDOM.integers(0, 65536, (6, 5), dtype=np.uint16)
    save(root / name, deep)
    assert np.array_equal(pixels(root), np.rint(deep / 65535 * 255))


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


def test_animations_give_their_first_frame(root: Path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (50, 200)]
    frames[0].save(root / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels(root) == 50).all()


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
    assert "supported extensions: .png .jpg" in text


def test_split_folders_are_not_read_as_classes(root: Path, refused):
    for split in ("test", "train"):
        for name in ("cat", "dog"):
            save(root / split / name / "1.png")
    assert f"try: --set data.root={root}/test, whose sub-folders contain images" in refused()


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


def test_all_unreadable_files_are_counted_and_five_are_named(root: Path, refused, monkeypatch):
    good = save(root / "0.png", PHOTO).read_bytes()
    save(root / "9.jpg", PHOTO)
    (root / "1.png").write_bytes(good[: len(good) // 2])
    (root / "2.png").write_bytes(b"")
    (root / "3.jpg").write_text("<html>404</html>")
    (root / "4.png").write_bytes(good[:60] + bytes([good[60] ^ 1]) + good[61:])
    save(root / "5.png", np.zeros((1000, 1100), np.uint8))  # a small file of a large image
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    save(root / "6.tif", np.zeros((4, 4), np.float32))
    (root / "7.png").symlink_to(root / "gone.png")
    text = refused()
    assert "data.root: 7 of 9 image files cannot be read" in text
    assert [f"{root}/{i}.png: " in text for i in range(10)] == [
        *(False, True, True, False, True, True, False, False, False, False)
    ]
    assert f"{root}/3.jpg: " in text
    assert "DecompressionBomb" in text
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
