"""The order of the axes: what is recognised, what is refused, and that nothing is permuted."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from latentforge import Forge
from latentforge.config.schema import DataConfig, OtherData
from latentforge.data.layout import find_layout, to_standard, to_stored
from latentforge.data.loading import load_splits, load_whole
from latentforge.errors import UsageError


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((9, 64), "ND"),
        ((9, 28, 28), "NHW"),
        ((9, 1, 28, 28), "NCHW"),
        ((9, 3, 32, 32), "NCHW"),
        ((9, 1, 4, 4), "NCHW"),
        ((9, 1, 5, 4), "NCHW"),
        ((9, 2, 16, 16), "NCHW"),  # two channels in torch's order
        ((9, 512, 7, 7), "NCHW"),  # features
        ((9, 28, 28, 1), "NHWC"),
        ((9, 32, 24, 3), "NHWC"),
        ((9, 28, 28, 4), "NHWC"),
    ],
)
def test_shapes_with_one_reading_are_recognised(shape, layout):
    assert find_layout(shape, "auto", "d") == layout


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((9, 64), "NL"), ((9, 1, 64), "NCL"), ((9, 12, 24), "NCL"), ((9, 64, 1), "NLC")],
)
def test_signals_with_one_reading_are_recognised(shape, layout):
    assert find_layout(shape, "signal", "d") == layout


@pytest.mark.parametrize("shape", [(9, 12, 23), (9, 100, 3), (9, 2, 2)])
def test_signals_with_two_readings_are_refused_with_both(shape):
    with pytest.raises(UsageError, match=re.escape(f"x has shape {shape}")) as caught:
        find_layout(shape, "signal", "d")
    a, b = shape[1:]
    assert f"9 signals of {b} values with {a} channels (NCL)" in caught.value.message
    assert f"9 signals of {a} values with {b} channels (NLC)" in caught.value.message
    assert caught.value.hint == "--set data.layout=NCL or --set data.layout=NLC"


def test_an_image_is_no_signal_and_labels_find_the_axis_of_the_examples():
    with pytest.raises(UsageError, match="must be a signal"):
        find_layout((9, 1, 8, 8), "signal", "d")
    with pytest.raises(UsageError, match="the last axis counts") as caught:
        find_layout((2, 50, 9), "signal", "d", 9)
    assert caught.value.hint == "--set data.layout=CLN or --set data.layout=LCN"


@pytest.mark.parametrize("layout", ["NL", "LN", "NCL", "NLC", "CLN", "LCN"])
def test_the_stored_order_of_signals_is_restored(layout):
    sizes = {"N": 5, "C": 2, "L": 7}
    x = torch.arange(np.prod([sizes[a] for a in layout])).reshape([sizes[a] for a in layout])
    standard = to_standard(x, layout)
    assert standard.shape == (5, 2 if "C" in layout else 1, 7)
    assert torch.equal(to_stored(standard, layout), x)


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((9, 16, 16, 2), ("16x2 pixels with 16 channels", "16x16 pixels with 2 channels")),
        ((9, 32, 32, 13), ("32x13 pixels with 32 channels", "32x32 pixels with 13 channels")),
        ((9, 16, 16, 16), ("16x16 pixels with 16 channels (NCHW)", "(NHWC)")),
        ((9, 3, 3, 3), ("3x3 pixels with 3 channels (NCHW)", "(NHWC)")),
        ((9, 4, 4, 3), ("4x3 pixels with 4 channels", "4x4 pixels with 3 channels")),
        ((9, 512, 4, 4), ("4x4 pixels with 512 channels", "512x4 pixels with 4 channels")),
        ((9, 20, 16, 24), ("16x24 pixels with 20 channels", "20x16 pixels with 24 channels")),
        ((9, 3, 8, 4), ("8x4 pixels with 3 channels", "3x8 pixels with 4 channels")),
        ((9, 3, 64, 1), ("64x1 pixels with 3 channels", "3x64 pixels with one channel")),
        ((9, 7, 9, 30), ("9x30 pixels with 7 channels", "7x9 pixels with 30 channels")),
        ((16, 16, 200), ("16 images of 16x200 pixels", "200 images of 16x16 pixels")),
        ((8, 8, 3, 200), ("3x200 pixels with 8 channels", "200 images of 8x8 pixels")),
        ((512, 640, 3), ("512 images of 640x3 pixels", "one image of 512x640 pixels")),
    ],
)
def test_shapes_with_two_readings_are_refused_with_both(shape, readings):
    with pytest.raises(UsageError, match=re.escape(str(shape))) as caught:
        find_layout(shape, "auto", "d")
    for reading in readings:
        assert reading in caught.value.message
    assert re.search("--set data.layout=(N|HWC?N)", caught.value.hint)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "HWCN", "NDHW", "NHW", "WNH", "NWHC"])
def test_the_stored_order_is_restored(layout):
    sizes = {"N": 5, "C": 2, "D": 2, "H": 3, "W": 4}
    x = torch.arange(np.prod([sizes[a] for a in layout])).reshape([sizes[a] for a in layout])
    standard = to_standard(x, layout)
    assert standard.shape == (5, 2 if {*layout} & {*"CD"} else 1, 3, 4)
    assert torch.equal(to_stored(standard, layout), x)


@pytest.mark.parametrize("layout", ["NHW", "NCHWD", "HWC", "NHWL", "CL", "nhwc", ""])
def test_invalid_layouts_are_refused(cli, work, layout):
    np.savez("x.npz", x=np.zeros((9, 5, 6, 2), np.uint8))
    answer = cli("data", "show", "arrays", "--set", "path=x.npz", "--set", f"layout={layout}")
    assert answer.code == 2
    said = "data.layout: must be auto, signal, or name each axis"
    said = "data.layout=NHW names 3 axes" if layout == "NHW" else said
    assert said in answer.err


CUBES = np.random.default_rng(0).random((12, 6, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("source", ["array", "dataset", "npz", "npy", "streamed npy"])
def test_one_rule_for_every_source_and_the_suggested_option_decides(work, cli, source):
    options = {"layout": "NHWC"}
    if source in ("array", "dataset"):
        data = {"train": CUBES if source == "array" else [*CUBES]}
        with pytest.raises(UsageError, match="in two ways") as caught:
            Forge().train("ae", data=data, quiet=True)
        assert "data={'train': x, 'layout': 'NHWC'}" in caught.value.hint
        data |= options
    else:
        np.savez("x.npz", x=CUBES)
        np.save("x.npy", CUBES)
        data = {"name": "arrays", "path": f"x.{source[-3:]}"}
        data["stream"] = "always" if source.startswith("streamed") else "auto"
        answer = cli(
            "data",
            "show",
            "arrays",
            *(f"--set=data.{k}={v}" for k, v in data.items() if k != "name"),
        )
        assert "in two ways" in answer.err
        assert "--set data.layout=NHWC" in answer.err
        data |= options
    train = {"epochs": 1, "batch_size": 4}
    run = Forge().train("ae", data=data, model={"hidden": [4]}, train=train, quiet=True)
    about = run.manifest["data"]
    assert (about["shape"], about["preprocessing"]["layout"]) == ([6, 6, 6], "NHWC")
    Forge().decode(run.path, np.zeros((2, 16), np.float32), "decoded")
    decoded = np.load("decoded/decoded.npz")["x"]
    assert decoded.shape == (2, 6, 6, 6)
    z = torch.zeros(2, 16)
    expected = run.load_model().decode(z).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["HWCN", "HWN", "NHWC"])
def test_decoded_images_have_the_layout_of_the_data(work, layout):
    letters = [letter for letter in ("N", "C", "H", "W") if letter in layout]
    sizes = {"N": 40, "C": 3, "H": 6, "W": 5}
    standard = np.random.default_rng(0).random([sizes[letter] for letter in letters])
    stored = standard.transpose([letters.index(letter) for letter in layout]).astype(np.float32)
    data = {"train": stored, "layout": layout}
    run = Forge().train("ae", data=data, train={"epochs": 1}, run="r", quiet=True)
    z = torch.zeros(7, run.load_model().latent.shape[0])
    Forge().decode(run, z, "decoded")
    x = np.load("decoded/decoded.npz")["x"]
    assert x.shape == tuple({**sizes, "N": 7}[letter] for letter in layout)
    images = torch.from_numpy(x).permute([layout.index(letter) for letter in letters])
    with torch.no_grad():
        expected = run.load_model().decode(z)
    assert torch.allclose(images.reshape(expected.shape), expected, atol=1e-6)


@pytest.mark.parametrize("stream", ["never", "always"])
def test_the_items_of_a_dataset_are_the_first_axis(stream):
    data = OtherData(None, DataConfig(stream=stream), data=[np.zeros((6, 10), np.uint8)] * 6)
    assert load_whole(data)[0].spec.shape == (1, 6, 10)


def test_labels_decide_which_axis_counts_the_images():
    assert find_layout((6, 6, 10), "auto", "d", 6) == "NHW"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((13, 200, 8, 8), "13 images with 200 channels; if it contains 200 images"),
        ((23, 28, 400), "23 images of 28x400 pixels; if it contains 400 images of 23x28"),
    ],
)
def test_unlikely_readings_are_announced_with_the_other_one(caplog, shape, said):
    load_splits(None, DataConfig(), np.zeros(shape, np.uint8))
    assert said in caplog.text


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize(("shape", "layout"), [((30, 2, 64), "NCL"), ((30, 64, 2), "NLC")])
def test_images_that_may_be_signals_are_announced(caplog, shape, layout, as_dataset):
    x = np.zeros(shape, np.uint8)
    data = list(x) if as_dataset else x
    assert load_splits(None, DataConfig(), data).spec.kind == "image"
    assert f"if it contains signals, try data={{'train': x, 'layout': '{layout}'}}" in caplog.text
    caplog.clear()
    spec = load_splits(None, DataConfig(layout=layout), data).spec  # as the message says
    assert (spec.kind, spec.shape) == ("signal", (2, 64))
    assert "signals" not in caplog.text
