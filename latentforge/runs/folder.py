"""The run folder: run.json, metrics.jsonl and the lock. Torch-free."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentforge.errors import MissingError, RunFailed, UsageError, similar_paths
from latentforge.io.atomic import iterate_lines, parse_json, read_json
from latentforge.io.checksum import KEY, add_checksum, compute_checksum, is_edited
from latentforge.io.paths import append_json_line, create_folder, quoted, write_error, write_json
from latentforge.io.text import counted, pluralized, were

MANIFEST = "run.json"
METRICS = "metrics.jsonl"
ROLES = "roles"  # the folder of the runs that this one uses
LOCK = ".lock"
FORMAT = 1
SEARCHED = 3  # folders above a path that is no run where runs are looked for
MAX_FAULTS = 5  # maximum number of faults of run.json in an error
RESULTS = ("status", "epochs", "steps", "metrics", "per_dim", "best", "findings", KEY)

log = logging.getLogger("latentforge")


@dataclass(eq=False, repr=False)
class RunFolder:
    """One training run and its results on disk. It does not depend on plugins."""

    path: Path
    manifest: dict[str, Any]
    in_memory: Any = field(default=None, init=False)  # the data splits, if passed from Python
    writes: bool = field(default=True, init=False)  # False if another process of the run writes
    training: bool = field(default=False, init=False)  # whether this process is training the run

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, status={self.status!r})"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def status(self) -> str:
        """The status: running, done, interrupted, failed, killed or unknown."""
        return "running" if self.training else status_of(self.path, self.manifest)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The final metrics by split: `run.metrics["test"]["recon"]`."""
        metrics: dict[str, dict[str, float]] = self.manifest["metrics"]
        return metrics

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, with the structure of the TOML file."""
        config: dict[str, Any] = self.manifest["config"]
        return config

    def summary(self) -> dict[str, Any]:
        """The result of the run, as `latentforge train --json` prints it."""
        keys = ("status", "epochs", "steps", "seconds", "images_per_second", "metrics")
        return {"run": str(self.path), **{key: self.manifest[key] for key in keys}}

    def history(self) -> list[dict[str, Any]]:
        """Read the lines of metrics.jsonl, one per epoch. An incomplete last line, which a killed
        process has left, is ignored. Raises RunFailed if another line is damaged."""
        from latentforge.runs.schema import Epoch, find_faults  # pydantic is slow to import

        path, lines, edited = self.path / METRICS, [], []
        try:
            for number, text in enumerate(iterate_lines(path), 1):
                if not text.endswith("\n"):
                    continue
                line = parse_json(text)
                if faults := find_faults(line, Epoch):
                    raise ValueError(f"line {number}: {faults[0]}")
                edited += [str(number)] if is_edited(line) else []
                lines.append({key: value for key, value in line.items() if key != KEY})
        except (OSError, ValueError) as error:
            raise RunFailed(f"{path} is damaged: {error}") from None
        if edited:
            where = f"{pluralized(len(edited), 'line')} {', '.join(edited[:MAX_FAULTS])}"
            more = ", ..." * (len(edited) > MAX_FAULTS)
            log.warning("%s was edited after training: %s%s", path, where, more)
        epochs, trained = [line["epoch"] for line in lines], self.manifest["epochs"]
        if len({*epochs}) < len(epochs):
            log.warning("%s has lines that repeat an epoch", path)
        recorded = counted(len({*epochs}), "epoch"), trained, were(trained)
        if len({*epochs}) < trained and self.status != "running":
            log.warning("%s has %s, but %d %s trained", path, *recorded)
        return lines

    # ------------------------------------------------------------ writing

    def update(self, **changes: Any) -> None:
        """Change the manifest and write it atomically."""
        self.manifest.update(changes)
        self.manifest[KEY] = compute_checksum(select_results(self.manifest))
        if self.writes:
            write_json(self.path / MANIFEST, self.manifest)

    def write_first(self) -> None:
        """Write run.json of a new run; if this fails, remove the empty folder."""
        try:
            self.update()
        except RunFailed:
            with suppress(OSError):
                (self.path / LOCK).unlink(missing_ok=True)
                self.path.rmdir()
            raise

    def record(self, line: Mapping[str, Any]) -> None:
        """Append the line of an epoch to metrics.jsonl."""
        if self.writes:
            append_json_line(self.path / METRICS, add_checksum(line))


def open_folder(run: RunFolder | str | Path) -> RunFolder:
    """Open a run folder by its path. Raises MissingError if `run` is not a run folder."""
    return run if isinstance(run, RunFolder) else RunFolder(Path(run), read_manifest(Path(run)))


def select_results(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of run.json that its checksum protects. Its configuration is protected by
    the checkpoints, which contain it."""
    return {key: manifest[key] for key in RESULTS if key in manifest}


