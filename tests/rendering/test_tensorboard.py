"""TensorBoard output of an explorer, read with TensorBoard's event reader and server."""

from __future__ import annotations

import io
import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from werkzeug.test import Client

from latentforge.findings import Bars, Film, Findings, Histogram, Scatter
from latentforge.rendering.tensorboard_projector import (
    SIDE,
    create_sprite_sheet,
    select_points,
    write_projector,
)
from latentforge.rendering.write import add_notes, write_findings

ABOUT = {"explorer": "look", "run": "r", "checkpoint": "c"}


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "vae" / "explore" / "look"
    folder.mkdir(parents=True)
    classes = ["a\tb", "two\nlines", *digits.classes[2:]]
    map_ = Scatter("map", "", digits.z[:, :2], digits.y, classes, digits.x, codes=digits.z)
    bars = [[Bars("b", "", ["a"], {"p": [h]}, "p")] for h in (0.1, 0.5, 1.0)]
    values = Histogram("hist", "", {"unit": torch.tensor([1.0, 2.0, 3.0, math.nan])}, "x")
    metrics = {"share": 0.25, "undefined": math.nan}
    write_findings(Findings([map_, Film("film", "", bars), values], metrics), folder, ABOUT)
    return folder


@pytest.fixture(scope="module")
def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def projector(folder):
    """TensorBoard's projector over HTTP, as a browser requests it."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # from html5lib
        from tensorboard.backend.application import TensorBoardWSGI
        from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.plugins.base_plugin import TBContext
        from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    logdir = folder.parents[2]
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = ProjectorPlugin(TBContext(logdir=str(logdir), data_provider=provider))
    plugin._determine_is_active()  # normally called in a thread
    client = Client(TensorBoardWSGI([plugin]))

    def get(path, **query):
        answer = client.get(f"/data/plugin/projector/{path}", query_string=query)
        assert answer.status_code == 200
        return answer.data

    return get


def test_logged_images_are_the_files_and_films_are_animated(events, folder):
    files = {"map": "map.png", "film": "film.gif", "film-strip": "film.png", "hist": "hist.png"}
    assert set(events.Tags()["images"]) == {f"look/{name}" for name in files}
    for name, file in files.items():
        (event,) = events.Images(f"look/{name}")
        assert event.encoded_image_string == (folder / file).read_bytes()
        with Image.open(folder / file) as picture:
            assert (event.width, event.height) == picture.size
    with Image.open(io.BytesIO(events.Images("look/film")[0].encoded_image_string)) as film:
        assert film.n_frames == 3


def test_scalars_and_histograms_are_logged_without_nan(events):
    assert events.Tags()["scalars"] == []
    [text] = events.Tensors("look/metrics/text_summary")[0].tensor_proto.string_val
    assert "| share | 0.25 |" in text.decode()
    assert "undefined" not in text.decode()
    (histogram,) = events.Histograms("look/hist/unit")
    counts = histogram.histogram_value
    assert (counts.min, counts.max, counts.num, counts.sum) == (1, 3, 3, 6)


def test_there_is_one_unlisted_events_file(folder):
    (file,) = folder.glob("events.out.tfevents.*")
    listed = json.loads((folder / "findings.json").read_text())["files"]
    assert file.name not in listed


def test_projector_serves_codes_labels_and_images_of_every_point(projector, digits):
    run = "vae/explore/look"
    assert json.loads(projector("runs")) == [run]
    (info,) = json.loads(projector("info", run=run))["embeddings"]
    count = len(digits.z)
    assert info["tensorShape"] == [count, 8]
    served = projector("tensor", run=run, name=info["tensorName"])
    codes = np.frombuffer(served, "<f4").reshape(count, 8)
    assert codes == pytest.approx(digits.z.numpy(), rel=1e-4, abs=1e-5)
    names = projector("metadata", run=run, name=info["tensorName"]).decode().splitlines()
    wanted = ["a b", "two lines", *digits.classes[2:]]
    assert names == [wanted[i] for i in digits.y.tolist()]
    width, height = info["sprite"]["singleImageDim"]
    sheet = Image.open(io.BytesIO(projector("sprite_image", run=run, name=info["tensorName"])))
    assert max(sheet.size) <= SIDE
    pixels = np.asarray(sheet)
    per_row = sheet.width // width
    for i in (0, 1, per_row, count - 1):
        row, column = divmod(i, per_row)
        cell = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert np.array_equal(cell, (digits.x[i, 0] * 255).round().byte().numpy())


def test_map_without_codes_has_no_projector(digits, tmp_path):
    write_projector(Findings([Scatter("map", "", digits.z[:, :2])]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_codes_without_labels_and_images_are_written_flat(digits, tmp_path):
    codes = digits.z[:6].unflatten(1, (2, 2, 2))
    write_projector(Findings([Scatter("m", "", digits.z[:6, :2], codes=codes)]), tmp_path)
    config = ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    assert not embedding.metadata_path
    assert not embedding.HasField("sprite")
    assert np.loadtxt(tmp_path / embedding.tensor_path).shape == (6, 8)


def test_values_are_a_second_column_of_the_projector(digits, tmp_path):
    codes, values = digits.z[:3], torch.tensor([-12.5, 0.0, 1e-7])
    item = Scatter("m", "", codes[:, :2], digits.y[:3], digits.classes, codes=codes, values=values)
    write_projector(Findings([replace(item, values_title="angle\tin degrees")]), tmp_path)
    rows = next(tmp_path.rglob("metadata.tsv")).read_text().splitlines()
    names = [digits.classes[i] for i in digits.y[:3]]
    assert rows == [
        "class\tangle in degrees",
        *(f"{name}\t{value}" for name, value in zip(names, ("-12.5", "0", "1e-07"), strict=True)),
    ]
    alone = tmp_path / "alone"
    write_projector(Findings([replace(item, labels=None)]), alone)
    assert next(alone.rglob("metadata.tsv")).read_text() == "-12.5\n0\n1e-07\n"


def test_codes_of_two_dimensions_get_a_third_one(digits, tmp_path):
    codes = digits.z[:6, :2]
    write_projector(Findings([Scatter("m", "", codes, codes=codes)]), tmp_path)
    written = np.loadtxt(next(tmp_path.rglob("tensors.tsv")))
    assert written.shape == (6, 3)
    assert np.allclose(written[:, :2], codes, atol=1e-4)
    assert not written[:, 2].any()


def test_sprites_of_non_square_images_have_the_right_size(tmp_path):
    images = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))  # 6 wide
    points = torch.arange(10.0).reshape(5, 2)
    write_projector(Findings([Scatter("m", "", points, images=images, codes=points)]), tmp_path)
    config = ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    sprite = config.embeddings[0].sprite
    width, height = sprite.single_image_dim  # the order in TensorBoard's documentation
    sheet = Image.open(tmp_path / sprite.image_path)
    across = sheet.width // width
    for i, image in enumerate(images):
        left, top = i % across * width, i // across * height
        cell = np.asarray(sheet.crop((left, top, left + width, top + height)))
        assert np.array_equal(cell, (image[0] * 255).round().byte().numpy())


@pytest.mark.parametrize(
    ("count", "shape", "kept"),
    [
        (10_000, (1, 28, 28), 10_000),
        (70_000, (1, 28, 28), 70_000),
        (10_000, (3, 64, 64), 10_000),
        (20_000, (3, 64, 64), 16_384),
        (10_000, (3, 128, 96), 4096),
        (5, (3, 9000, 10), 1),
    ],
)
def test_sprite_sheet_size_is_limited_by_dropping_points(count, shape, kept):
    images = torch.zeros(1, dtype=torch.uint8).expand(count, *shape)
    points = torch.zeros(count, 2)
    item = Scatter("map", "", points, images=images, codes=points)
    chosen = select_points(item)
    assert len(chosen) == kept
    assert len(set(chosen.tolist())) == kept
    assert (chosen[0], chosen[-1]) == (0, count - 1 if kept > 1 else 0)
    across = math.ceil(math.sqrt(kept))
    if shape[1] <= SIDE:
        assert across * max(shape[1:]) <= SIDE
    notes = add_notes(Findings([item], notes=("first",))).notes
    assert notes[0] == "first"
    assert [f"{kept:,} of the {count:,}" in note for note in notes[1:]] == [True] * (kept < count)
    assert add_notes(add_notes(Findings([item]))).notes == notes[1:]


def test_large_codes_limit_the_number_of_points():
    points = torch.zeros(10_000, 2)
    item = Scatter("map", "", points, codes=torch.zeros(1).expand(10_000, 64, 7, 7))
    assert len(select_points(item)) == 5_000_000 // 3136


def test_sprite_sheet_keeps_colours():
    images = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(create_sprite_sheet(images))
    assert sheet.shape == (12, 18, 3)
    wanted = (images[4] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(sheet[4:8, 6:12], wanted)
    assert (sheet[8:] == 0).all()
