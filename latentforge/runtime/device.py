"""Selects the device of a run (auto, cpu, cuda, cuda:N, mps) and deterministic kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from latentforge.errors import MissingError, UsageError
from latentforge.runtime import torchrun


def select_training_device(requested: str) -> torch.device:
    """The device that this process trains on; under torchrun each process uses a different GPU.

    Raises UsageError for a single device under torchrun, MissingError if there are too few GPUs.
    """
    if not torchrun.is_distributed():
        return resolve_device(requested)
    if requested not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"{requested} is a single device, but torchrun has started several processes",
            hint="--device cuda, with one GPU per process, or --device cpu",
        )
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    rank = torchrun.local_rank()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if rank >= count:
        raise MissingError(
            f"no CUDA device for local rank {rank}: this machine has {count}",
            hint=f"--nproc-per-node {count}" if count else "--device cpu",
        )
    return torch.device("cuda", rank)


def resolve_device(requested: str) -> torch.device:
    """Resolve a device; `auto` means cuda, else mps, else cpu. Raises MissingError (exit code 4) if
    the device is not available."""
    if requested == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = requested.partition(":")
    if kind == "cuda":
        index = int(number or 0)  # above 127, torch.device would raise its own error
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index < count:
            return torch.device("cuda", index)
        fact = f"torch {torch.__version__} finds {count} CUDA devices"
    elif kind == "mps" and not torch.backends.mps.is_available():
        fact = f"torch {torch.__version__} finds no Metal device"
    else:
        return torch.device(requested)
    message = f"device {requested} is not available"
    raise MissingError(message, details=[fact], hint="--device auto")


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Restrict cuDNN to deterministic kernels.

    Otherwise the weight gradients of convolutions differ in their last bits when a step is
    repeated, and in their second digit after a few steps of Adam. A resumed run would not be
    bit-identical, and a check could not distinguish a correct CUDA graph step from a wrong one.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
