"""Disk cache of Gaussian fits to real images. The key hashes everything that a fit depends on.

A file that cannot be read or written costs time, but never causes a wrong metric or an error.
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
    """Return the fit stored under `key`, or None if the file is missing or damaged."""
    try:
        with safe_open(cache_folder() / f"{key}.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("mean", "covariance")}
            stored_digest = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    # safetensors itself does not detect flipped bits
    return Fit(**tensors) if stored_digest == digest(tensors) else None


def write(key: str, fit: Fit) -> None:
    """Store a fit atomically, so that a reader finds a complete file or none."""
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
    """Return the SHA-256 of names, dtypes, shapes and bytes in hex. It does not depend on the order
    or the device of the tensors."""
    state = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.detach().cpu().numpy().tobytes())
    return state.hexdigest()