def create_run_folder(requested: Path | None, root: Path, name: str) -> Path:
    """Create the folder of a new run: `requested`, which must be empty or new, or `root/name-N`."""
    return create_folder(requested, root, name, check_no_run, ignore=is_leftover)


def check_no_run(path: Path) -> None:
    """Raise UsageError if a folder contains a run."""
    if (path / MANIFEST).exists():
        runs = f"`latentforge runs {quoted(path.parent)}` lists the runs there"
        raise UsageError(f"{path} already contains a run", hint=f"choose another --run; {runs}")


def status_of(path: Path, manifest: Mapping[str, Any]) -> str:
    """The status of a run. A killed run cannot write its status: its manifest says "running", but
    no process has the lock. If the lock cannot be read, the status is "unknown"."""
    status = str(manifest["status"])
    if status != "running":
        return status
    locked = is_locked(path)
    return "unknown" if locked is None else "running" if locked else "killed"


def is_locked(folder: Path) -> bool | None:
    """Whether a process is training the run now; None if the lock cannot be read. On POSIX systems
    this needs no permission to write, and it does not keep a process from locking the run for more
    than a moment."""
    if not (folder / LOCK).exists():
        return False
    if os.name == "nt":
        from filelock import FileLock, Timeout

        try:
            with FileLock(folder / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return None
    import fcntl

    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether a file is a temporary file of `write_text`, which a killed process has left."""
    names = "|".join(map(re.escape, (MANIFEST, METRICS)))
    return bool(re.fullmatch(rf"\.({names})\.[\w-]+", path.name)) and path.is_file()


def is_leftover(path: Path) -> bool:
    """Whether a process that was killed before it wrote run.json has left a file. The lock of a
    living process is noticed by `lock_run`."""
    return path.name == LOCK or is_temporary(path)


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of a writer that was killed; the folder must be locked."""
    for path in folder.iterdir():
        if is_temporary(path):
            path.unlink(missing_ok=True)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a run, so that two processes never train it. The system releases the lock when a process
    ends, even if it crashes. Raises UsageError if another process has the lock."""
    from filelock import FileLock, Timeout  # imported only where needed

    lock = FileLock(folder / LOCK, timeout=1)  # `is_locked` takes the lock for a moment
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another process is training the run {folder}",
            hint="wait until it ends, or stop it, which saves a checkpoint",
        ) from None
    except OSError as error:
        raise write_error(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read run.json. Raises MissingError if there is none or it is not a LatentForge manifest."""
    file = path / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        raise missing_run(path) from None
    except (OSError, ValueError) as error:
        raise MissingError(f"{file} cannot be read as the manifest of a run: {error}") from None
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise MissingError(
            f"{file} has format {manifest['format']!r}; this version of LatentForge reads {FORMAT}",
            hint="pip install --upgrade latentforge",
        )
    from latentforge.runs.schema import fill, find_faults  # pydantic is slow to import

    if faults := find_faults(manifest):
        raise MissingError(f"{file} is not the manifest of a run", details=faults[:MAX_FAULTS])
    if is_edited(select_results(manifest)):
        log.warning("%s was edited after training: its metrics may be wrong", file)
    return fill(manifest)


def missing_run(path: Path) -> MissingError:
    """Return the error about a path that is no run folder, with the runs that it can mean."""
    if first := next(find_run_folders(path), None):
        return MissingError(
            f"no run at {path}, which is a folder of runs",
            hint=f"one of them, such as {quoted(first)}; `latentforge runs {quoted(path)}` "
            "lists them",
        )
    inside = next((up for up in path.parents if (up / MANIFEST).is_file()), None)
    folders = [up for up in (*path.parents, Path()) if up.is_dir()][:SEARCHED]
    folder, runs = next(
        ((up, found) for up in folders if (found := list(find_run_folders(up)))), (Path(), [])
    )
    hint = "`latentforge train ae` makes a run in the folder runs"
    if runs:
        hint = f"`latentforge runs {quoted(folder)}` lists the runs there"
    close = f"did you mean {str(inside)!r}?" if inside else similar_paths(path, runs)
    if copy := next(find_copies(path, runs), None):
        close, hint = "another run contains a copy of it", f"{quoted(copy)}, or {hint}"
    return MissingError(f"no run at {path}", details=[close] if close else [], hint=hint)


def find_copies(path: Path, runs: Iterable[Path]) -> Iterator[Path]:
    """Yield the copies of the run that was in the folder `path`, in `runs` that used it."""
    for run in runs:
        try:
            roles = read_json(run / MANIFEST)["roles"]
            sources = {role: Path(about["source"]) for role, about in roles.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # it uses no other run, or is damaged
        for role, source in sources.items():
            if source == path.absolute() and (run / ROLES / role / MANIFEST).is_file():
                yield run / ROLES / role


def find_run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run folders in a folder and one level deeper, as in a demo, sorted by path."""
    if folder.is_dir():
        files = [*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*/*/{MANIFEST}")]
        yield from sorted(path.parent for path in files)
