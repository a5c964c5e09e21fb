"""Text of paths and of tables, whatever bytes and characters it contains."""

from __future__ import annotations

import os

import pytest

from latentforge.io.paths import as_cell, as_text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("run Ä 猫", "run Ä 猫"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),  # a name in Latin-1
        ("\ud800", r"\ud800"),  # possible in JSON
        ("caf\udcc3\udca9", "café"),  # UTF-8 that Python read in another locale
    ],
)
def test_text_can_be_written_as_utf_8(text, written):
    assert as_text(text) == written
    written.encode()


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("cat", "cat"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        (" @SUM(A1)", "' @SUM(A1)"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        (-0.5, -0.5),
    ],
)
def test_a_cell_is_no_formula(value, cell):
    assert as_cell(value) == cell
