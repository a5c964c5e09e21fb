from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from latentforge_plugins.digits import reader
from latentforge_plugins.factor_digits import FactorDigitsConfig, load
from latentforge_plugins.factor_digits.draw import draw, read_sources
from latentforge_plugins.factor_digits.thinning import centre_lines, thin
from skimage.measure import label
from skimage.metrics import hausdorff_distance
from skimage.morphology import skeletonize

from latentforge import Forge
from latentforge.errors import ConfigError

SMALL = FactorDigitsConfig(images=60, test_images=20)
NAMES = ["rotation", "scale", "shift_x", "shift_y", "thickness"]
LINE = torch.stack([torch.zeros(161), torch.linspace(-0.5, 0.5, 161)], 1).double()  # from top down


def drawn(line=LINE, size=28, **factors):
    usual = {"rotation": 0.0, "scale": 0.5, "shift_x": 0.0, "shift_y": 0.0, "thickness": 2.0}
    table = {name: torch.tensor([float(value)]) for name, value in {**usual, **factors}.items()}
    image = draw([line], {name: values.double() for name, values in table.items()}, size)
    return image[0].double() / 255


def centre(image):
    """The centre of the ink as (x, y) from the image's centre, in pixels."""
    place = torch.arange(len(image)).double() + 0.5 - len(image) / 2
    return [float((image.sum(axis) * place).sum() / image.sum()) for axis in (0, 1)]


@pytest.mark.parametrize("thickness", [1.0, 2.0, 3.5, 6.0])
@pytest.mark.parametrize("scale", [0.4, 0.8])
def test_strokes_have_the_given_thickness_at_every_scale(thickness, scale):
    width = drawn(thickness=thickness, scale=scale, size=40)[15:25].sum(1)
    torch.testing.assert_close(width, torch.full_like(width, thickness), rtol=0, atol=0.1)


def test_the_scale_is_the_length_relative_to_the_image():
    lengths = [float(drawn(scale=scale, size=40).amax(1).sum()) for scale in (0.4, 0.6)]
    assert lengths[1] - lengths[0] == pytest.approx(8, abs=0.2)
    assert lengths[0] == pytest.approx(16 + 2, abs=0.5)  # and half a thickness at both ends


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -2.5), (-1.2, 1.7)])
def test_a_shift_moves_the_ink_in_pixels(shift):
    image = drawn(shift_x=shift[0], shift_y=shift[1], rotation=20)
    assert centre(image) == pytest.approx(shift, abs=0.05)


@pytest.mark.parametrize("degrees", [-90, -30, 0, 45])
def test_a_rotation_is_anticlockwise_in_degrees(degrees):
    upper = LINE[LINE[:, 1] < 0]  # its centre is 1/4 above the centre
    x, y = centre(drawn(upper, rotation=degrees, size=64))
    angle = math.degrees(math.atan2(-x, -y))
    assert angle == pytest.approx(degrees, abs=0.5)


def test_parts_outside_of_the_image_are_cut_off():
    assert drawn(shift_x=13)[:, 26:].sum() > 10
    assert drawn(shift_x=500).sum() == 0


def test_lines_are_where_scikit_image_finds_them():
    strokes = read_sources(SMALL, "train")[0][:40] > 0.4
    strokes = strokes.repeat_interleave(4, 1).repeat_interleave(4, 2)
    strokes = torch.nn.functional.pad(strokes, (2, 2, 2, 2))
    lines = thin(strokes)
    for line, digit in zip(lines.numpy(), strokes.numpy(), strict=True):
        expected = skeletonize(digit, method="zhang")
        assert hausdorff_distance(line, expected) <= 3  # of 36 pixels
        assert line.sum() == pytest.approx(expected.sum(), rel=0.25)
        parts, holes = label(digit, connectivity=2), label(~digit, connectivity=1)
        assert label(line, connectivity=2).max() == parts.max()
        assert label(~line, connectivity=1).max() == holes.max()


def test_centre_lines_are_centred_with_the_longer_side_1():
    for line in centre_lines(reader.read()[0][:20, 0]):
        low, high = line.amin(0), line.amax(0)
        torch.testing.assert_close(low, -high)
        assert float((high - low).max()) == pytest.approx(1)


def test_factors_are_uniform_and_independent_of_each_other_and_of_the_class():
    config = replace(SMALL, images=4000, rotation=(-20.0, 40.0))
    data = load(config, "train")
    assert (data.x.shape, data.x.dtype) == ((4000, 1, 28, 28), torch.uint8)
    assert [*data.factors] == NAMES
    limits = {"rotation": (-20.0, 40.0), "scale": config.scale, "thickness": config.thickness}
    for name in NAMES:
        low, high = limits.get(name, config.shift)
        values = (data.factors[name] - low) / (high - low)
        assert (values >= 0).all()
        assert (values <= 1).all()
        counts = torch.histc(values, 10, 0, 1)
        assert (counts - 400).abs().max() < 5 * 19  # standard deviation: sqrt(4000 * 0.1 * 0.9)
    table = torch.stack([data.y.double(), *data.factors.values()])
    correlations = torch.corrcoef(table) - torch.eye(6)
    assert correlations.abs().max() < 5 / math.sqrt(4000)


def test_data_is_a_function_of_the_options():
    one, same, other = (load(replace(SMALL, seed=seed), "train") for seed in (0, 0, 1))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.factors["scale"], same.factors["scale"])
    assert not torch.equal(one.factors["scale"], other.factors["scale"])
    assert not torch.equal(one.x[:20], load(SMALL, "test").x)


def test_training_and_test_images_show_different_handwritten_digits():
    train, test = (read_sources(SMALL, split)[0] for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    everything = torch.cat([train, test]).flatten(1)
    expected = reader.read()[0].flatten(1)
    assert torch.equal(everything.sum(0), expected.sum(0))  # each digit once


def test_mnist_can_be_the_source(tmp_path):
    from .test_mnist import idx_bytes

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    x, y = reader.read()
    images = (torch.nn.functional.pad(x[:30, 0], (2, 2, 2, 2)) * 255).byte().numpy()
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        labels = y[:30].numpy().astype(np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    data = load(replace(SMALL, source="mnist", root=tmp_path), "train")
    assert data.x.shape == (60, 1, 28, 28)
    assert {*data.y.tolist()} <= {*y[:30].tolist()}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rotation=[10, -10]", "rotation must go from a lower limit to a higher one"),
        ("scale=[0, 1]", "scale must be greater than 0"),
        ("root=here", "it needs source=mnist"),
    ],
)
def test_bad_options_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        Forge(["latentforge_plugins.factor_digits"]).load_data("factor-digits", [option])


def test_the_core_knows_the_factors():
    forge = Forge(["latentforge_plugins.factor_digits"])
    data = forge.load_data("factor-digits", ["images=50", "test_images=20", "size=32"])
    assert [factor.name for factor in data.spec.factors] == ["class", *NAMES]
    assert data.spec.shape == (1, 32, 32)
    assert len(data.split("test")) == 20
