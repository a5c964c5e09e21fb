"""Kills, disk faults and damaged files, and which runs survive them: `make torture`.

    python tests/torture.py [--kills N] [--seed N]

A child trains with a checkpoint after every step and is killed (SIGKILL) at a random moment or at a
named point of a file operation, up to three times per run; then the run is resumed and must be
bit-identical to an undisturbed run. Disk faults at file operations are tested the same way. All
damage to checkpoint files must be detected. Prints counts; exits with 1 on any loss.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Everything is imported before the first fork, and nothing is computed: a child starts in 10 ms.
import ignite.engine
import matplotlib  # noqa: F401
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import latentforge.workflows.resume
from latentforge import Forge
from latentforge.errors import LatentForgeError, RunFailed
from latentforge.runs.checkpoint import CheckpointStore

FORGE = Forge()
IMAGES, SIZE = 32, 36
TRAIN = {  # patience ends it after the third epoch
    "epochs": 9,
    "batch_size": 9,
    "checkpoint_every": 1,
    "threads": 1,
    "log_every": 2,
    "ema": 0.9,
    "accumulate": 2,
    "patience": 2,
    "min_delta": 1e6,
    "schedule": {"name": "cosine", "epochs": 4},
}
CHILDREN = 2  # that are killed at a time
REPORTED = 10  # the exit code of a child whose run raised RunFailed
OPERATIONS = {  # the file operations of a writer: module and function
    "open": (io, "open"),
    "fsync": (os, "fsync"),
    "rename": (os, "rename"),
    "replace": (os, "replace"),
    "remove": (os, "unlink"),
    "rmdir": (os, "rmdir"),
    "mkdir": (os, "mkdir"),
    "truncate": (os, "truncate"),
}
POINTS = [(name, when) for name in OPERATIONS for when in ("before", "after")] + [
    ("write", "before"),
    ("write", "half"),
    ("write", "after"),
]


def data() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (IMAGES, SIZE), generator=draw, dtype=torch.uint8)
    return {"train": x.float() / 255, "validation": 0.25, "test": x[:5].float() / 255}


def work(run: Path) -> None:
    """Train or resume the run, as a user would."""
    if is_finished(run):
        return
    if (run / "run.json").exists():
        FORGE.resume(run, data=data(), quiet=True)
    else:
        model = {"hidden": [8], "latent_dim": 2}
        FORGE.train("ae", data=data(), model=model, train=TRAIN, run=run, quiet=True)


def digest(run: Path) -> str:
    """The hash of everything that a run leaves except times."""
    store = CheckpointStore(run / "checkpoints")
    found = hashlib.sha256()
    for which in ("last", "best"):
        saved = store.load(which)
        for group in saved.groups:
            for name, tensor in sorted(saved.tensors(group).items()):
                found.update(f"{which} {group} {name} {tensor.dtype}".encode())
                found.update(tensor.numpy().tobytes())
        outcome = {k: v for k, v in saved.state["outcome"].items() if k != "seconds"}
        state = {k: v for k, v in saved.state.items() if k != "events"} | {"outcome": outcome}
        found.update(json.dumps(state, sort_keys=True).encode())
    events = sorted(
        (value.tag, event.step, value.simple_value)
        for file in run.glob("events.*")
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if "images_per_second" not in value.tag and value.HasField("simple_value")
    )
    found.update(json.dumps(events).encode())
    for line in (run / "metrics.jsonl").read_text().splitlines():
        stored = {k: v for k, v in json.loads(line).items() if k != "images_per_second"}
        found.update(json.dumps(stored).encode())
    manifest = json.loads((run / "run.json").read_text())
    keys = ("status", "epochs", "steps", "metrics", "best", "protocol", "stopped")
    stored = {k: manifest[k] for k in keys}
    found.update(json.dumps(stored).encode())
    return found.hexdigest()


# ---------------------------------------------------------------- points


class ReportingFile:
    """A file that reports each write, at its start, half and end."""

    def __init__(self, file: Any, report: Callable[[str, str], None]) -> None:
        self.file, self.report = file, report

    def write(self, content: Any) -> int:
        self.report("write", "before")
        half = len(content) // 2
        self.file.write(content[:half])
        self.file.flush()
        self.report("write", "half")
        self.file.write(content[half:])
        self.file.flush()
        self.report("write", "after")
        return len(content)

    def __enter__(self) -> ReportingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def watch_operations(report: Callable[[str, str], None]) -> None:
    """Call `report(operation, when)` around every operation of this process on files."""
    for name, (module, function) in OPERATIONS.items():
        real = getattr(module, function)

        def wrapped(*args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            if _name == "open":
                writes = any(letter in str(args[1:2] or kwargs.get("mode")) for letter in "wxa")
                if not writes:
                    return _real(*args, **kwargs)
            report(_name, "before")
            made = _real(*args, **kwargs)
            report(_name, "after")
            return ReportingFile(made, report) if _name == "open" else made

        setattr(module, function, wrapped)


def call_at(point: tuple[str, str], number: int, do: Callable[[], None]) -> None:
    """Call `do` when this process reaches a point for the `number`th time, from 1."""
    seen = 0

    def report(name: str, when: str) -> None:
        nonlocal seen
        if (name, when) == point:
            seen += 1
            if seen == number:
                do()

    watch_operations(report)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> Callable[[], None]:
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    return refuse


# ---------------------------------------------------------------- children


def child(do: Callable[..., object], *arguments: object) -> int:
    """Start a process that calls `do` and exits; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        do(*arguments)
        code = 0
    except RunFailed:
        code = REPORTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_points(folder: Path) -> dict[tuple[str, str], int]:
    """How often an undisturbed run reaches each point."""
    counts: Counter[tuple[str, str]] = Counter()

    def counted() -> None:
        watch_operations(lambda name, when: counts.update([(name, when)]))
        work(folder / "counted")
        with open(folder / "counts.json", "w") as file:
            json.dump([[*point, count] for point, count in counts.items()], file)

    assert wait(child(counted)) == 0
    stored = json.loads((folder / "counts.json").read_text())
    return {(name, when): count for name, when, count in stored}


