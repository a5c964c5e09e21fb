"""Runs that are used together must have been trained on the same kind of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentforge.config.schema import IN_MEMORY
from latentforge.errors import UsageError
from latentforge.runs.compatibility import check_same_images
from latentforge.runs.folder import RunFolder


def run(path: str, data: str, shape: list[int]) -> RunFolder:
    about = {"name": data, "shape": shape, "classes": ["a", "b"], "preprocessing": {}}
    return RunFolder(Path(path), {"config": {"data": {"name": data}}, "data": about})


@pytest.mark.parametrize(
    ("name", "hint"), [("digits", "trained on digits"), (IN_MEMORY, "trained on the same data")]
)
def test_the_hint_names_data_that_fits(name: str, hint: str):
    with pytest.raises(UsageError, match="shape: 64, not 1x8x8") as caught:
        check_same_images(
            run("a", name, [1, 8, 8]).manifest["data"], "judge", run("b", name, [64]), "a"
        )
    assert caught.value.hint == f"--with judge=RUN, where RUN was {hint}"
