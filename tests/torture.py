"""Kills, faults and damage without end, and what of a run outlives them: `make torture`.

    python tests/torture.py [--kills N] [--seed N]

A child trains with a checkpoint after every step and is killed (SIGKILL) at a random moment or at a
named point of a file operation, up to three times a run; then the run is resumed and must end with
the bits of the run that nobody disturbed. The same after a full disk at each operation. Then files
are damaged, and no damage may go unseen. Prints counts; exits with 1 if anything was lost.
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
CHILDREN = 2  # at a time
TOLD = 10  # the exit code of a child whose run could not go on and said so
OPERATIONS = {  # what a writer asks of the system: the module and the function
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
    """Train the run, or go on with it: what a user would type."""
    if finished(run):
        return
    if (run / "run.json").exists():
        FORGE.resume(run, data=data(), quiet=True)
    else:
        model = {"hidden": [8], "latent_dim": 2}
        FORGE.train("ae", data=data(), model=model, train=TRAIN, run=run, quiet=True)


def digest(run: Path) -> str:
    """Of all that a run leaves, but times."""
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
        kept = {k: v for k, v in json.loads(line).items() if k != "images_per_second"}
        found.update(json.dumps(kept).encode())
    manifest = json.loads((run / "run.json").read_text())
    keys = ("status", "epochs", "steps", "metrics", "best", "protocol", "stopped")
    kept = {k: manifest[k] for k in keys}
    found.update(json.dumps(kept).encode())
    return found.hexdigest()


# ---------------------------------------------------------------- points


class Written:
    """A file that tells of each write, also of half of one."""

    def __init__(self, file: Any, tell: Callable[[str, str], None]) -> None:
        self.file, self.report = file, tell

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

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def listen(tell: Callable[[str, str], None]) -> None:
    """Call `tell(operation, when)` around every operation of this process on files."""
    for name, (module, function) in OPERATIONS.items():
        real = getattr(module, function)

        def wrapped(*args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            if _name == "open":
                writes = any(letter in str(args[1:2] or kwargs.get("mode")) for letter in "wxa")
                if not writes:
                    return _real(*args, **kwargs)
            tell(_name, "before")
            made = _real(*args, **kwargs)
            tell(_name, "after")
            return Written(made, tell) if _name == "open" else made

        setattr(module, function, wrapped)


def at(point: tuple[str, str], number: int, do: Callable[[], None]) -> None:
    """Do something when this process comes to a point for the `number`th time, from 1."""
    seen = 0

    def tell(name: str, when: str) -> None:
        nonlocal seen
        if (name, when) == point:
            seen += 1
            if seen == number:
                do()

    listen(tell)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> Callable[[], None]:
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    return refuse


# ---------------------------------------------------------------- children


def child(do: Callable[..., object], *arguments: object) -> int:
    """Start a process that calls `do` and ends; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        do(*arguments)
        code = 0
    except RunFailed:
        code = TOLD
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_points(folder: Path) -> dict[tuple[str, str], int]:
    """How often an undisturbed run comes to each point."""
    counts: Counter[tuple[str, str]] = Counter()

    def counted() -> None:
        listen(lambda name, when: counts.update([(name, when)]))
        work(folder / "counted")
        with open(folder / "counts.json", "w") as file:
            json.dump([[*point, count] for point, count in counts.items()], file)

    assert wait(child(counted)) == 0
    kept = json.loads((folder / "counts.json").read_text())
    return {(name, when): count for name, when, count in kept}


def same(run: Path, expected: str) -> None:
    work(run)
    found = digest(run)
    if found != expected:
        raise AssertionError(f"{run}: {found} is not {expected}")
    if leftovers := [*run.rglob(".tmp-*"), *run.glob(".*.*")]:
        raise AssertionError(f"{run}: left behind {leftovers}")


def disturbed(run: Path, where: tuple[str, str], number: int, do: Callable[[], None]) -> None:
    at(where, number, do)
    work(run)


# ---------------------------------------------------------------- campaigns


def kill_campaign(
    folder: Path, expected: str, kills: int, points: dict[tuple[str, str], int], seed: int
) -> dict[str, int]:
    """Kill until there were enough; up to three times a run, then it must end as expected."""
    draw, told = random.Random(seed), Counter({"kills": 0, "runs": 0, "losses": 0})
    began = time.perf_counter()
    assert wait(child(work, folder / "timed")) == 0
    whole = time.perf_counter() - began
    while told["kills"] < kills:
        run = folder / f"run-{told['runs']}"
        for _ in range(draw.choice((1, 1, 2, 3))):
            if draw.random() < 0.5:
                pid = child(work, run)
                time.sleep(draw.uniform(0, whole))
                os.kill(pid, signal.SIGKILL)
                point = "a random moment"
            else:
                where = draw.choice(sorted(points))
                number = draw.randint(1, points[where])
                pid = child(disturbed, run, where, number, die)
                point = f"{where[1]} {where[0]}"
            code = wait(pid)
            if code == -signal.SIGKILL:
                told["kills"] += 1
                told[point] += 1
            elif code != 0:
                told["losses"] += 1
                print(f"{run}: the child ended with {code} at {point}", file=sys.stderr)
        if wait(child(same, run, expected)) != 0:
            told["losses"] += 1
            print(f"{run} was lost", file=sys.stderr)
        else:
            shutil.rmtree(run)
        told["runs"] += 1
    return dict(told)


def finished(run: Path) -> bool:
    """Whether a run came to its end before it was killed; then there is nothing to resume."""
    try:
        return bool(json.loads((run / "run.json").read_text())["status"] == "done")
    except OSError:
        return False


