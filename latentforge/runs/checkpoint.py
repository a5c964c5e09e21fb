"""The checkpoint store of a run: durable writes, the pointers LATEST and BEST, removal of old ones.

A checkpoint is deleted only after its successor is written, synced, read back and published. This
module handles folders and bytes; the engine interprets the tensors and the state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from latentforge.errors import LatentForgeError, MissingError, RunFailed, did_you_mean
from latentforge.io import atomic
from latentforge.runs import checkpoint_reader as reader
from latentforge.runs.checkpoint_reader import FORMAT, MANIFEST, STATE, VERSION, Checkpoint

log = logging.getLogger("latentforge")

LATEST = "LATEST"
BEST = "BEST"
POINTERS = {"last": LATEST, "best": BEST}
TEMPORARY = ".tmp-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POINTER = re.compile(rf"({_NAME.pattern})(?:\s*|\n([0-9a-f]{{64}})\n)")
_RESERVED = {"latest", "last", "best"}  # the pointers; compared in lower case


class CheckpointStore:
    """The checkpoints in one folder, which has one writer at a time.

    `LATEST` and `BEST` are text files that contain the name of a checkpoint folder beside them and
    the SHA-256 of its manifest. A save keeps the checkpoints that they name and the previous
    LATEST, and removes all other checkpoints that a store has written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self,
        name: str,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        *,
        best: bool = False,
    ) -> Path:
        """Write groups of tensors and a JSON state, and return the folder, which becomes LATEST.

        An existing folder of that name is not overwritten: the new one is `name.2`, `name.3` and so
        on. Raises RunFailed if the disk fails; the earlier checkpoints are then unchanged.
        """
        for label in (name, *tensors):
            if not _NAME.fullmatch(label) or label.lower() in _RESERVED:
                message = f"{label!r} is not a valid name for a checkpoint or a group of tensors"
                raise ValueError(message)
        files = {f"{group}.safetensors": to_safetensors(named) for group, named in tensors.items()}
        files[STATE] = _json(state)
        path = self.folder / name
        # a damaged pointer raises here, before anything is written
        before, best_before = self._read_pointer(LATEST)[0], self._read_pointer(BEST)[0]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.clean()
            names = chain([name], (f"{name}.{number}" for number in count(2)))
            paths = (self.folder / candidate for candidate in names)
            path = next(candidate for candidate in paths if not candidate.exists())
            self._write(path, files)
            self._publish(LATEST, path.name)
            if best:
                self._publish(BEST, path.name)
        except OSError as error:
            self.clean()
            reason = error.strerror or str(error)
            raise RunFailed(
                f"cannot write checkpoint {path}: {reason}",
                details=["earlier checkpoints are unchanged"],
                hint="free disk space or repair the disk; earlier checkpoints can be evaluated",
            ) from error
        retained = {path.name, before, path.name if best else best_before}
        for other in list(self.folder.iterdir()):
            if other.name not in retained and _is_ours(other):
                self._remove(other)
        return path

    def load(self, which: str = "last") -> Checkpoint:
        """Read and verify a checkpoint: "last", "best" or the name of one. Raises MissingError if
        it does not exist, and RunFailed if it is damaged."""
        path = self.folder / self._resolve(which)
        if not path.is_dir():
            details = self._describe_others(path.name)
            if which in POINTERS:
                details = [f"{self.folder / POINTERS[which]} refers to it", *details]
            known = [*POINTERS, *self.names()]
            hint = did_you_mean(which, known) or "last, best, or the name of a checkpoint's folder"
            raise MissingError(f"no checkpoint {path}", details=details, hint=hint)
        try:
            checkpoint = self._load(path)
            if which in POINTERS:
                self._check_pointer(POINTERS[which], path)
            return checkpoint
        except RunFailed as error:
            details = self._describe_others(path.name)
            raise RunFailed(error.message, details=details, hint=error.hint) from error

    def load_newest(self) -> Checkpoint:
        """Load the last checkpoint or, if it is damaged, the newest undamaged one, with a warning
        that names it. Raises MissingError if there is none, RunFailed if all are damaged."""
        try:
            return self.load("last")
        except LatentForgeError as fault:
            if undamaged := self.load_undamaged():
                no_pointer = isinstance(fault, MissingError) and not (self.folder / LATEST).exists()
                reason = f"{self.folder} has no {LATEST}" if no_pointer else fault.message
                log.warning("%s; using %s instead", reason, undamaged[-1].path)
                return undamaged[-1]
            raise

    def _check_location(self) -> None:
        if atomic.is_outside(self.folder, self.folder.parent):
            raise RunFailed(
                f"{self.folder} is a link to a place outside the run",
                details=["nothing outside a run is read, written or deleted"],
                hint="replace the link by the folder itself",
            )

    def _load(self, path: Path) -> Checkpoint:
        self._check_location()
        if atomic.is_outside(path, self.folder):
            raise reader.damage_error(path, "it is a link to a place outside the run")
        files = reader.read_manifest(path)
        for file, entry in files.items():
            reader.verify(path, file, entry)
        try:
            state = dict(atomic.read_json(path / STATE))
        except (OSError, ValueError, TypeError) as error:
            raise reader.damage_error(path, f"{STATE} cannot be read: {error}") from None
        return Checkpoint(path.name, path, state, files)

    def _check_pointer(self, pointer: str, path: Path) -> None:
        """Raise RunFailed if a checkpoint is not the one whose hash the pointer contains."""
        _, published = self._read_pointer(pointer)
        try:
            if published in (None, atomic.sha256(path / MANIFEST)):
                return
        except OSError as error:
            raise reader.damage_error(
                path, f"{MANIFEST} cannot be read: {error.strerror}"
            ) from None
        raise reader.damage_error(path, f"the SHA-256 of its {MANIFEST} does not match {pointer}")

    def load_undamaged(self) -> list[Checkpoint]:
        """Load all undamaged checkpoints, sorted by step: copying a run changes file times."""
        checkpoints = []
        for name in self.names():
            with contextlib.suppress(RunFailed):
                checkpoints.append(self._load(self.folder / name))
        return sorted(checkpoints, key=lambda saved: _number(saved.state.get("step")))

    def publish(self, which: str, name: str | None) -> None:
        """Make "last" or "best" point to the checkpoint `name`; None removes the pointer."""
        self._check_location()
        try:
            if name is not None:
                self._publish(POINTERS[which], name)
            else:
                (self.folder / POINTERS[which]).unlink(missing_ok=True)
        except OSError as error:
            raise RunFailed(
                f"cannot write {self.folder / POINTERS[which]}: {error.strerror}",
                hint="free disk space or repair the disk",
            ) from error

    def names(self) -> list[str]:
        """The names of the checkpoints in the folder, oldest first. Files are not verified."""
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if _is_ours(path)]
        return [p.name for p in sorted(folders, key=lambda p: (_modified_ns(p), p.name))]

    def _resolve(self, which: str) -> str:
        if which not in POINTERS:
            if not _NAME.fullmatch(which):
                raise MissingError(f"no checkpoint {which!r} in {self.folder}")
            return which
        name, _ = self._read_pointer(POINTERS[which])
        if name is not None:
            return name
        if which == "best" and self._read_pointer(LATEST)[0] is not None:
            raise MissingError(
                f"no best checkpoint in {self.folder}",
                details=["it exists only with a validation split and after the first epoch"],
                hint="use the checkpoint last",
            )
        raise MissingError(f"no checkpoint yet in {self.folder}", details=self._describe_others(""))

    def _describe_others(self, excluded: str) -> list[str]:
        names = [checkpoint for checkpoint in self.names() if checkpoint != excluded]
        return [f"other checkpoints: {', '.join(names)}"] if names else []

    def _read_pointer(self, pointer: str) -> tuple[str | None, str | None]:
        """The name and the hash in a pointer file; None for each that is missing."""
        try:
            content = atomic.read_bytes(self.folder / pointer, limit=4096)
        except (FileNotFoundError, NotADirectoryError):
            return None, None
        except OSError as error:
            raise RunFailed(f"cannot read {self.folder / pointer}: {error.strerror}") from error
        except ValueError as error:
            raise RunFailed(f"{self.folder / pointer} is damaged: {error}") from None
        match = _POINTER.fullmatch(content.decode("utf-8", errors="replace"))
        if not match:  # also rejects a hostile "../.."
            raise RunFailed(
                f"{self.folder / pointer} is damaged: it does not contain the name of a checkpoint",
                details=self._describe_others(""),
                hint="write the name of a checkpoint folder into it",
            )
        return match[1], match[2]

    def _write(self, path: Path, files: Mapping[str, bytes]) -> None:
        """Write the folder `path`, sync it and read it back; remove it if verification fails."""
        entries = {
            file: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for file, data in files.items()
        }
        manifest = {"format": FORMAT, "version": VERSION, "files": entries}
        temporary = self.folder / f"{TEMPORARY}{path.name}-{atomic.unpredictable()}"
        temporary.mkdir()
        for file, data in {**files, MANIFEST: _json(manifest)}.items():
            atomic.write_synced(temporary / file, data)
        atomic.sync_folder(temporary)
        temporary.rename(path)
        atomic.sync_folder(self.folder)
        try:
            for file, entry in reader.read_manifest(path).items():
                reader.verify(path, file, entry)
        except LatentForgeError:
            self._remove(path)
            raise

    def _publish(self, pointer: str, name: str) -> None:
        text = f"{name}\n{atomic.sha256(self.folder / name / MANIFEST)}\n"
        temporary = self.folder / f"{TEMPORARY}{pointer}-{atomic.unpredictable()}"
        atomic.replace_synced(self.folder / pointer, text.encode(), temporary)

    def _remove(self, path: Path) -> None:
        """Rename a checkpoint and delete it. If the deletion is incomplete, the next save removes
        the rest by its temporary name."""
        temporary = self.folder / f"{TEMPORARY}retired-{path.name}-{atomic.unpredictable()}"
        try:
            path.rename(temporary)
        except OSError:
            return
        shutil.rmtree(temporary, ignore_errors=True)

    def clean(self) -> None:
        """Remove the temporary files and folders of a writer that was killed."""
        self._check_location()
        for path in self.folder.glob(f"{TEMPORARY}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


# ---------------------------------------------------------------- bytes and files


def to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialize tensors in the safetensors format. Strided tensors and tensors that share memory
    are copied, because the format rejects them; tied weights are stored once for each name."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        address = flat.untyped_storage().data_ptr()
        plain[name] = flat.clone() if address in seen else flat
        seen.add(address)
    return tensors_to_bytes(plain)


def _json(value: Any) -> bytes:
    try:
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RunFailed(f"the state of the run is not JSON: {error}") from error


def _is_ours(path: Path) -> bool:
    """Whether a store wrote this folder; only such folders are removed."""
    if not _NAME.fullmatch(path.name) or path.is_symlink():
        return False
    try:
        return bool(atomic.read_json(path / MANIFEST)["format"] == FORMAT)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else -1.0


def _modified_ns(path: Path) -> int:
    try:
        return (path / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:  # another process has just removed the checkpoint
        return 0
