"""Names of classes in any writing are drawn, or the missing font is named once."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from latentforge.rendering import fonts

NAMES = ("猫", "いぬ", "새")


@pytest.fixture
def classes(work):
    """A folder of images with a class for each name."""
    for name in NAMES:
        (work / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.full((8, 8), 30 * i, np.uint8)).save(f"images/{name}/{i}.png")


@pytest.mark.usefixtures("classes")
def test_missing_characters_are_announced_once(cli, monkeypatch):
    monkeypatch.setattr(fonts, "families", lambda: ["DejaVu Sans"])
    monkeypatch.setattr(fonts, "_announced", set())
    family = list(mpl.rcParams["font.family"])
    first, second = (
        cli("data", "show", "folder", "--set", "root=images", "--out", f"{i}.png") for i in (1, 2)
    )
    assert (first.code, second.code) == (0, 0)
    assert first.err.count("no font (DejaVu Sans) can draw") == 1
    assert all(character in first.err for character in "猫いぬ새")
    assert "fonts-noto-cjk" in first.err
    assert second.err == ""
    assert mpl.rcParams["font.family"] == family


@pytest.mark.skipif(len(fonts.families()) < 2, reason="needs a font with CJK characters")
@pytest.mark.usefixtures("classes")
def test_an_installed_font_draws_them(cli):
    answer = cli("data", "show", "folder", "--set", "root=images")
    assert (answer.code, answer.err) == (0, "")
