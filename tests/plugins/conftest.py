"""Figures of a model on arrays, by the evaluator that every run is measured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from latentforge import Forge
from latentforge.config import Component, check_options
from latentforge.contracts import Arrays, Step
from latentforge.preparation import prepare_whole


@pytest.fixture(scope="session")
def measured() -> Callable[..., Any]:
    """`measured("recon", model, x)` gives (figures, protocol) of the measures, named in one text.

    `x` and `y` are the split test; `train` is another split's (x, y). Options are by measure.
    """
    from latentforge.engine.evaluator import Evaluator

    registry = Forge().registry

    def call(names, model, x, y=None, *, loss=None, train=None, split="test", seed=0, **options):
        given = {"test": Arrays(x, y), "train": Arrays(*train) if train else Arrays(x, y)}
        chosen = []
        for name in names.split():
            entry = registry.get("measures", name)
            own = check_options(entry.spec.config, options.get(name, {}), name)
            chosen.append(Component(entry, own))
        evaluator = Evaluator(
            model,
            loss or torch.nn.Module(),
            prepare_whole(given, "arrays"),
            chosen,
            seed=seed,
            device=torch.device("cpu"),
        )
        figures = evaluator.run(split, Step(10, 10, len(given["train"].x), 1))
        return figures, evaluator.protocol

    return call
