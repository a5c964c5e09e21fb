"""Commands on damaged and edited run folders: none may hang, show a traceback, or give other
metrics without saying so.

    python tests/fuzz.py [--count 1000] [--seed 0]

Each command works on a copy of a small run in which one file was changed: run.json, metrics.jsonl,
the state, a pointer, findings.json or a file of a checkpoint. Prints the counts; the exit code is 1
if a command failed in one of these ways.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from latentforge import Forge
from latentforge.cli.app import run as run_cli

SECONDS = 60  # after which a command counts as hanging
CODES = (0, 1, 2, 3, 4)  # the exit codes of docs/errors.md, without those of signals
HUGE = "@" * 12 + "huge"  # replaced by a number of 400 digits, which json.dumps cannot write
ODD: list[Any] = [
    *(None, True, -1, 0, 1e308, HUGE, "", "x" * 2000, "\x1b[31mred", "../../etc/passwd", [], {}),
    *([[]], {"": None}, 3.5, "nan", 2**62, ["a", 1], {"name": "ae"}),
]
COMMANDS = {
    "evaluate": ["evaluate", "run", "--json"],
    "resume": ["train", "--resume", "run", "--epochs", "3", "--json", "--quiet"],
    "list": ["runs", ".", "--json"],
    "report": ["report", "run", "--json"],
    "doctor": ["doctor", "run", "--json"],
    "encode": ["encode", "run", "--out", "codes.npz", "--json"],
    "explore": ["explore", "reconstruct", "run", "--json"],
    "decode": ["decode", "run", "given.npz", "--out", "decoded", "--json"],
}
ANNOUNCEMENTS = (
    "was edited after",
    "is damaged",
    "has changed since",
    "is skipped: ",
    "cannot be read",
    "metrics are not",
    " instead",
)
"""Parts of the warnings that say why metrics differ."""
DECIMALS = re.compile(r"\d\.\d{3,}")
WEIGHTS = {
    "evaluate": 6,
    "resume": 4,
    "list": 3,
    "report": 2,
    "doctor": 2,
    "encode": 1,
    "explore": 1,
    "decode": 1,
}


def prepare(folder: Path) -> None:
    """Train a small run in the working folder, evaluate it and run an explorer."""
    draw = np.random.default_rng(0)
    np.savez("data.npz", x=draw.integers(0, 256, (60, 6, 6), np.uint8), y=np.arange(60) % 3)
    forge = Forge()
    data = {"name": "arrays", "path": str(folder / "data.npz"), "validation": 0.2}
    train = {"epochs": 2, "batch_size": 16}
    run = forge.train(
        "ae", model={"hidden": [8], "latent_dim": 2}, data=data, train=train, run="run", quiet=True
    )
    run.evaluate()
    run.explore("reconstruct", n=2)
    np.savez("given.npz", z=np.zeros((3, 2), np.float32))


# ---------------------------------------------------------------- changes


def change(run: Path, draw: random.Random) -> str:
    """Change one file of a run; returns what was changed."""
    checkpoint = run / "checkpoints" / (run / "checkpoints/LATEST").read_text().split()[0]
    explored = run / "explore/reconstruct/findings.json"
    files = {
        run / "run.json": 8,
        run / "metrics.jsonl": 2,
        run / "evaluations.jsonl": 1,
        run / "checkpoints/LATEST": 1,
        run / "checkpoints/BEST": 1,
        explored: 2,
        **dict.fromkeys(sorted(checkpoint.iterdir()), 1),
    }
    [file] = draw.choices(list(files), list(files.values()))
    as_json = file.suffix in (".json", ".jsonl") and draw.random() < 0.7
    what = change_json(file, draw) if as_json else change_bytes(file, draw)
    return f"{file.relative_to(run)}: {what}"


def change_json(file: Path, draw: random.Random) -> str:
    """Replace or remove a value at a random place."""
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    number = draw.randrange(len(lines))
    value = json.loads(lines[number])
    place, parent, key = pick(value, draw)
    if draw.random() < 0.2:
        what = f"{place} removed"
        del parent[key]
    else:
        new = draw.choice(ODD)
        what = f"{place} is {str(new)[:30]!r}"
        parent[key] = new
    lines[number] = json.dumps(value).replace(f'"{HUGE}"', "9" * 400)
    file.write_text("\n".join(lines) + "\n")
    return what


def pick(value: Any, draw: random.Random) -> tuple[str, Any, Any]:
    """Return a random place in a JSON value: its path, its container and its key there."""
    places: list[tuple[str, Any, Any]] = []

    def walk(inner: Any, path: str) -> None:
        keys = range(len(inner)) if isinstance(inner, list) else list(inner)
        for key in keys:
            places.append((f"{path}{key}", inner, key))
            if isinstance(inner[key], list | dict):
                walk(inner[key], f"{path}{key}.")

    walk(value, "")
    return draw.choice(places)


def change_bytes(file: Path, draw: random.Random) -> str:
    stored = file.read_bytes()
    kinds = ("flip", "truncate", "empty", "append", "link", "folder", "pipe", "remove", "deep")
    kind = draw.choice(kinds)
    file.unlink()
    match kind:
        case "flip":
            changed = bytearray(stored or b"x")
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
            file.write_bytes(changed)
        case "truncate":
            file.write_bytes(stored[: draw.randrange(len(stored) or 1)])
        case "empty":
            file.write_bytes(b"")
        case "append":
            file.write_bytes(stored + draw.randbytes(20))
        case "link":
            file.symlink_to("/etc/hostname")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "deep":
            file.write_text("[" * 100_000)
    return kind


# ---------------------------------------------------------------- commands


def call(command: list[str], folder: Path) -> tuple[int | None, str, str]:
    """Run a command in a new process; returns its exit code (None: it hung), stdout and stderr."""
    out, err = folder / "out.txt", folder / "err.txt"
    pid = os.fork()
    if not pid:
        code = 99
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.chdir(folder)
            torch.set_num_threads(1)
            code = run_cli(command)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace")
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None, "", err.read_text("utf-8", "replace")


def find_metrics(name: str, out: str, folder: Path) -> Any:
    """The metrics in the answer of a command, which a change must not alter silently."""
    answer = json.loads(out)
    return {
        "evaluate": lambda: answer["metrics"],
        "resume": lambda: answer["metrics"],
        "list": lambda: [run["metrics"] for run in answer["runs"] if "metrics" in run],
        "encode": lambda: [answer["images"], answer["latent_shape"]],
        "decode": lambda: answer["images"],
        "doctor": lambda: answer["findings"],
        "explore": lambda: answer["metrics"],
        "report": lambda: Counter(DECIMALS.findall((folder / answer["report"]).read_text())),
    }[name]()


def judge(
    name: str, folder: Path, code: int | None, out: str, err: str, expected: Any, edited: str
) -> str:
    """Return what is wrong with a command, or an empty string."""
    if code is None:
        return "hang"
    if "Traceback" in err:
        return "traceback"
    if "error in LatentForge itself" in err:
        return "internal error"
    if code not in CODES:
        return f"exit code {code}"
    if code:
        return "" if err.startswith(("error: ", "warning: ")) else "no message"
    found = find_metrics(name, out, folder)
    unreadable = name == "list" and not found
    announced = unreadable or any(word in err for word in ANNOUNCEMENTS)
    option = name == "report" and edited.startswith("run.json: config.")  # the page shows options
    # a file of evaluations that was emptied or removed changes no number of the page
    changed = found - expected if name == "report" else found != expected
    if changed and not announced and not option:
        return "silently changed"
    return ""


def work(folder: Path, count: int, seed: int, expected: dict[str, Any]) -> Counter[str]:
    draw, counts = random.Random(seed), Counter[str]()
    for number in range(count):
        place = folder / f"{seed}-{number}"
        place.mkdir()
        shutil.copytree(folder / "run", place / "run")
        shutil.copy(folder / "given.npz", place)
        edited = change(place / "run", draw)
        [name] = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))
        code, out, err = call(COMMANDS[name], place)
        wrong = judge(name, place, code, out, err, expected[name], edited)
        counts["refused" if code else "worked"] += 1
        if wrong:
            counts[wrong] += 1
            print(f"{wrong}: {name} after {edited}\n  {err.strip()[:600]}", file=sys.stderr)
        shutil.rmtree(place)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = int(os.environ.get("LATENTFORGE_FUZZ", "1000"))
    parser.add_argument("--count", type=int, default=default, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.chdir(folder)
        prepare(folder)
        expected = {}
        for name, command in COMMANDS.items():
            place = folder / f"expected-{name}"
            place.mkdir()
            shutil.copytree(folder / "run", place / "run")
            shutil.copy(folder / "given.npz", place)
            code, out, err = call(command, place)
            assert code == 0, err
            expected[name] = find_metrics(name, out, place)
        counts = in_parallel(
            [
                lambda i=i: work(folder, -(-options.count // 2), 2 * options.seed + i, expected)
                for i in range(2)
            ],
            folder,
        )
    wrong = {name: n for name, n in counts.items() if name not in ("worked", "refused")}
    total = counts["worked"] + counts["refused"]
    print(f"mutated commands: {total}, of which {counts['refused']} were refused")
    kinds = ("traceback", "hang", "internal error", "silently changed")
    print("  " + ", ".join(f"{name} {wrong.pop(name, 0)}" for name in kinds), *wrong.items())
    print(f"{time.monotonic() - began:.0f} s")
    return int(sum(counts.values()) > total)


def in_parallel(tasks: list[Callable[[], Counter[str]]], folder: Path) -> Counter[str]:
    pids = []
    for i, task in enumerate(tasks):
        if not (pid := os.fork()):
            (folder / f"counts-{i}.json").write_text(json.dumps(task()))
            sys.stderr.flush()
            os._exit(0)
        pids.append(pid)
    counts = Counter[str]()
    for i, pid in enumerate(pids):
        assert os.waitpid(pid, 0)[1] == 0
        counts.update(json.loads((folder / f"counts-{i}.json").read_text()))
    return counts


if __name__ == "__main__":
    sys.exit(main())