def check_run(run: Path, expected: str) -> None:
    work(run)
    found = digest(run)
    if found != expected:
        raise AssertionError(f"{run}: {found} is not {expected}")
    if leftovers := [*run.rglob(".tmp-*"), *run.glob(".*.*")]:
        raise AssertionError(f"{run}: left behind {leftovers}")


def work_disturbed(run: Path, where: tuple[str, str], number: int, do: Callable[[], None]) -> None:
    call_at(where, number, do)
    work(run)


# ---------------------------------------------------------------- campaigns


def kill_campaign(
    folder: Path,
    expected: str,
    kills: int,
    points: dict[tuple[str, str], int],
    seconds: float,
    seed: int,
) -> dict[str, int]:
    """Kill `kills` children, up to three times per run; then each run must end as expected."""
    draw, counts = random.Random(seed), Counter({"kills": 0, "runs": 0, "losses": 0})
    while counts["kills"] < kills:
        run = folder / f"run-{counts['runs']}"
        for _ in range(draw.choice((1, 1, 2, 3))):
            if draw.random() < 0.5:
                pid = child(work, run)
                time.sleep(draw.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)
                point = "a random moment"
            else:
                where = draw.choice(sorted(points))
                number = draw.randint(1, points[where])
                pid = child(work_disturbed, run, where, number, die)
                point = f"{where[1]} {where[0]}"
            code = wait(pid)
            if code == -signal.SIGKILL:
                counts["kills"] += 1
                counts[point] += 1
            elif code != 0:
                counts["losses"] += 1
                print(f"{run}: the child ended with {code} at {point}", file=sys.stderr)
        if wait(child(check_run, run, expected)) != 0:
            counts["losses"] += 1
            print(f"{run} was lost", file=sys.stderr)
        else:
            shutil.rmtree(run)
        counts["runs"] += 1
    return dict(counts)


def is_finished(run: Path) -> bool:
    """Whether a run ended before it was killed, so that there is nothing to resume."""
    try:
        return bool(json.loads((run / "run.json").read_text())["status"] == "done")
    except OSError:
        return False


