"""Seconds and peak memory from the command to the trained `vae`, and start-up time of commands.

    python benchmarks/whole.py [--repeats 3] [--epochs 15] [--side by-hand] [--json FILE]

Each variant runs in its own process: `latentforge train vae`, and the scripts of whole_sides.py.
They read the same MNIST files and train the same network with the same batch size. LatentForge has
default settings: it also logs, writes a checkpoint per epoch and evaluates all test images. The two
DataLoader baselines train only --few epochs, and `all epochs` is extrapolated from them. `speed-up`
is `all epochs` of a variant divided by `all epochs` of LatentForge. Peak memory is ru_maxrss, which
the kernel reports at the end of a process.

Start-up: a process `to its first step` exits before its first training step. By then it has read
the files, built the network and, for LatentForge, created the run folder. `by hand` is the script
`by-hand`. Both are compared with a process that only runs `import torch, ignite`.
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
TRAIN += ("--set", "model.activation=relu")  # as in the networks by hand
SLOW = ("write-up", "lightning")
SIDES = ("by-hand", "by-hand-bytes", *SLOW)
IMPORTS = "import torch, ignite"


def with_latentforge(scratch: Path, number: Iterator[int], epochs: int) -> dict[str, float]:
    run = scratch / f"run-{next(number)}"
    command = [*TRAIN, "--epochs", str(epochs), "--run", str(run)]
    process = turns.run(command, LATENTFORGE_DATA=str(scratch))
    training = json.loads((run / "run.json").read_text("utf-8"))["seconds"]
    return {"seconds": process.seconds, "training": training, "peak_mb": process.peak_mb}


def by_script(side: str, scratch: Path, epochs: int) -> dict[str, float]:
    process = turns.run([*script(side, scratch), "--epochs", str(epochs)])
    training = float(process.out.split()[-1])
    return {"seconds": process.seconds, "training": training, "peak_mb": process.peak_mb}


def script(side: str, scratch: Path) -> list[str]:
    command = [sys.executable, str(HERE / "whole_sides.py"), side, "--data", str(scratch)]
    return [*command, "--out", str(scratch / f"{side}.pt")]


def measure_training(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all variants alternately. Return their values and comparisons with LatentForge."""
    few = min(options.few, options.epochs)
    epochs = {side: few if side in SLOW else options.epochs for side in options.side}
    sides: dict[str, Callable[[], dict[str, float]]] = {
        side: partial(by_script, side, scratch, count) for side, count in epochs.items()
    }
    sides["latentforge"] = partial(with_latentforge, scratch, itertools.count(), options.epochs)
    epochs["latentforge"] = options.epochs
    results: dict[str, Any] = {}
    for side, runs in turns.take_turns(sides, options.repeats).items():
        columns = {key: [run[key] for run in runs] for key in runs[0]}
        remaining = options.epochs / epochs[side] - 1
        pairs = zip(columns["seconds"], columns["training"], strict=True)
        columns["all_epochs"] = [seconds + remaining * training for seconds, training in pairs]
        results[side] = {"epochs": epochs[side], **columns}
    ours = results["latentforge"]
    for side in options.side:
        results[side]["ratio"] = turns.ratio(results[side]["all_epochs"], ours["all_epochs"])
        results[side]["more_mb"] = turns.difference(ours["peak_mb"], results[side]["peak_mb"])
    return results


def show_training(results: dict[str, Any]) -> None:
    columns = ("epochs", "seconds", "training", "all epochs", "speed-up", "peak MB")
    table = turns.Table("variant", *columns, "additional MB of LatentForge", first=14)
    for side, result in results.items():
        times = [f"{statistics.median(result[key]):.1f}" for key in ("seconds", "training")]
        all_epochs, peak = (statistics.median(result[key]) for key in ("all_epochs", "peak_mb"))
        others = side != "latentforge"
        comparison = [f"{result['ratio']:.2f}" if others else "", f"{peak:.0f}"]
        more = f"{result['more_mb']:+.0f}" if others else ""
        table.row(side, str(result["epochs"]), *times, f"{all_epochs:.1f}", *comparison, more)


# ---------------------------------------------------------------- start-up


