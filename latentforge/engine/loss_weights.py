"""Finds terms of a loss whose weights or values alternate from step to step. The evaluated loss,
and with it the checkpoint BEST, would depend on the number of steps of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch

from latentforge.config.schema import Component
from latentforge.contracts import Terms
from latentforge.engine.data_checks import select_batch
from latentforge.engine.evaluator import evaluation_mode
from latentforge.engine.step import StepRunner
from latentforge.errors import LatentForgeError, PluginError
from latentforge.seeding import callers_state_kept, seeded_draws

STEPS = 12  # the last steps of a run, and the step of evaluations after them
IMAGES = 8
HINT = (
    "return all terms with constant weights: the optimizer trains all terms in each step; sets of "
    "parameters that are trained in turn come with a later version"
)


@dataclass(frozen=True)
class Alternation:
    """A term whose weight or value is zero in one of two adjacent steps. `step` is the index of the
    first one, and `numbers` are the weights or the values in both."""

    what: str  # "weight" or "value"
    term: str
    step: int
    numbers: tuple[float, float]

    def __str__(self) -> str:
        before, after = self.numbers
        return (
            f"the {self.what} of the term {self.term!r} alternates: it is {before:g} in step "
            f"{self.step + 1} and {after:g} in step {self.step + 2}"
        )


def find_alternation(
    numbers_at: Callable[[int], Mapping[str, Any]], total: int, what: str = "weight"
) -> Alternation | None:
    """Return a term whose weight or value, `what`, switches between zero and nonzero at least twice
    in the last steps of a run with `total` steps, or None. `numbers_at` returns the weights or the
    values, as scalars, at the index of a step; a term without one has the weight 1.

    A weight that is zero in a single step is accepted, because a cyclic schedule may touch zero.
    The first step of the run is not considered, because it may initialize the loss.
    """
    steps = range(max(1, total - STEPS + 1), total + 1)
    found = {step: dict(numbers_at(step)) for step in steps}
    for term in dict.fromkeys(name for numbers in found.values() for name in numbers):
        numbers = [float(found[step].get(term, 1.0)) for step in steps]
        switches = [i for i, (a, b) in enumerate(pairwise(numbers)) if (a == 0) != (b == 0)]
        if len(switches) >= 2 and numbers.count(0.0) > 1:
            first = switches[0]
            return Alternation(what, term, steps[first], (numbers[first], numbers[first + 1]))
    return None


def find_alternating_term(terms_at: Callable[[int], Terms], total: int) -> Alternation | None:
    """Return the first term whose weight, or else whose value, alternates between 0 and other
    values in the last steps of a training of `total` steps. `terms_at` returns the terms at the
    index of a step, for the same batch and noise, so that only the step changes a value."""
    terms = cache(terms_at)
    return find_alternation(lambda step: terms(step).weights, total) or find_alternation(
        lambda step: terms(step).values, total, "value"
    )


def check_loss_weights(component: Component, steps: StepRunner) -> None:
    """Raise PluginError if a term of a third-party loss alternates. The terms of the built-in
    losses do not. Random numbers and the modules stay as they are."""
    if component.entry.plugin.builtin:
        return
    alternation = None
    with suppress(LatentForgeError):  # an error of the loss is reported by the first step
        alternation = component.call("reading the weights", probe, steps)
    if alternation:
        raise PluginError(
            f"loss {component.name!r}: {alternation}",
            details=[
                f"loss {component.name!r} of {component.entry.plugin.title}",
                "the evaluated loss and the best checkpoint would depend on the last step",
            ],
            hint=HINT,
        )


def probe(steps: StepRunner) -> Alternation | None:
    """Call a copy of the model and the loss on a few training images at the last steps, with the
    same noise, so that only the step changes the terms."""
    with callers_state_kept(steps.device), seeded_draws(0):
        batch, copied = select_batch(steps.images, IMAGES), deepcopy(steps.trainee)

        def terms_at(step: int) -> Terms:
            with seeded_draws(0):
                torch.manual_seed(0)  # of the device, too
                return copied.forward(batch, steps.step_at(step))

        with evaluation_mode(copied):
            return find_alternating_term(terms_at, steps.total_steps)
