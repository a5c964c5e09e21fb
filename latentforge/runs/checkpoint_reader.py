"""Reads and verifies the files of one checkpoint: safetensors, JSON and SHA-256, never pickle.

Nothing is read into memory before its size is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from torch import Tensor

from latentforge.errors import MissingError, RunFailed, one_line
from latentforge.io.atomic import is_outside, read_json, sha256
from latentforge.io.text import counted

FORMAT = "latentforge-checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files have all been verified. `state` is the state that `save` stored."""

    name: str
    path: Path
    state: dict[str, Any]
    files: Mapping[str, Any]  # file name -> {"sha256", "size"}

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the tensor groups, sorted."""
        ends = ".safetensors"
        return tuple(sorted(f.removesuffix(ends) for f in self.files if f.endswith(ends)))

    def size(self, group: str) -> int:
        """The size of a group's file in bytes; 0 if there is none."""
        return int(self.files.get(f"{group}.safetensors", {"size": 0})["size"])

    def tensors(self, group: str, *, limit: int | None = None) -> dict[str, Tensor]:
        """Read one group's tensors to the CPU, contiguous and without shared memory. Raises
        MissingError if there is no such group, and RunFailed if the file is damaged or, checked
        before reading, larger than `limit` bytes."""
        if group not in self.groups:
            raise MissingError(
                f"checkpoint {self.path} has no tensors {group!r}",
                details=[f"it has {', '.join(self.groups) or 'none'}"],
            )
        file = f"{group}.safetensors"
        if limit is not None and (size := self.size(group)) > limit:
            raise damage_error(
                self.path,
                f"{file} has {counted(size, 'byte')}, more than the expected maximum of {limit}",
            )
        try:
            return tensors_from_bytes(verify(self.path, file, self.files[file], whole=True))
        except SafetensorError as error:
            raise damage_error(self.path, f"{file} cannot be read: {error}") from error


def damage_error(path: Path, reason: str) -> RunFailed:
    others = [
        p.name for p in path.parent.glob("*") if p.is_dir() and p != path and p.name[0] != "."
    ]
    hint = "restore it from a copy, or start a new run"
    if others:
        hint = f"--checkpoint {max(others)}, or --from {max(others)} to resume from it"
    return RunFailed(f"checkpoint {path} is damaged: {reason}", hint=hint)


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Read the manifest. Return {"sha256", "size"} by file name, for every other file."""
    try:
        manifest = read_json(path / MANIFEST)
        kind, version, files = (manifest[key] for key in ("format", "version", "files"))
        entries = {str(f): {"sha256": e["sha256"], "size": e["size"]} for f, e in files.items()}
        if not all(type(entry["size"]) is int for entry in entries.values()):
            raise ValueError("a size is not a whole number")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise damage_error(path, f"{MANIFEST} cannot be read ({one_line(error)})") from error
    if kind != FORMAT or version != VERSION:
        raise RunFailed(
            f"checkpoint {path} has the format {kind} {version}; this version of LatentForge "
            f"reads {FORMAT} {VERSION}",
            hint="use the version of LatentForge that wrote it",
        )
    if STATE not in entries or any(Path(file).name != file for file in entries):
        raise damage_error(path, f"{MANIFEST} does not list the files of a checkpoint")
    return entries


def verify(path: Path, file: str, entry: Mapping[str, Any], *, whole: bool = False) -> bytes:
    """Raise RunFailed unless a file has the size and the SHA-256 of the manifest. If `whole`, read
    it into memory and return its bytes; otherwise hash it in chunks and return b""."""
    if is_outside(path / file, path):
        raise damage_error(path, f"{file} is a link to a place outside the checkpoint")
    try:
        size = (path / file).stat().st_size
    except FileNotFoundError:
        raise damage_error(path, f"{file} is missing") from None
    if size != entry["size"]:  # check before allocating memory
        raise damage_error(path, f"{file} has {counted(size, 'byte')} instead of {entry['size']}")
    try:
        data = (path / file).read_bytes() if whole else b""
        digest = hashlib.sha256(data).hexdigest() if whole else sha256(path / file)
    except OSError as error:
        raise damage_error(path, f"{file} cannot be read: {error.strerror}") from error
    if digest != entry["sha256"]:
        raise damage_error(path, f"the SHA-256 of {file} does not match {MANIFEST}")
    return data
