"""Seconds and peak memory from a command to a trained `vae`, and how long commands take to start.

    python benchmarks/whole.py [--repeats 3] [--epochs 15] [--side by-hand] [--json FILE]

Each side is a process of its own: `latentforge train vae`, and the scripts of whole_sides.py. They
read the same MNIST files and train the same network with the same batches; LatentForge, as it
comes, also logs, writes a checkpoint an epoch, and evaluates all test images at the end. The two
sides with a DataLoader train --few epochs only: `all epochs` adds the others at the pace of these.
`LatentForge x` is how many times as fast LatentForge is over all epochs. Peak memory is what the
kernel says of the process at its end (ru_maxrss).

Start-up: `to its first step` ends a process where its first training step would begin, after it
has read the files, built the network and made the run folder. By hand that is the script
`by-hand`. Both are compared with a process that does nothing but `import torch, ignite`.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import turns

HERE = Path(__file__).resolve().parent
LATENTFORGE = (sys.executable, "-m", "latentforge")
TRAIN = (*LATENTFORGE, "train", "vae", "--data", "mnist", "--batch-size", "128", "--device", "cpu")
SLOW = ("write-up", "lightning")
SIDES = ("by-hand", "by-hand-bytes", *SLOW)
IMPORTS = "import torch, ignite"


def with_latentforge(scratch: Path, number: Iterator[int], epochs: int) -> dict[str, float]:
    run = scratch / f"run-{next(number)}"
    command = [*TRAIN, "--epochs", str(epochs), "--run", str(run)]
    ran = turns.run(command, LATENTFORGE_DATA=str(scratch))
    training = json.loads((run / "run.json").read_text("utf-8"))["seconds"]
    return {"seconds": ran.seconds, "training": training, "peak_mb": ran.peak_mb}


def by_script(side: str, scratch: Path, epochs: int) -> dict[str, float]:
    ran = turns.run([*script(side, scratch), "--epochs", str(epochs)])
    training = float(ran.out.split()[-1])
    return {"seconds": ran.seconds, "training": training, "peak_mb": ran.peak_mb}


def script(side: str, scratch: Path) -> list[str]:
    words = [sys.executable, str(HERE / "whole_sides.py"), side, "--data", str(scratch)]
    return [*words, "--out", str(scratch / f"{side}.pt")]


def trained(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All sides in turns: what each took, and how LatentForge compares."""
    few = min(options.few, options.epochs)
    epochs = {side: few if side in SLOW else options.epochs for side in options.side}
    sides: dict[str, Callable[[], dict[str, float]]] = {
        side: partial(by_script, side, scratch, count) for side, count in epochs.items()
    }
    sides["latentforge"] = partial(with_latentforge, scratch, itertools.count(), options.epochs)
    epochs["latentforge"] = options.epochs
    found: dict[str, Any] = {}
    for side, took in turns.take_turns(sides, options.repeats).items():
        columns = {key: [one[key] for one in took] for key in took[0]}
        left = options.epochs / epochs[side] - 1
        pairs = zip(columns["seconds"], columns["training"], strict=True)
        columns["all_epochs"] = [seconds + left * training for seconds, training in pairs]
        found[side] = {"epochs": epochs[side], **columns}
    ours = found["latentforge"]
    for side in options.side:
        found[side]["ratio"] = turns.ratio(found[side]["all_epochs"], ours["all_epochs"])
        found[side]["more_mb"] = turns.difference(ours["peak_mb"], found[side]["peak_mb"])
    return found


def show_trained(found: dict[str, Any]) -> None:
    columns = ("epochs", "seconds", "training", "all epochs", "LatentForge x", "peak MB")
    table = turns.Table("side", *columns, "LatentForge MB more", first=14)
    for side, told in found.items():
        times = [f"{statistics.median(told[key]):.1f}" for key in ("seconds", "training")]
        whole, peak = (statistics.median(told[key]) for key in ("all_epochs", "peak_mb"))
        others = side != "latentforge"
        compared = [f"{told['ratio']:.2f}" if others else "", f"{peak:.0f}"]
        more = f"{told['more_mb']:+.0f}" if others else ""
        table.row(side, str(told["epochs"]), *times, f"{whole:.1f}", *compared, more)


