"""Dataset `factor-digits`: digits drawn with controlled rotation, scale, shift and thickness."""

from __future__ import annotations

from collections.abc import Iterable

from latentforge import Arrays, DatasetSpec, hookimpl

from .config import FactorDigitsConfig


def load(config: FactorDigitsConfig, split: str) -> Arrays:
    """Return images, uint8 (N, 1, size, size), with labels from 0 to 9 and five numeric factors."""
    from .draw import load_split

    return load_split(config, split)


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="factor-digits",
        summary="Digits drawn with known rotation, scale, shift and stroke thickness; no download",
        load=load,
        config=FactorDigitsConfig,
        splits=("train", "test"),
    )
