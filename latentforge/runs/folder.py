"""A run folder: run.json, metrics.jsonl, checkpoints, explored findings. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentforge.errors import MissingError, RunFailed, UsageError, did_you_mean
from latentforge.io.atomic import parse_json, read_json, read_lines
from latentforge.io.paths import (
    append_json_line,
    create_folder,
    unwritable,
    write_json,
)

MANIFEST = "run.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"
FORMAT = 1


@dataclass(eq=False, repr=False)
class RunFolder:
    """One training and its results on disk; it knows no plugins."""

    path: Path
    manifest: dict[str, Any]
    in_memory: Any = field(default=None, init=False)  # the data splits, if Python handed them over
    writes: bool = field(default=True, init=False)  # not where another process of the training does
    training: bool = field(default=False, init=False)  # whether this process trains into it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, status={self.status!r})"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def status(self) -> str:
        """running, done, interrupted, failed or killed."""
        return "running" if self.training else status_of(self.path, self.manifest)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The last figures by split: `run.metrics["test"]["recon"]`."""
        metrics: dict[str, dict[str, float]] = self.manifest["metrics"]
        return metrics

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, in the shape of the TOML file."""
        config: dict[str, Any] = self.manifest["config"]
        return config

    def summary(self) -> dict[str, Any]:
        """How the training went, as `latentforge train --json` answers it."""
        keys = ("status", "epochs", "steps", "seconds", "images_per_second", "metrics")
        return {"run": str(self.path), **{key: self.manifest[key] for key in keys}}

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one an epoch; without one that a kill has left half.

        Raises RunFailed where one of them is damaged."""
        try:
            lines = read_lines(self.path / METRICS)
            return [parse_json(line) for line in lines if line.endswith("\n")]
        except (OSError, ValueError) as error:
            raise RunFailed(f"{self.path / METRICS} is damaged: {error}") from None

    # ------------------------------------------------------------ writing

    def update(self, **changes: Any) -> None:
        """Change the manifest and write it, whole or not at all."""
        self.manifest.update(changes)
        if self.writes:
            write_json(self.path / MANIFEST, self.manifest)

    def write_first(self) -> None:
        """Write run.json of a new run; without it there is no folder."""
        try:
            self.update()
        except RunFailed:
            with suppress(OSError):
                self.path.rmdir()
            raise

    def record(self, line: Mapping[str, Any]) -> None:
        """Append an epoch's line to metrics.jsonl."""
        if self.writes:
            append_json_line(self.path / METRICS, line)


def open_folder(run: RunFolder | str | Path) -> RunFolder:
    """A run folder by its path; MissingError if `run` is not the folder of a run."""
    return run if isinstance(run, RunFolder) else RunFolder(Path(run), read_manifest(Path(run)))


def create_run_folder(wanted: Path | None, root: Path, name: str) -> Path:
    """An empty folder for a new run: `wanted`, which must hold nothing yet, else `root/name-N`."""

    def check(path: Path) -> None:
        if (path / MANIFEST).exists():
            raise UsageError(
                f"{path} already holds a run",
                remedy=f"another --run; `latentforge runs {path.parent}` lists what is there",
            )

    return create_folder(wanted, root, name, check, ignore=is_half)


def status_of(path: Path, manifest: Mapping[str, Any]) -> str:
    """How a run stands. Nobody can write that it was killed: it is said to run, and no process
    trains into it."""
    said = str(manifest["status"])
    return "killed" if said == "running" and not is_locked(path) else said


def is_locked(folder: Path) -> bool:
    """Whether a process trains into a run at this moment."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except (Timeout, OSError):  # a folder that one may not write to: nobody can tell
        return True


def is_half(path: Path) -> bool:
    """Whether a file is what `write_text` writes first, and a kill may have left."""
    names = "|".join(map(re.escape, (MANIFEST, METRICS)))
    return bool(re.fullmatch(rf"\.({names})\.\d+", path.name)) and path.is_file()


def clean_up(folder: Path) -> None:
    """Remove what a writer that was killed has left half written; the folder must be locked."""
    for path in folder.iterdir():
        if is_half(path):
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two processes never train into one run. The system lets go of the lock when a process ends,
    however it ends. UsageError where another one holds it."""
    from filelock import FileLock, Timeout  # only training pays for its import

    lock = FileLock(folder / LOCK, timeout=1)  # who only asks holds it for a moment
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another process is training into {folder}",
            remedy="wait for it to end, or end it, which keeps a checkpoint",
        ) from None
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def read_manifest(path: Path) -> dict[str, Any]:
    """run.json of a run folder; MissingError when there is none or it is none of ours."""
    file = path / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        names = [run.name for run in run_folders(path.parent)]
        hint = did_you_mean(path.name, names)
        raise MissingError(
            f"no run at {path}",
            details=[hint] if hint else [],
            remedy=f"`latentforge runs {path.parent}` lists the runs there",
        ) from None
    except (OSError, ValueError) as error:
        raise MissingError(f"{file} cannot be read as a run: {error}") from None
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise MissingError(
            f"{file} has format {manifest['format']!r}, this LatentForge reads {FORMAT}",
            remedy="pip install --upgrade latentforge",
        )
    if not _is_manifest(manifest):
        raise MissingError(f"{file} is not the manifest of a run")
    return manifest


def _is_manifest(value: Any) -> bool:
    """Whether the parts that are read without another look are of the kind that we write."""
    try:
        return (
            {"format", "status"} <= set(value)
            and all(isinstance(value["config"][s]["name"], str) for s in ("model", "loss", "data"))
            and isinstance(value["config"]["train"], dict)
            and isinstance(value["config"]["callbacks"], list)
            and all(isinstance(figures, dict) for figures in value["metrics"].values())
            and {"shape", "kind", "classes", "images", "fingerprint"} <= set(value["data"])
            and all({"kind", "name", "plugin"} <= set(p) for p in value["plugins"])
        )
    except (TypeError, KeyError, AttributeError):
        return False


def run_folders(folder: Path) -> Iterator[Path]:
    """The runs in a folder and in the folders there, such as a demo's, by name."""
    if folder.is_dir():
        found = [*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*/*/{MANIFEST}")]
        yield from sorted(path.parent for path in found)
