"""The exceptions of LatentForge."""

from __future__ import annotations

import pytest

from latentforge.errors import UsageError


@pytest.mark.parametrize("keyword", ["hint", "remedy"])
def test_the_hint_has_two_names(keyword):
    error = UsageError("no split 'tset'", **{keyword: "did you mean 'test'?"})
    assert error.hint == error.remedy == "did you mean 'test'?"
    assert str(error) == "no split 'tset'\n  try: did you mean 'test'?"
