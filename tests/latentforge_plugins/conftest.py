"""Fixtures that evaluate metrics and run explorers of a model on arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentforge import Forge
from latentforge.config.resolve import check_options
from latentforge.config.schema import Component, DataConfig
from latentforge.contracts import Arrays, Step
from latentforge.data.preparation import prepare_whole
from latentforge.data.scaling import standardize
from latentforge.latent import Bernoulli


def without_terms(likelihood: Any) -> torch.nn.Module:
    """A loss that only declares a likelihood."""
    loss = torch.nn.Module()
    loss.likelihood = likelihood
    return loss


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., Any]:
    """`evaluate("recon", model, x)` returns (metrics, protocol); names are separated by spaces.

    `x` and `y` are the test split; `train` is (x, y) of the train split. Options are by measure.
    The default loss has no terms, and the likelihood `likelihood`. `arrays` are other fields of the
    Arrays, such as range; with `scaled`, their values are standardized.
    """
    from latentforge.engine.evaluator import Evaluator

    registry = Forge().registry

    def call(
        names,
        model,
        x,
        y=None,
        *,
        loss=None,
        likelihood=Bernoulli(),  # noqa: B008  (it has no state)
        train=None,
        split="test",
        seed=0,
        version=2,
        provides=(),
        arrays=None,
        scaled=False,
        **options,
    ):
        parts = {"test": (x, y), "train": train or (x, y)}
        given = {name: Arrays(*part, **(arrays or {})) for name, part in parts.items()}
        splits = prepare_whole(given, "arrays")
        chosen = []
        for name in names.split():
            entry = registry.get("measures", name)
            own = check_options(entry.spec.config, options.get(name, {}), name)
            chosen.append(Component(entry, own))
        evaluator = Evaluator(
            model,
            loss or without_terms(likelihood),
            standardize(splits, "arrays") if scaled else splits,
            chosen,
            seed=seed,
            device=torch.device("cpu"),
            version=version,
            provides=frozenset(provides),
        )
        metrics = evaluator.run(split, Step(10, 10, len(given["train"].x), 1))
        return metrics, evaluator.protocol

    return call


@pytest.fixture(scope="session")
def affine() -> Any:
    """The module `affine`, with a model whose codes are its pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        return importlib.import_module("affine")


@pytest.fixture(scope="session")
def explore() -> Callable[..., Any]:
    """`explore("sample", model, x, y, n=20)` returns the checked findings of an explorer.

    `x` is used for all splits unless `train` is (x, y); `roles` has other models by role,
    `provides` has the capabilities of the model, by default those in its own attribute.
    """
    from types import SimpleNamespace

    from latentforge.contracts import ExploreContext
    from latentforge.findings import checked

    registry = Forge().registry

    def call(
        name, model, x, y=None, *, train=None, roles=None, seed=0, provides=None, loss=None,
        binarize="none", layout=None, **options,
    ):  # fmt: skip
        given = {"train": Arrays(*train) if train else Arrays(x, y), "test": Arrays(x, y)}
        layout = layout or ("NCHW" if x.ndim == 4 else "auto")
        splits = prepare_whole(given, "arrays", DataConfig(binarize=binarize, layout=layout))
        entry = registry.get("explorers", name)
        checked_options = check_options(entry.spec.config, options, name)
        context = ExploreContext(
            model=model.eval(),
            data=splits.spec,
            images=splits.split,
            device=torch.device("cpu"),
            seed=seed,
            roles={
                k: SimpleNamespace(name=k, model=v.eval(), provides=getattr(v, "provides", ()))
                for k, v in (roles or {}).items()
            },
            name="own",
            loss=loss,
            provides=frozenset(getattr(model, "provides", ()) if provides is None else provides),
            preprocessing=splits.preprocessing,
        )
        torch.manual_seed(seed)
        with torch.no_grad():
            return checked(entry.spec.explore(context, checked_options))

    return call
