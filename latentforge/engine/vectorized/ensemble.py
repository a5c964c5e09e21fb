"""Ensemble: executes the steps of several runs together, with stacked weights and a vmapped loss.

Each member has its own images, noise, loss weights, learning rate and seed. `StepRunner` executes
the same steps for a single run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from latentforge.config.schema import RunConfig
from latentforge.contracts import Batch, Terms
from latentforge.engine.compiled import LaterStep
from latentforge.engine.lr_schedule import lr_factor
from latentforge.engine.optimizer import OPTIMIZERS, direct_step
from latentforge.engine.step import StepRunner, Trainee
from latentforge.engine.vectorized.noise import (
    Draw,
    NotStackable,
    Recorder,
    SuppliedNoise,
    generator_states,
)
from latentforge.seeding import permutation


@dataclass(frozen=True)
class StackedTerms:
    """The terms of one step, one row for each member."""

    values: Mapping[str, Tensor]  # each (members,)
    weights: Mapping[str, float | Tensor]  # numbers if they are equal for all members
    per_dim: Mapping[str, Tensor]
    images: int
    finite: bool

    def terms(self, row: int) -> Terms:
        weights = {
            name: float(weight[row]) if isinstance(weight, Tensor) else weight
            for name, weight in self.weights.items()
        }
        per_dim = {name: vector[row] for name, vector in self.per_dim.items()}
        return Terms({name: value[row] for name, value in self.values.items()}, weights, per_dim)


class Ensemble:
    """The trainees and optimizers of `runners`, stacked into one. The trainees' parameters become
    views of the stacked parameters, so they are always up to date. The state of their optimizers is
    up to date only after `unstack`. `varied` contains the options of the loss that differ."""

    def __init__(
        self, runners: Sequence[StepRunner], configs: Sequence[RunConfig], spec: Any
    ) -> None:
        pairs = sorted(zip(runners, configs, strict=True), key=lambda pair: pair[1].train.lr)
        self.runners = [runner for runner, _ in pairs]  # equal rates are adjacent
        self.configs = [config for _, config in pairs]
        self.config, self.spec = self.configs[0], spec
        first = self.runners[0]
        self.trainee, self.images, self.device = first.trainee, first.images, first.device
        self.varied = varied_options(self.configs, self.device)
        self.draws: dict[int, list[Draw]] = {}  # by the number of images in a batch
        self.leaves, self.fixed = stack([runner.trainee for runner in self.runners])
        self.optimizer = self._stack_optimizers()
        self.update = direct_step(self.optimizer)
        self.orders = torch.empty(0)

    # ------------------------------------------------------------ steps

    def start_epoch(self, epoch: int) -> None:
        """Shuffle each member's images for an epoch, counted from 0."""
        orders = [permutation(len(self.images), s.config.seed, epoch) for s in self.runners]
        self.orders = torch.stack(orders).to(self.device)  # (members, images)

    def run(self, done: int) -> StackedTerms:
        """Run step number `done + 1`. If a loss is not finite, no weights change, and `finite` of
        the result is False."""
        batch, noise = self._batch(done)
        terms, totals = self._forward(batch, noise, done)
        if not terms.finite:
            return terms
        for leaf in self.leaves.values():
            leaf.grad = None
        totals.sum().backward()  # type: ignore[no-untyped-call]
        self._update(done)
        return terms

    def _forward(
        self, batch: Batch, noise: Sequence[Tensor], done: int
    ) -> tuple[StackedTerms, Tensor]:
        base = self.runners[0].step_at(done)
        step = LaterStep(base.index, base.total, base.images, base.epoch_length)
        size = batch.index.shape[1]
        images = batch.images  # which all members share
        numbers: dict[str, float] = {}  # the loss weights that are equal for all members

        def member_loss(
            weights: dict[str, Tensor],
            options: dict[str, Tensor],
            x: Tensor,
            y: Tensor | None,
            index: Tensor,
            noise: Sequence[Tensor],
        ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
            supplied = SuppliedNoise(self.draws[size], noise)
            with supplied:
                trainee = self._with_options(options)
                terms: Terms = functional_call(trainee, weights, (Batch(x, y, index, images), step))
            supplied.check_used()
            term_weights: Mapping[str, Any] = terms.weights
            tensors = {k: w for k, w in term_weights.items() if isinstance(w, Tensor)}
            numbers.update({k: w for k, w in term_weights.items() if k not in tensors})
            values = {name: value.detach() for name, value in terms.values.items()}
            return total(terms), values, tensors, dict(terms.per_dim)

        rows = (0, 0, 0, None if batch.y is None else 0, 0, 0)
        vmapped = torch.vmap(member_loss, in_dims=rows, randomness="error")
        totals, values, tensors, per_dim = vmapped(
            {**self.leaves, **self.fixed}, self.varied, batch.x, batch.y, batch.index, noise
        )
        weight_tensors = {name: weight.detach() for name, weight in tensors.items()}
        finite = bool(totals.isfinite().all())
        return StackedTerms(values, {**numbers, **weight_tensors}, per_dim, size, finite), totals

    def _with_options(self, options: Mapping[str, Tensor]) -> Trainee:
        """Return the first member's trainee. If options differ between members, its loss is rebuilt
        with 0-d tensors instead of numbers."""
        if not options:
            return self.trainee
        config = copy.copy(self.config.loss.options)
        for name, value in options.items():
            # a frozen class, but each value is valid; cloned, so that `beta *= 2` has no effect
            object.__setattr__(config, name, value.clone())
        loss: nn.Module = self.config.loss.entry.spec.build(config, self.spec)
        loss.train(self.trainee.loss.training)
        return Trainee(self.trainee.model, loss, conditional=self.trainee.conditional)

    # ------------------------------------------------------------ images and noise

    def _batch(self, done: int) -> tuple[Batch, list[Tensor]]:
        """Return the images and the noise of each member, equal to those of a separate run."""
        length, size = self.runners[0].epoch_length, self.config.train.batch_size
        start = done % length * size
        index = self.orders[:, start : start + size]  # (members, images)
        members, count = index.shape
        if count not in self.draws:
            self.draws[count] = self._probe(index[0], done)
        draws = self.draws[count]
        noise = [torch.empty((members, *d.shape), dtype=d.dtype, device=self.device) for d in draws]
        batches = []
        for row, runner in enumerate(self.runners) if draws or self.images.dynamic else ():
            runner.noise.reseed(done)
            if self.images.dynamic:
                batches.append(self.images.batch(index[row]))
            for draw, filled in zip(draws, noise, strict=True):
                draw.fill(filled[row])
        if batches:
            labels = [batch.y for batch in batches if batch.y is not None]
            y = torch.stack(labels) if labels else None
            x = torch.stack([batch.x for batch in batches])
            return Batch(x, y, index, self.images), noise
        flat = self.images.batch(index.reshape(-1))
        y = None if flat.y is None else flat.y.view(index.shape)
        x = flat.x.view(*index.shape, *flat.x.shape[1:])
        return Batch(x, y, index, self.images), noise

    def _probe(self, index: Tensor, done: int) -> list[Draw]:
        """Record the noise of a step of one member. Raises NotStackable if it is not repeatable."""
        runner, recorder = self.runners[0], Recorder()
        runner.noise.reseed(done)
        batch = self.images.batch(index)
        with recorder, torch.no_grad():
            runner.trainee(batch, runner.step_at(done))
        after = generator_states(self.device)
        runner.noise.reseed(done)
        self.images.batch(index)
        for draw in recorder.draws:
            draw.fill(torch.empty(draw.shape, dtype=draw.dtype, device=self.device))
        replayed = generator_states(self.device)
        if not all(map(torch.equal, after, replayed)):
            raise NotStackable("its model or loss uses random functions other than randn and rand")
        return recorder.draws

    # ------------------------------------------------------------ the optimizer

    def _stack_optimizers(self) -> torch.optim.Optimizer:
        """Build one optimizer with the members' state and a group for each learning rate. This is
        possible because all supported optimizers are element-wise."""
        train = self.config.train
        options: dict[str, Any] = {"weight_decay": train.weight_decay, **train.optimizer_options}
        fused = self.runners[0].optimizer.defaults.get("fused")
        if fused is not None:
            options["fused"] = fused
        self.slices: list[tuple[str, int, int, Tensor]] = []
        groups: list[dict[str, Any]] = []
        start = 0
        for lr, equal_lrs in groupby(config.train.lr for config in self.configs):
            stop = start + len(list(equal_lrs))
            rows = slice(start, stop)
            parts = [(name, start, stop, leaf.detach()[rows]) for name, leaf in self.leaves.items()]
            self.slices += parts
            groups.append({"params": [part for *_, part in parts], "lr": lr})
            start = stop
        stacked = OPTIMIZERS[train.optimizer](groups, **options)
        for name, start, stop, part in self.slices:
            members = self.runners[start:stop]
            states = [m.optimizer.state.get(m.trainee.get_parameter(name), {}) for m in members]
            if states[0]:
                stacked.state[part] = {
                    key: torch.stack([state[key] for state in states])
                    if is_elementwise(key, value, part.shape[1:])
                    else copy.deepcopy(value)
                    for key, value in states[0].items()
                }
        return stacked

    def _update(self, done: int) -> None:
        for name, start, stop, part in self.slices:
            grad = self.leaves[name].grad
            part.grad = None if grad is None else grad[start:stop]
        if schedule := self.runners[0].schedule:
            factor = lr_factor(schedule, done, self.runners[0].epoch_length)
            lrs = [lr for lr, _ in groupby(config.train.lr for config in self.configs)]
            for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * factor
        self.update()

    def unstack(self) -> None:
        """Copy each member's rows of the stacked state to the member's optimizer."""
        for name, start, stop, part in self.slices:
            state = self.optimizer.state.get(part, {})
            for row in range(start, stop) if state else ():
                runner = self.runners[row]
                runner.optimizer.state[runner.trainee.get_parameter(name)] = {
                    key: value[row - start]
                    if is_elementwise(key, value, part.shape)
                    else copy.deepcopy(value)
                    for key, value in state.items()
                }


def is_elementwise(key: str, value: Any, shape: torch.Size) -> bool:
    """Whether an optimizer stores the value once per element of a parameter of this shape."""
    shared = key in ("step", "mu_product")  # once per parameter; a scalar has the same shape
    return not shared and isinstance(value, Tensor) and value.shape == shape


def total(terms: Terms) -> Tensor:
    """Compute `Terms.total` for weights that may be tensors."""
    parts = []
    for name, value in terms.values.items():
        weight = terms.weights.get(name, 1.0)
        if isinstance(weight, Tensor) or weight != 0.0:
            parts.append(value * weight)
    return sum(parts[1:], start=parts[0])


def varied_options(configs: Sequence[RunConfig], device: torch.device) -> dict[str, Tensor]:
    """The float options of the loss that differ between members, each (members,)."""
    options = [vars(config.loss.options) for config in configs]
    # as exact as a Python float, if the device supports it
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return {
        name: torch.tensor([member[name] for member in options], dtype=dtype, device=device)
        for name, value in options[0].items()
        if isinstance(value, float) and any(member[name] != value for member in options)
    }


def stack(trainees: Sequence[Trainee]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Stack the trainable parameters, and the other parameters and buffers, each (members, ...).
    The trainees' parameters become views of the rows. A shared parameter is stored once."""
    leaves, fixed = {}, {}
    for name, parameter in trainees[0].named_parameters():
        stacked = torch.stack([trainee.get_parameter(name).detach() for trainee in trainees])
        for row, trainee in enumerate(trainees):
            trainee.get_parameter(name).data = stacked[row]
        if parameter.requires_grad:
            leaves[name] = stacked.detach().requires_grad_()
        else:
            fixed[name] = stacked
    for name, _ in trainees[0].named_buffers():
        fixed[name] = torch.stack([trainee.get_buffer(name) for trainee in trainees])
    return leaves, fixed
