"""Data-parallel steps: each process computes a shard of every batch.

One all-reduce gives every process the same gradients, terms and buffers: the means over the
shards, weighted by their numbers of images, but counters and flags as in rank 0. The changes of
buffers that are not persistent, which are sums over the images of a step, are added.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.config.schema import RunConfig
from latentforge.contracts import Batch, Step, Terms
from latentforge.data.images import ImageSplit
from latentforge.engine.compiled import CompiledStep
from latentforge.engine.step import Part, StepRunner, Trainee, accumulate
from latentforge.runtime.process_group import ProcessGroup
from latentforge.seeding import Noise, Shard, sharding

POLL = 10  # steps between two polls of the other processes' signals, if a poll waits for the device


class ShardNoise(Noise):
    """Seeds the default generators differently in each process, and the generator `draw` with the
    seed that a single-process run uses in the same step."""

    def __init__(self, device: torch.device, seed: int, rank: int, draw: torch.Generator) -> None:
        super().__init__(device, f"train, process {rank}", seed)
        self.draw, self.common = draw, Noise(device, "train", seed)

    def reseed(self, step: int) -> None:
        super().reseed(step)
        self.draw.manual_seed(self.common.seed_of(step))


class DataParallelStep(StepRunner):
    """Runs the steps of one process. Random numbers for a whole batch come from `draw`, which has
    the same seed in all processes. The default generators have different seeds, so that dropout
    masks differ between processes."""

    def __init__(
        self,
        trainee: Trainee,
        images: ImageSplit,
        config: RunConfig,
        device: torch.device,
        processes: ProcessGroup,
    ) -> None:
        super().__init__(trainee, images, config, device)
        seed = config.train.seed
        self.processes, self.splits_batches = processes, True
        self.load_batch = self.load_shard
        self.draw = torch.Generator(device)
        self.noise = ShardNoise(device, seed, processes.rank, self.draw)
        self.shards: list[Shard] = []  # one for each part of the batch, in order
        self.batch_images = 0  # images in the whole batch
        self.term_info: dict[str, Any] = {}  # describes the terms for a process without images
        self.unreached: set[int] = set()  # indices of parameters without a gradient
        self.sums = {name for name, _ in trainee.named_buffers()} - trainee.state_dict().keys()
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in trainee.modules()):
            size = self.batch_size // processes.world_size
            self.notes.append(
                f"warning: batch norm: each of {processes.world_size} processes normalises with "
                f"its own {size} of {self.batch_size} images; a single process uses all of them"
            )

    def load_shard(self, index: Tensor) -> Batch:
        """Load this process's images of the batch at `index`. There may be none if the batch has
        fewer images than there are processes."""
        images = self.images
        self.batch_images = len(index)
        positions, self.shards = self._shard_positions(index)
        if not images.dynamic:
            return images.batch(index[positions])
        with sharding(Shard(self.draw, 0, len(index), len(index))):
            batch = images.batch(index)  # sampled for all images of the batch
        return batch.select(positions)

    def shard_indices(self, index: Tensor) -> Tensor:
        return index if self.images.dynamic else index[self._shard_positions(index)[0]]

    def _shard_positions(self, index: Tensor) -> tuple[Tensor, list[Shard]]:
        """The positions of this process's images in a batch, and its shard of each part."""
        positions, shards = [], []
        parts = min(self.accumulate, len(index))
        for number, (start, stop) in enumerate(split_range(len(index), parts)):
            # rotated by one for each part, so that no process gets all extra images
            rank = (self.processes.rank + number) % self.processes.world_size
            low, high = split_range(stop - start, self.processes.world_size)[rank]
            positions.append(torch.arange(start + low, start + high, device=index.device))
            shards.append(Shard(self.draw, low, high, stop - start))
        return torch.cat(positions), shards

    def include_added_groups(self) -> bool:
        if not super().include_added_groups():
            return False
        self.term_info = {}  # the indices of the parameters have changed
        return True

    def gradients(self, batch: Batch, step: Step) -> tuple[Terms, Tensor]:
        """Run forward and backward on the shard `batch`; return terms and total of all shards."""
        trainee, parameters = self.trainee, self.parameters
        before = {name: buffer.clone() for name, buffer in trainee.named_buffers()}
        own_terms = accumulate(trainee, self._parts(batch), step)
        terms = own_terms if own_terms.values else None  # None if this process has no images
        total = terms.total() if terms else torch.zeros(())
        if terms is not None:
            self.unreached = {i for i, p in enumerate(parameters) if p.grad is None}
        if not self.term_info:
            info = terms and describe_terms(terms, self.unreached)
            self.term_info = self.processes.broadcast(info, f"in step {step.index + 1}")
            self.unreached = self.unreached if terms else set(self.term_info["idle"])
        names, vectors = self.term_info["values"], self.term_info["per_dim"]
        if terms is not None and (*terms.values,) != (*names,):
            raise ValueError(
                f"the names of the loss terms changed from {names} to {[*terms.values]}"
            )
        weights = dict(terms.weights) if terms else self.term_info["weights"]
        tensors = [
            *(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters),
            *self._buffer_changes(trainee, before, len(batch.index)),
            *(terms.per_dim[n] if terms else torch.zeros(s) for n, s in vectors.items()),
            *(terms.values[name] if terms else torch.zeros(()) for name in names),
            total,
            torch.tensor([float(self.processes.own_signal == n) for n in SIGNALS]),
        ]
        summed = iter(self._sum(tensors, step))
        for i, parameter in enumerate(parameters):
            grad = next(summed)
            if i not in self.unreached:
                parameter.grad = match_format(grad, parameter)
        with torch.no_grad():
            for name, buffer in trainee.named_buffers():
                old, change = before[name], next(summed)  # for a flag, the change is -1, 0 or 1
                buffer.copy_(old + (change if old.dtype == torch.bool else change.to(old.dtype)))
        per_dim = {name: next(summed) for name in vectors}
        values = {name: next(summed) for name in names}
        total = next(summed)
        if self.processes.device.type == "cpu" or step.index % POLL == 0:
            flags = next(summed).tolist()
            received = [n for n, flag in zip(SIGNALS, flags, strict=True) if flag]
            self.processes.signal_received = max(received, default=0)
        return Terms(values, weights, per_dim), total

    def recompute_gradients(self, batch: Batch, step: Step) -> None:
        # collective only if all processes detect the failure at the same step
        if self.gate.wait:
            self.gradients(batch, step)
        else:
            super().gradients(batch, step)

    def _parts(self, batch: Batch) -> Iterator[Part]:
        """Yield this process's images of each part, with their fraction of the whole batch."""
        first = 0
        for shard in self.shards:
            part = slice(first, first := first + shard.stop - shard.start)
            if part.start < part.stop:
                share = (part.stop - part.start) / self.batch_images
                yield batch.select(part), share, sharding(shard)

    def _buffer_changes(
        self, trainee: nn.Module, before: dict[str, Tensor], images: int
    ) -> Iterator[Tensor]:
        """Yield the change of each buffer in this step. Statistics are weighted by this process's
        fraction of the images. Counters and flags have the weight 1 in rank 0 and 0 elsewhere, and
        buffers that are not persistent the weight 1. Unchanged values stay bit-identical."""
        for name, buffer in trainee.named_buffers():
            now, old, weight = buffer, before[name], images / self.batch_images
            if not buffer.is_floating_point():
                now, old, weight = now.float(), old.float(), float(self.processes.is_first)
            elif name in self.sums:
                weight = 1.0
            yield torch.where(now == old, 0.0, now - old) * weight  # inf - inf would be NaN

    def _sum(self, tensors: list[Tensor], step: Step) -> list[Tensor]:
        """Sum each tensor over all processes; the results are views of one buffer."""
        dtypes = {tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point}
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        device = self.processes.device
        flat = torch.cat([tensor.detach().to(device, dtype).flatten() for tensor in tensors])
        self.processes.all_reduce(flat, f"in step {step.index + 1}")
        sizes = [tensor.numel() for tensor in tensors]
        return [
            part.view(tensor.shape)
            for part, tensor in zip(torch.split(flat, sizes), tensors, strict=True)
        ]


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def split_range(length: int, count: int) -> list[tuple[int, int]]:
    """Split a range into `count` parts whose sizes differ by at most one, larger ones first."""
    size, larger = divmod(length, count)
    return list(pairwise(number * size + min(number, larger) for number in range(count + 1)))


def describe_terms(terms: Terms, idle: set[int]) -> dict[str, Any]:
    """Describe the terms, as JSON values, for a process that has no images."""
    shapes = {name: list(vector.shape) for name, vector in terms.per_dim.items()}
    weights = dict(terms.weights)
    return {"values": [*terms.values], "per_dim": shapes, "weights": weights, "idle": sorted(idle)}


def match_format(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return `tensor` in the parameter's dtype and memory format, as fused optimizers require."""
    if parameter.is_contiguous() and parameter.dtype == tensor.dtype:
        return tensor
    return torch.empty_like(parameter).copy_(tensor)


class CompiledDataParallelStep(CompiledStep, DataParallelStep):
    """Data-parallel steps whose forward pass is compiled."""
