"""Chooses the cases of a parametrized test that run without `slow`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_except(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Return the `cases` as parameters, all marked `slow` except the `quick` ones. A case is a
    value, or a tuple of the values of several parameters."""
    cases = list(cases)
    assert all(case in cases for case in quick), "a quick case does not exist"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in quick else pytest.mark.slow,
        )
        for case in cases
    ]
