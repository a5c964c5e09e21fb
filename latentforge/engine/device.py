"""Which device a run uses."""

from __future__ import annotations

import torch

from latentforge.errors import MissingError


def resolve_device(wanted: str) -> torch.device:
    """`auto` is cuda, then mps, then cpu. MissingError (exit code 4) for one that is not here."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = wanted.partition(":")
    if kind == "cuda":
        index = int(number or 0)  # torch.device refuses one above 127 in words of its own
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            seen = f"torch {torch.__version__} sees {count} CUDA devices"
            raise MissingError(f"no device {wanted} here", details=[seen], remedy="--device auto")
        return torch.device("cuda", index)
    if kind == "mps" and not torch.backends.mps.is_available():
        seen = f"torch {torch.__version__} sees no Metal device"
        raise MissingError("no device mps here", details=[seen], remedy="--device auto")
    return torch.device(wanted)
