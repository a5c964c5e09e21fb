"""Class colours are distinguishable, also with colour vision deficiency."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from latentforge.rendering.palette import COLOURS, MARKERS, SCALE, colour, marker, scale_limits

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
VISION = {
    "full": [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
    "protanopia": [
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ],
    "deuteranopia": [
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ],
    "tritanopia": [
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ],
}


def to_oklab(name: str, vision: list) -> np.ndarray:
    """Oklab coordinates times 100 (Ottosson 2020) of a colour under a type of vision."""
    srgb = np.array([int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    r, g, b = np.clip(np.array(vision) @ linear, 0, 1)
    cones = np.cbrt([
        0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
        0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
        0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
    ])  # fmt: skip
    matrix = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return 100 * np.array(matrix) @ cones


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_ten_classes_are_far_apart(vision):
    ten = [to_oklab(colour(i), VISION[vision]) for i in range(10)]
    closest = min(np.linalg.norm(a - b) for a, b in combinations(ten, 2))
    assert closest > 11  # matplotlib's default ten: 0.7 to 4 under dichromacy
    white = to_oklab("#ffffff", VISION[vision])
    assert min(np.linalg.norm(c - white) for c in ten) > 20


def test_classes_beyond_ten_reuse_colours_with_other_markers():
    for few in (False, True):
        looks = {(colour(i), marker(i, few)) for i in range(60)}
        assert len(looks) == 60
    assert len({marker(i, few=True) for i in range(10)}) == len(MARKERS) == len(COLOURS) == 10
    assert {marker(i) for i in range(10)} == {"o"}


@pytest.mark.parametrize("vision", VISION)
def test_lightness_of_the_scale_of_numbers_increases(vision):
    lightness = [to_oklab(name, VISION[vision])[0] for name in SCALE]
    assert min(np.diff(lightness)) > 3
    white = to_oklab("#ffffff", VISION[vision])[0]
    dark = to_oklab("#14171c", VISION[vision])[0]  # the background of a page in dark mode
    assert min(white - lightness[-1], lightness[0] - dark) > 13


def test_scale_is_viridis_without_its_ends():
    import matplotlib
    from matplotlib.colors import to_hex

    viridis = matplotlib.colormaps["viridis"]
    assert list(SCALE) == [to_hex(viridis(share)) for share in np.linspace(0.2, 0.9, len(SCALE))]


def test_limits_of_the_scale_of_numbers_differ():
    assert scale_limits([3.0, -1.0, 2.0]) == (-1.0, 3.0)
    assert scale_limits([4.0, 4.0]) == (2.0, 6.0)
    assert scale_limits([0.0]) == (-0.5, 0.5)
