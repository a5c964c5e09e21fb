"""Gaussian fits of real images on disk, under a hash of all that they depend on.

A file that cannot be read or written costs time, never a figure or an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .gaussian import Fit


def cache_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "latentforge" / "features"


def read(key: str) -> Fit | None:
    """The fit kept under `key`, or None; a file that is not what was written counts as none."""
    try:
        with safe_open(cache_folder() / f"{key}.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("mean", "covariance")}
            written = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    # safetensors itself loads flipped bits without a word
    return Fit(**tensors) if written == digest(tensors) else None


def write(key: str, fit: Fit) -> None:
    """Keep a fit: a reader finds it whole or not at all."""
    tensors = {"mean": fit.mean, "covariance": fit.covariance.contiguous()}
    temporary = cache_folder() / f".{key}.{os.getpid()}"
    with contextlib.suppress(OSError):
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(save(tensors, {"sha256": digest(tensors)}))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(cache_folder() / f"{key}.safetensors")
        finally:
            temporary.unlink(missing_ok=True)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in hex, whatever their order and device."""
    state = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.detach().cpu().numpy().tobytes())
    return state.hexdigest()
