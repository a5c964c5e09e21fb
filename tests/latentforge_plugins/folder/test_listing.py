from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from latentforge_plugins.folder import FolderConfig, load

from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare_whole
from latentforge.errors import RunFailed

from .images import GREY, PHOTO, RGB, read, save

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


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017"),
        ("train_set", "test_set"),
        ("imagesTr", "imagesTs"),
        ("train", "holdout"),
        ("train", "unlabeled"),
        ("trainA", "testB"),
    ],
)
def test_classes_that_may_be_splits_are_announced(root: Path, names, caplog):
    for name in names:
        save(root / name / "1.png")
        save(root / name / "2.png")
    assert sorted(load(FolderConfig(root), "train").whole().classes) == sorted(names)
    assert "if they are splits, name them train, val and test" in caplog.text


def test_deeper_folders_of_several_classes_are_not_suggested_alone(root: Path, refused):
    for name in ("a/s1", "a/s2", "b/s1"):
        save(root / name / "1.png")
    said = refused()
    assert "a/s1" in said
    assert f"data.root={root}/a" not in said


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
    assert f"1 .png file in {root / names[0] / 'cat'}" in said
    assert "FOLDER/train/CLASS" in said


def test_a_split_may_have_a_single_class(root: Path):
    for split, classes in (("train", "ab"), ("test", "b")):
        for name in classes:
            save(root / split / name / "1.png", GREY)
    given = {split: load(FolderConfig(root), split) for split in ("train", "test")}
    assert prepare_whole(given, "folder").split("test").y.tolist() == [1]


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
    assert "try: --set data.channels=rgb or --set data.channels=grey" in text
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
    assert "1 of 1 image file cannot be read" in refused()
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