def commands(scratch: Path) -> dict[str, Callable[[], turns.ProcessResult]]:
    """The commands of the start-up table, by name."""
    number = itertools.count()

    def first_step(*arguments: str) -> turns.ProcessResult:
        plugin = (
            "-p",
            str(HERE / "first_step.py"),
            "train",
            *arguments,
            "--callback",
            "first-step",
        )
        run = scratch / f"started-{next(number)}"
        command = [*LATENTFORGE, *plugin, "--device", "cpu", "--run", str(run)]
        return turns.run(command, LATENTFORGE_DATA=str(scratch))

    lines = ("--version", "--help", "train --help", "list models", "plugins list")
    short_commands = {
        f"latentforge {line}": partial(turns.run, [*LATENTFORGE, *line.split()]) for line in lines
    }
    code = f"{IMPORTS}, os; os._exit(0)"  # exits as the processes below do
    by_hand = [*script("by-hand", scratch), "--epochs", "1", "--to-first-step"]
    return {
        "python -c pass": partial(turns.run, [sys.executable, "-c", "pass"]),
        **short_commands,
        IMPORTS: partial(turns.run, [sys.executable, "-c", code]),
        "by hand, to its first step": partial(turns.run, by_hand),
        "train vae --data mnist, to its first step": partial(
            *(first_step, "vae", "--data", "mnist", "--batch-size", "128")
        ),
        "train ae --data digits, to its first step": partial(first_step, "ae", "--data", "digits"),
    }


def measure_start_up(scratch: Path, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of each command, and its additional seconds over the imports."""
    sides = commands(scratch)
    if repeats > 1:
        # fills the caches of bytecode and of the disk; a single round is only a trial
        turns.take_turns(sides, 1)
    measured = turns.take_turns(sides, repeats)
    imports = [process.seconds for process in measured[IMPORTS]]
    return {
        name: {
            "seconds": [process.seconds for process in processes],
            "peak_mb": [process.peak_mb for process in processes],
            "over_imports": turns.difference([process.seconds for process in processes], imports),
        }
        for name, processes in measured.items()
    }


def show_start_up(results: dict[str, Any]) -> None:
    table = turns.Table("command", "seconds", f"over `{IMPORTS}`", "peak MB", first=42)
    for name, result in results.items():
        seconds, peak = (statistics.median(result[key]) for key in ("seconds", "peak_mb"))
        torchless = name.startswith(("python", "latentforge"))
        more = "" if torchless or name == IMPORTS else f"{result['over_imports']:+.2f}"
        table.row(name, f"{seconds:.2f}", more, f"{peak:.0f}")


def main() -> None:
    parser = turns.make_parser(__doc__, repeats=3)
    parser.add_argument("--epochs", type=int, default=15, help="[default: 15]")
    parser.add_argument("--few", type=int, default=2, help="epochs with a DataLoader [default: 2]")
    parser.add_argument("--images", type=int, default=60_000, help="[default: 60000]")
    parser.add_argument("--starts", type=int, default=5, help="rounds of start-up  [default: 5]")
    parser.add_argument("--side", choices=SIDES, action="append", help="default: all")
    options = parser.parse_args()
    options.side = [side for side in SIDES if side in (options.side or SIDES)]
    if "lightning" in options.side and not importlib.util.find_spec("lightning"):
        print("without lightning; try: pip install 'latentforge[bench]'\n")
        options.side.remove("lightning")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        writer = [sys.executable, str(HERE / "mnist_files.py"), folder, str(options.images)]
        source = turns.run(writer).out.strip()
        detail = f"{source}, {options.images:,} images, batch 128; medians of {options.repeats}"
        info = turns.headline("From the command to a trained vae", f"{detail} rounds")
        results = measure_training(scratch, options)
        show_training(results)
        print(f"\n## Start-up: medians of {options.starts} rounds\n")
        start_up = measure_start_up(scratch, options.starts)
        show_start_up(start_up)
    summary = {"data": source, "images": options.images, "epochs": options.epochs}
    turns.finish(options.json, info, {**summary, "sides": results, "start_up": start_up})


if __name__ == "__main__":
    main()
