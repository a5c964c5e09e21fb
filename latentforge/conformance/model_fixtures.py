"""The model under test with its data, its default loss and its outputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.conformance.assertions import find_refusal
from latentforge.conformance.examples import GIVE_DATA, Examples, candidates
from latentforge.conformance.fixtures import build, build_other
from latentforge.conformance.subject import CheckSkipped, NotChecked, Subject, require
from latentforge.contracts import Batch, DataSpec, LatentSpec
from latentforge.errors import UsageError


def examples_for(subject: Subject) -> Examples:
    """The first examples that a model and its default loss support or, if the loss supports none,
    the first that the model does. Raises NotChecked if it supports none."""

    def find() -> Examples:
        supported, refusal = [], ""
        for examples in candidates(subject, subject.entry):
            try:
                model = build(subject, examples.spec)
            except UsageError as error:
                refusal = refusal or f"{examples}: {error.message}"
                continue
            make_loss = partial(default_loss, subject, examples.spec)
            if not find_refusal(make_loss, model, examples.batch()):
                return examples
            supported.append(examples)
        if not supported:
            why = f"it supports none of the test data, such as {refusal}"
            raise NotChecked(f"{why}; {GIVE_DATA}")
        return supported[0]

    return subject.once("examples", find)


def default_loss(subject: Subject, data: DataSpec) -> nn.Module:
    """The default loss of a model."""
    entry = subject.forge.registry.get("losses", subject.entry.spec.default_loss)
    return build_other(subject, entry, data)


def batch_for(subject: Subject, count: int = 6) -> Batch:
    """Examples that the model under test supports."""
    return examples_for(subject).batch(count)


def build_model(subject: Subject, seed: int = 0) -> Any:
    return build(subject, examples_for(subject).spec, seed)


def posterior_of(subject: Subject) -> Any:
    """The posterior q(z|x) of six images, from a new model."""
    return build_model(subject).eval().encode(batch_for(subject).x)


def latent_of(model: nn.Module) -> LatentSpec:
    latent = getattr(model, "latent", None)
    hint = "set self.latent = LatentSpec(shape=(latent_dim,), prior='normal') in __init__"
    require(isinstance(latent, LatentSpec), f"model.latent is {type(latent).__name__}", hint)
    assert isinstance(latent, LatentSpec)
    return latent


def infer(subject: Subject, model: Any, x: Tensor) -> dict[str, Tensor]:
    """Return the outputs of the model that explorers use, by name. Raises CheckSkipped if there
    are none."""
    provides = subject.entry.provides
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        if "encode" in provides:
            found["the code"] = model.encode(x).mode()
        if "decode" in provides:
            z = found.get("the code")
            if z is None:
                z = torch.ones(len(x), *latent_of(model).shape, device=x.device)
            found["the decoded image"] = model.decode(z)
        if "classify" in provides:
            found["the logits"] = model(x)
    if not found:
        raise CheckSkipped("it provides none of encode, decode and classify")
    return found


def parts_for(subject: Subject) -> tuple[nn.Module, nn.Module, Batch]:
    """A new model, its default loss and a batch for both. Raises NotChecked if the loss does not
    support the data."""
    examples = examples_for(subject)
    model, batch = build_model(subject), examples.batch()
    name, make_loss = subject.entry.spec.default_loss, partial(default_loss, subject, examples.spec)
    if subject.once("refusal", lambda: find_refusal(make_loss, build_model(subject), batch)):
        why = f"its default loss {name!r} refuses the test data: {subject.cache['refusal']}"
        raise NotChecked(f"{why}; {GIVE_DATA}")
    return model, make_loss(), batch