def fault_campaign(
    folder: Path, expected: str, points: dict[tuple[str, str], int], seed: int
) -> dict[str, int]:
    """A disk that is full or denies access, at points of every kind: the run reports it, and
    once the disk works again the run resumes and ends as expected."""
    draw, counts = random.Random(seed), Counter({"faults": 0, "silent": 0, "losses": 0})
    kinds = [(name, "before") for name in ("open", "write", "fsync", "rename", "replace", "mkdir")]
    for where in [*kinds, ("write", "half")]:
        for reason in (errno.ENOSPC, errno.EACCES):
            for i in range(4):
                run = folder / f"fault-{counts['faults']}"
                number = draw.randint(1, points[where])
                if i % 2:  # a resumed run meets the fault too, mostly at its beginning
                    wait(child(work_disturbed, run, ("fsync", "after"), 40, die))
                    number = draw.randint(1, max(1, min(12, points[where] // 2)))
                code = wait(child(work_disturbed, run, where, number, fail(reason)))
                counts["faults"] += 1
                if code == 0:  # a fault in an optional operation, such as cleaning up
                    counts["silent"] += 1
                elif code != REPORTED:
                    counts["losses"] += 1
                    print(f"{run}: {where} {number} ended with {code}", file=sys.stderr)
                if wait(child(check_run, run, expected)) != 0:
                    counts["losses"] += 1
                    print(f"{run}: {where} {number} was lost", file=sys.stderr)
    return dict(counts)


def damage_campaign(run: Path, seed: int) -> dict[str, int]:
    """Flip bits, truncate files, swap files: every load of `last` must be refused."""
    draw, counts = random.Random(seed), Counter()
    store = CheckpointStore(run / "checkpoints")
    latest = store.load().path
    older = next(store.folder / name for name in store.names() if name != latest.name)
    files = [*sorted(latest.iterdir()), store.folder / "LATEST"]
    for kind, count in (("flipped", 200), ("truncated", 50), ("swapped", 25)):
        for _ in range(count):
            # weighted by size: every bit on the disk is equally likely
            file = draw.choices(files, [f.stat().st_size for f in files])[0]
            stored = file.read_bytes()
            other = None
            if kind == "flipped":
                place, changed = draw.randrange(len(stored)), bytearray(stored)
                changed[place] ^= 1 << draw.randrange(8)
            elif kind == "truncated":
                changed = bytearray(stored[: draw.randrange(len(stored))])
            else:
                other = draw.choice([f for f in [*older.iterdir(), *files] if f != file])
                changed = bytearray(other.read_bytes())
                if changed == stored:
                    continue
                other_kept = other.read_bytes()
                other.write_bytes(stored)
            file.write_bytes(changed)
            counts[kind] += 1
            try:
                store.load()
                counts["unseen"] += 1
                print(f"{file} was {kind}, and the damage was not detected", file=sys.stderr)
            except LatentForgeError:
                counts["seen"] += 1
            file.write_bytes(stored)
            if other is not None:
                other.write_bytes(other_kept)
    store.load()
    return dict(counts)


# ---------------------------------------------------------------- all campaigns


def run_parallel(
    tasks: Sequence[Callable[[Path], dict[str, int]]], folder: Path
) -> list[Counter[str]]:
    """Run each task in its own process and folder; return the counts of each."""
    pids = []
    for i, task in enumerate(tasks):
        part = folder / f"part-{i}"
        part.mkdir()

        def write_counts(task: Callable[[Path], dict[str, int]] = task, part: Path = part) -> None:
            (part / "counts.json").write_text(json.dumps(task(part)))

        pids.append(child(write_counts))
    counts = []
    for i, pid in enumerate(pids):
        failed = wait(pid) != 0
        file = folder / f"part-{i}" / "counts.json"
        counts.append(Counter({"losses": 1} if failed else json.loads(file.read_text())))
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kills = int(os.environ.get("LATENTFORGE_KILLS", "300"))
    parser.add_argument("--kills", type=int, default=kills, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    assert ignite.engine
    assert latentforge.workflows.resume
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        assert wait(child(work, folder / "whole")) == 0
        start = time.monotonic()
        assert wait(child(work, folder / "timed")) == 0
        seconds = time.monotonic() - start
        assert wait(child(lambda: (folder / "digest").write_text(digest(folder / "whole")))) == 0
        expected = (folder / "digest").read_text()
        points = {p: n for p, n in count_points(folder).items() if p in POINTS}
        share = -(-options.kills // CHILDREN)
        *kills, faults, damage = run_parallel(
            [
                *(
                    lambda part, i=i: kill_campaign(
                        part, expected, share, points, seconds, options.seed + i
                    )
                    for i in range(CHILDREN)
                ),
                lambda part: fault_campaign(part, expected, points, options.seed),
                lambda part: damage_campaign(folder / "whole", options.seed),
            ],
            folder,
        )
        killed = sum(kills, Counter())
    print(f"kills: {killed['kills']} in {killed['runs']} runs, losses: {killed['losses']}")
    where = {k: n for k, n in killed.items() if k not in ("kills", "runs", "losses")}
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(where.items())))
    print(
        f"disk faults: {faults['faults']}, of which {faults['silent']} caused no error, "
        f"losses: {faults['losses']}"
    )
    print(
        f"damage: {damage['flipped']} bits flipped, {damage['truncated']} files truncated, "
        f"{damage['swapped']} swapped; detected: {damage['seen']}, undetected: {damage['unseen']}"
    )
    print(f"{time.monotonic() - began:.0f} s")
    lost = killed["losses"] + faults["losses"] + damage["losses"] + damage["unseen"]
    return int(lost > 0 or killed["kills"] < options.kills)


if __name__ == "__main__":
    sys.exit(main())
