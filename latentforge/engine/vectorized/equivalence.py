"""Checks whether members can be trained together, by comparing a few steps with separate ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentforge.config.schema import RunConfig
from latentforge.contracts import DataSpec, Terms
from latentforge.data.images import ImageSplit
from latentforge.engine.step import StepRunner, Trainee
from latentforge.engine.vectorized.ensemble import Ensemble
from latentforge.engine.vectorized.noise import NotStackable
from latentforge.errors import one_line

TOLERANCE = 1e-2
"""The largest accepted difference of gradients, as a fraction of the largest gradient. A different
summation order changes gradients by 1e-5; after a step of Adam, a few weights whose gradients are
rounding errors have moved the other way. A different image or noise changes gradients by as much as
their size."""


def find_obstacle(
    trainees: Sequence[Trainee],
    configs: Sequence[RunConfig],
    images: ImageSplit,
    device: torch.device,
    spec: DataSpec,
) -> str:
    """Return the reason why these members cannot be trained together, or an empty string."""
    try:
        check_modules(trainees[0])
        compare_steps(trainees, configs, images, device, spec)
    except NotStackable as reason:
        return str(reason)
    except Exception as error:  # vmap's message about what it does not support
        return one_line(error)
    return ""


def check_modules(trainee: Trainee) -> None:
    if trainee.step_hooks:
        raise NotStackable("its model or loss has after_step, which changes state after each step")
    for module in trainee.modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise NotStackable(f"its {kind} stores running statistics")
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
            raise NotStackable(f"its {kind} uses random numbers that cannot be sampled in advance")
        if isinstance(module, nn.modules.conv._ConvNd):
            raise NotStackable(
                f"its {kind} rounds differently under vmap, so that results drift in ten steps"
            )


def compare_steps(
    trainees: Sequence[Trainee],
    configs: Sequence[RunConfig],
    images: ImageSplit,
    device: torch.device,
    spec: DataSpec,
) -> None:
    """Raise NotStackable if a step of the ensemble differs from the steps of separate runs.
    Compares the first two steps and the last step of the epoch, whose batch may be smaller."""

    def runners() -> list[StepRunner]:
        pairs = zip(trainees, configs, strict=True)
        return [StepRunner(copy.deepcopy(t).train(), images, config, device) for t, config in pairs]

    single, stacked_runners = runners(), runners()
    ensemble = Ensemble(stacked_runners, configs, spec)
    rows = [ensemble.runners.index(runner) for runner in stacked_runners]
    length = single[0].epoch_length
    ensemble.start_epoch(0)
    for runner in single:
        runner.start_epoch(0)
    for done in sorted({0, min(1, length - 1), length - 1}):
        separate = [runner.run(done) for runner in single]
        stacked = ensemble.run(done)
        if not stacked.finite:  # no weights change from here on; check that single steps fail too
            if all(bool(terms.total().isfinite()) for terms in separate):
                raise NotStackable("its loss is not finite under vmap")
            return
        for row, runner, terms in zip(rows, single, separate, strict=True):
            stacked_terms = stacked.terms(row)
            check_terms(stacked_terms, terms)
            for name, parameter in runner.trainee.named_parameters():
                leaf = ensemble.leaves.get(name)
                stacked_grad = None if leaf is None or leaf.grad is None else leaf.grad[row]
                if not same_gradient(parameter.grad, stacked_grad):
                    raise NotStackable(f"the gradient of its {name} differs under vmap")
    check_updates(trainees, single, stacked_runners)


def check_terms(stacked_terms: Terms, terms: Terms) -> None:
    if stacked_terms.values.keys() != terms.values.keys():
        raise NotStackable("its loss has different terms under vmap")
    largest = max(float(value.abs()) for value in terms.values.values())
    for name, value in terms.values.items():
        weight, single_weight = stacked_terms.weights.get(name, 1.0), terms.weights.get(name, 1.0)
        if not math.isclose(weight, single_weight, rel_tol=1e-5):
            raise NotStackable(f"the weight of its term {name!r} differs under vmap")
        difference = abs(float(stacked_terms.values[name] - value))
        if not difference <= TOLERANCE * abs(float(value)) + 1e-4 * largest:
            raise NotStackable(f"its term {name!r} differs under vmap")


def check_updates(
    trainees: Sequence[Trainee], single: Sequence[StepRunner], stacked_runners: Sequence[StepRunner]
) -> None:
    """Raise NotStackable if the optimizer moved weights differently or a buffer changed."""
    for before, eager, stacked in zip(trainees, single, stacked_runners, strict=True):
        for name, parameter in before.named_parameters():
            after = eager.trainee.get_parameter(name)
            moved = (after - parameter).norm()
            difference = (after - stacked.trainee.get_parameter(name)).norm()
            if not difference <= 0.1 * moved + 1e-6:  # as for gradients; False for NaN
                raise NotStackable(f"the optimizer updates its {name} differently under vmap")
        for name, buffer in before.named_buffers():
            if not torch.equal(buffer, eager.trainee.get_buffer(name)):
                raise NotStackable(f"its buffer {name} changes from step to step")


def same_gradient(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:  # None and zeros are equal: neither moves the weights
        remaining = first if second is None else second
        return remaining is None or not bool(remaining.any())
    difference, largest = (first - second).abs().max(), second.abs().max()
    return bool(difference <= TOLERANCE * largest + 1e-6)
