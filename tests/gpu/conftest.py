"""Tests that need CUDA, skipped where there is none; `make gpu-test` runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentforge import Forge
from latentforge.workflows.run import Run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Run]:
    """Train a small model on digits on the GPU; `train` contains more settings of [train]."""

    def trained(name: str, forge: Forge | None = None, **options: Any) -> Run:
        settings = {"epochs": 3, "batch_size": 128, "device": "cuda", **options.pop("train", {})}
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return (forge or Forge()).train(
            name, data="digits", train=settings, run=folder, quiet=True, **options
        )

    return trained
