"""The text of results: metrics with their standard errors."""

from __future__ import annotations

import math

import pytest

from latentforge.cli.output import format_estimate


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (142.07531772, 2.6e-7, "142.075"),  # rounding of an exact metric
        (-142.07531772, 2.6e-7, "-142.075"),
        (142.07531772, 1e-4, "142.07532 ± 0.00010"),
        (104.31, 0.04, "104.310 ± 0.040"),
        (0.0, 2.6e-7, "0.00000000 ± 0.00000026"),
        (1.5, 0.0, "1.5"),
        (1.5, math.nan, "1.5"),
    ],
)
def test_an_error_below_the_shown_digits_is_left_out(value, error, text):
    assert format_estimate(value, error) == text
