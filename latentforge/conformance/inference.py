"""Contract checks for the inference options of models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentforge.conformance.assertions import train_steps
from latentforge.conformance.model_fixtures import (
    batch_for,
    build_model,
    default_loss,
    examples_for,
    infer,
)
from latentforge.conformance.samplers import list_other_samplers
from latentforge.conformance.subject import CheckSkipped, Subject, require


def inference_options_do_not_change_the_state(subject: Subject) -> None:
    """Training steps, followed by inference, must leave the same weights and buffers, bit by bit,
    with every value of the options: they are changed without a new training."""
    others = _others_of(subject)
    expected = _train(subject, None)
    hint = "in training mode use no inference options, and store nothing that depends on them"
    for name, sampler in others.items():
        for key, value in _train(subject, sampler).items():
            saw = f"{key} differs after training with another value of sampler.{name}"
            require(torch.equal(value, expected[key]), saw, hint)


def inference_options_keep_the_shapes(subject: Subject) -> None:
    others = _others_of(subject)
    model, x = build_model(subject).eval(), batch_for(subject).x
    expected = infer(subject, model, x)
    for option, sampler in others.items():
        model.sampler = sampler
        for name, value in infer(subject, model, x).items():
            before, now = tuple(expected[name].shape), tuple(value.shape)
            saw = f"another value of sampler.{option} changes {name} from shape {before} to {now}"
            require(before == now, saw, "shapes may depend on the config, which is fixed in a run")
            saw = f"{name} contains NaN or infinity with another value of sampler.{option}"
            require(value.isfinite().all(), saw, "fix the arithmetic or the bounds of the option")


def _others_of(subject: Subject) -> dict[str, Any]:
    inference = subject.entry.spec.inference
    if inference is None:
        raise CheckSkipped("it has no inference options")
    if others := list_other_samplers(inference):
        return others
    raise CheckSkipped("no other valid value of its inference options is known")


def _train(subject: Subject, sampler: Any) -> dict[str, Tensor]:
    """The state of a model after a few training steps and inference."""
    model, batch = build_model(subject), batch_for(subject)
    if sampler is not None:
        model.sampler = sampler
    loss = default_loss(subject, examples_for(subject).spec)
    list(train_steps(model, loss, batch))
    infer(subject, model.eval(), batch.x)
    return {name: value.clone() for name, value in model.state_dict().items()}
