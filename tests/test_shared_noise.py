"""Noise of a batch sharded over processes: each draws the rows that one process would draw."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from latentforge.contracts import DataSpec
from latentforge.data.images import ImageSplit
from latentforge.latent import DiagonalGaussian, noise_like
from latentforge.seeding import Shard, sharding

LAYOUTS = {
    "flat": lambda n: torch.empty(n, 5),
    "half of a layer": lambda n: torch.empty(n, 10).chunk(2, dim=1)[0],
    "channels last": lambda n: torch.empty(n, 3, 4, 5).to(memory_format=torch.channels_last),
    "scalars": lambda n: torch.empty(n),
}


def drawn(images, values, cuts):
    """The noise that each process draws in turn; each seeds its own generator."""
    rows = []
    for start, stop in pairwise(cuts):
        draw = torch.Generator().manual_seed(7)
        with sharding(Shard(draw, start, stop, images)):
            rows.append(noise_like(values(stop - start)))
    return rows


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cuts", [(0, 7), (0, 4, 7), (0, 1, 2, 7), (0, 0, 7)])
def test_rows_of_all_processes_equal_the_noise_of_one(layout, cuts):
    values = LAYOUTS[layout]
    torch.manual_seed(7)
    expected = noise_like(values(7))
    torch.manual_seed(7)
    assert torch.equal(expected, torch.randn_like(values(7)))
    assert torch.equal(torch.cat(drawn(7, values, cuts)), expected)


def test_posterior_samples_its_rows_and_other_shapes_are_independent():
    mean, log_var = torch.randn(6, 3), torch.zeros(6, 3)
    torch.manual_seed(1)
    expected = DiagonalGaussian(mean, log_var).sample()
    torch.manual_seed(99)
    with sharding(Shard(torch.Generator().manual_seed(1), 2, 5, 6)):
        found = DiagonalGaussian(mean[2:5], log_var[2:5]).sample()
        other = noise_like(mean)  # its rows are not the images of this process
    assert torch.equal(found, expected[2:5])
    torch.manual_seed(99)
    assert torch.equal(other, torch.randn(6, 3))
    torch.manual_seed(1)
    assert torch.equal(DiagonalGaussian(mean, log_var).sample(), expected)  # outside of the context


def test_pixels_are_drawn_from_the_common_generator():
    x = torch.full((4, 1, 8, 8), 0.5)
    images = ImageSplit(x, None, DataSpec(shape=(1, 8, 8)), dynamic=True)
    index = torch.arange(4)
    torch.manual_seed(1)
    expected = images.batch(index).x
    torch.manual_seed(99)
    with sharding(Shard(torch.Generator().manual_seed(1), 0, 4, 4)):
        assert torch.equal(images.batch(index).x, expected)