def fault_campaign(
    folder: Path, expected: str, points: dict[tuple[str, str], int], seed: int
) -> dict[str, int]:
    """A disk that is full or refuses, at points of every kind: the run says so, what was there
    loads, and with the disk mended the run ends as expected."""
    draw, told = random.Random(seed), Counter({"faults": 0, "silent": 0, "losses": 0})
    kinds = [(name, "before") for name in ("open", "write", "fsync", "rename", "replace", "mkdir")]
    for where in [*kinds, ("write", "half")]:
        for reason in (errno.ENOSPC, errno.EACCES):
            for i in range(4):
                run = folder / f"fault-{told['faults']}"
                number = draw.randint(1, points[where])
                if i % 2:  # a run that goes on meets it too, mostly at its beginning
                    wait(child(disturbed, run, ("fsync", "after"), 40, die))
                    number = draw.randint(1, max(1, min(12, points[where] // 2)))
                code = wait(child(disturbed, run, where, number, fail(reason)))
                told["faults"] += 1
                if code == 0:  # a fault at what nothing depends on, such as sweeping up
                    told["silent"] += 1
                elif code != TOLD:
                    told["losses"] += 1
                    print(f"{run}: {where} {number} ended with {code}", file=sys.stderr)
                if wait(child(same, run, expected)) != 0:
                    told["losses"] += 1
                    print(f"{run}: {where} {number} was lost", file=sys.stderr)
    return dict(told)


def damage_campaign(run: Path, seed: int) -> dict[str, int]:
    """Flip bits, cut files short, swap files: `last` must be refused or another one named."""
    draw, told = random.Random(seed), Counter()
    store = CheckpointStore(run / "checkpoints")
    latest = store.load().path
    older = next(store.folder / name for name in store.names() if name != latest.name)
    files = [*sorted(latest.iterdir()), store.folder / "LATEST"]
    for kind, count in (("flipped", 200), ("truncated", 50), ("swapped", 25)):
        for _ in range(count):
            # as large as it is likely: a bit on the disk does not know of files
            file = draw.choices(files, [f.stat().st_size for f in files])[0]
            kept = file.read_bytes()
            other = None
            if kind == "flipped":
                place, changed = draw.randrange(len(kept)), bytearray(kept)
                changed[place] ^= 1 << draw.randrange(8)
            elif kind == "truncated":
                changed = bytearray(kept[: draw.randrange(len(kept))])
            else:
                other = draw.choice([f for f in [*older.iterdir(), *files] if f != file])
                changed = bytearray(other.read_bytes())
                if changed == kept:
                    continue
                other_kept = other.read_bytes()
                other.write_bytes(kept)
            file.write_bytes(changed)
            told[kind] += 1
            try:
                store.load()
                told["unseen"] += 1
                print(f"{file} was {kind}, and nobody saw it", file=sys.stderr)
            except LatentForgeError:
                told["seen"] += 1
            file.write_bytes(kept)
            if other is not None:
                other.write_bytes(other_kept)
    store.load()
    return dict(told)


# ---------------------------------------------------------------- the whole


def side_by_side(tasks: Sequence[Callable[[Path], dict[str, int]]], folder: Path) -> Counter[str]:
    """Each task in a process and a folder of its own; the sums of what they tell."""
    pids = []
    for i, task in enumerate(tasks):
        own = folder / f"part-{i}"
        own.mkdir()

        def told(task: Callable[[Path], dict[str, int]] = task, own: Path = own) -> None:
            (own / "told.json").write_text(json.dumps(task(own)))

        pids.append(child(told))
    sums: Counter[str] = Counter()
    for i, pid in enumerate(pids):
        if wait(pid) != 0:
            sums["losses"] += 1
            continue
        sums.update(json.loads((folder / f"part-{i}" / "told.json").read_text()))
    return sums


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
        assert wait(child(lambda: (folder / "digest").write_text(digest(folder / "whole")))) == 0
        expected = (folder / "digest").read_text()
        points = {p: n for p, n in count_points(folder).items() if p in POINTS}
        share = -(-options.kills // CHILDREN)
        parts = [
            lambda own, i=i: kill_campaign(own, expected, share, points, options.seed + i)
            for i in range(CHILDREN)
        ]
        killed = side_by_side(parts, folder)
        (folder / "faults").mkdir()
        faults = side_by_side(
            [lambda own: fault_campaign(own, expected, points, options.seed)], folder / "faults"
        )
        (folder / "damage").mkdir()
        damage = side_by_side(
            [lambda own: damage_campaign(folder / "whole", options.seed)], folder / "damage"
        )
    print(f"kills: {killed['kills']} in {killed['runs']} runs, losses: {killed['losses']}")
    where = {k: n for k, n in killed.items() if k not in ("kills", "runs", "losses")}
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(where.items())))
    print(
        f"faults of the disk: {faults['faults']}, of which {faults['silent']} cost nothing, "
        f"losses: {faults['losses']}"
    )
    print(
        f"damage: {damage['flipped']} bits flipped, {damage['truncated']} files cut, "
        f"{damage['swapped']} swapped; seen: {damage['seen']}, unseen: {damage['unseen']}"
    )
    print(f"{time.monotonic() - began:.0f} s")
    lost = killed["losses"] + faults["losses"] + damage["losses"] + damage["unseen"]
    return int(lost > 0 or killed["kills"] < options.kills)


if __name__ == "__main__":
    sys.exit(main())
