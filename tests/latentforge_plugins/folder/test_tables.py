from __future__ import annotations

from pathlib import Path

import pytest
from latentforge_plugins.folder import FolderConfig, load

from latentforge import Factor
from latentforge.data.preparation import prepare_whole
from latentforge.errors import UsageError

from .images import GREY, read, save


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
    [
        ("fit=crop", "fit=crop needs size"),
        ("label_column=kind", "label_column need labels"),
        ('factors=["angle"]', "factors need labels"),
    ],
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


def test_a_folder_of_tables_is_refused(root: Path, table: Path, refused):
    assert f"{root} is a folder" in refused(f"data.labels={root}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\nz.png,1\n", "no column of"),
        ("file\n1.png\n", "not clear which column"),
        ("file,height,width\n1.png,2,3\n", "data.label_column=COLUMN with one of them"),
        ("file,label\n1.png\n", "line 2 of"),
        ("file,label\n1.png,\n", "has no label"),
        ("file,label\n# by me\n1.png,a\n", "line 2 of"),
        ("file,label\n1.png,a\n1.png,b\n", "the labels 'a' and 'b'"),
        ("", "has no rows"),
        ('{"images": [{"file_name": "1.png"}]}', "is JSON, not a table"),
        ("file,label,label\n1.png,a,b\n", "two columns of"),
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


def test_columns_of_a_table_become_factors(root: Path, table: Path, caplog):
    lines = [f"{i}.png,{i % 2},{i - 9.5},c{i % 3},x" for i in range(20)]
    table.write_text("\n".join(["file,label,angle,colour,note", *lines]))
    config = FolderConfig(root, labels=table, factors=("angle", "colour"))
    images = load(config, "train")
    assert "1 column is not read: note (data.factors makes them factors)" in caplog.text
    for given in (images, images.whole()):
        split = prepare_whole({"train": given}, "folder").split("train")
        assert split.spec.factors[1:] == (Factor("angle"), Factor("colour", ("c0", "c1", "c2")))
        number = [int(Path(file).stem) for file in split.files]
        assert split.factors["angle"].tolist() == [i - 9.5 for i in number]
        assert split.factors["colour"].tolist() == [i % 3 for i in number]


@pytest.mark.parametrize(
    ("line", "factors", "said"),
    [
        ("0.png,1,5", ["angel"], "data.factors: .* has no column 'angel'"),
        ("0.png,1,5", ["file"], "the column file of .* names the images"),
        ("0.png,1,", ["angle"], "data.factors: line 2 of .* has no angle"),
        ("1.png,1,7", ["angle"], "gives 1.png two values of a factor"),
    ],
)
def test_faulty_columns_of_factors_are_refused(root, table, line, factors, said):
    lines = [line, *(f"{i}.png,{i % 2},{i}" for i in range(1, 20))]
    table.write_text("\n".join(["file,label,angle", *lines]))
    with pytest.raises(UsageError, match=said):
        load(FolderConfig(root, labels=table, factors=tuple(factors)), "train")