# ---------------------------------------------------------------- start-up


def commands(scratch: Path) -> dict[str, Callable[[], turns.Ran]]:
    """What is started, by the name it has in the table."""
    number = itertools.count()

    def first_step(*what: str) -> turns.Ran:
        plugin = ("-p", str(HERE / "first_step.py"), "train", *what, "--callback", "first-step")
        run = scratch / f"started-{next(number)}"
        command = [*LATENTFORGE, *plugin, "--device", "cpu", "--run", str(run)]
        return turns.run(command, LATENTFORGE_DATA=str(scratch))

    words = ("--version", "--help", "train --help", "list models", "plugins list")
    answers = {
        f"latentforge {line}": partial(turns.run, [*LATENTFORGE, *line.split()]) for line in words
    }
    code = f"{IMPORTS}, os; os._exit(0)"  # ends as the two below do
    hand = [*script("by-hand", scratch), "--epochs", "1", "--to-first-step"]
    return {
        "python -c pass": partial(turns.run, [sys.executable, "-c", "pass"]),
        **answers,
        IMPORTS: partial(turns.run, [sys.executable, "-c", code]),
        "by hand, to its first step": partial(turns.run, hand),
        "train vae --data mnist, to its first step": partial(
            *(first_step, "vae", "--data", "mnist", "--batch-size", "128")
        ),
        "train ae --data digits, to its first step": partial(first_step, "ae", "--data", "digits"),
    }


def started(scratch: Path, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of each command, and how much more than the imports alone."""
    sides = commands(scratch)
    turns.take_turns(sides, 1)  # once for the caches: of bytecode, and of the disk
    ran = turns.take_turns(sides, repeats)
    floor = [one.seconds for one in ran[IMPORTS]]
    return {
        name: {
            "seconds": [one.seconds for one in took],
            "peak_mb": [one.peak_mb for one in took],
            "over_imports": turns.difference([one.seconds for one in took], floor),
        }
        for name, took in ran.items()
    }


def show_started(found: dict[str, Any]) -> None:
    table = turns.Table("command", "seconds", f"over `{IMPORTS}`", "peak MB", first=42)
    for name, told in found.items():
        seconds, peak = (statistics.median(told[key]) for key in ("seconds", "peak_mb"))
        torchless = name.startswith(("python", "latentforge"))
        more = "" if torchless or name == IMPORTS else f"{told['over_imports']:+.2f}"
        table.row(name, f"{seconds:.2f}", more, f"{peak:.0f}")


def main() -> None:
    parser = turns.arguments(__doc__, repeats=3)
    parser.add_argument("--epochs", type=int, default=15, help="[default: 15]")
    parser.add_argument("--few", type=int, default=2, help="epochs of the slow sides [default: 2]")
    parser.add_argument("--images", type=int, default=60_000, help="[default: 60000]")
    parser.add_argument("--starts", type=int, default=5, help="turns of start-up  [default: 5]")
    parser.add_argument("--side", choices=SIDES, action="append", help="default: every one")
    options = parser.parse_args()
    options.side = [side for side in SIDES if side in (options.side or SIDES)]
    if "lightning" in options.side and not importlib.util.find_spec("lightning"):
        print("without lightning: pip install 'latentforge[bench]'\n")
        options.side.remove("lightning")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        writer = [sys.executable, str(HERE / "mnist_files.py"), folder, str(options.images)]
        source = turns.run(writer).out.strip()
        detail = f"{source}, {options.images:,} images, batch 128; medians of {options.repeats}"
        on = turns.headline("From a command to a trained vae", f"{detail} turns")
        found = trained(scratch, options)
        show_trained(found)
        print(f"\n## Start-up: medians of {options.starts} turns\n")
        starts = started(scratch, options.starts)
        show_started(starts)
    told = {"data": source, "images": options.images, "epochs": options.epochs}
    turns.finish(options.json, on, {**told, "sides": found, "start_up": starts})


if __name__ == "__main__":
    main()
