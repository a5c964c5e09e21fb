"""Speed of two checkouts of LatentForge: detects cases in which the newer one is slower.

    python benchmarks/versions.py BASE NEW [--pairs 15] [--case NAME] [--threads 2] [--json FILE]

A pair is one process of each checkout. They work alternately for 8 seconds, each for about a tenth
of a second at a time, because the speed of a shared machine changes within a second. The rate of a
process is the 90 % quantile of its measurements, because other load can only slow them. The result
of a case is the median over the pairs of rate(NEW) / rate(BASE), with the exact binomial interval
of a median: of 15 sorted ratios, from the 4th to the 12th. The exit code is 1 if an interval is
entirely below 0.98.

- The networks of networks.py: images per second of some training steps, with one line of the log.
- epochs: images per second of a `vae` whose epochs have one step, so that the rest is the end of an
  epoch: evaluation, checkpoint, metrics.
- evaluate-vae: images per second of `Forge.evaluate`.
- help, plugins-list: starts of the command per second, each in a separate process.

Processes use only the public API, because internal modules differ between checkouts. Both sides
read entry points from the installed distribution, so a plugin that it does not list is not loaded.
The script uses MNIST from LATENTFORGE_DATA. Without it, the script uses the digits of scikit-learn,
repeated to the same number of images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import turns

HERE = Path(__file__).resolve().parent
PAIRS, LIMIT = 15, 0.98
SECONDS, LEAST = 8.0, 5  # the duration of a pair, and its minimum of measurements per side
# Steps of a measurement, about 0.1 s on two cores, by the names of networks.CASES.
STEPS = {
    "mlp-classifier": 40,
    "ae": 25,
    "vae": 10,
    "ae-z2": 10,
    "cnn-classifier": 2,
    "conv-vae": 1,
    "epochs": 5,
}
MEASUREMENTS = 20  # in an epoch, except in the case `epochs`
EVALUATED = 1000  # images of an evaluation
STARTS = {"help": ["--help"], "plugins-list": ["plugins", "list"]}
CASES = (*STEPS, "evaluate-vae", *STARTS)


# ---------------------------------------------------------------- in the process of a checkout


def images(split: str, count: int) -> tuple[Any, Any]:
    """The first `count` images and labels of a split, which is repeated if it has fewer."""
    import torch

    from latentforge import Forge

    name = "mnist" if os.environ.get("LATENTFORGE_DATA") else "digits"
    data = Forge().load_data(name).split(split)
    index = torch.arange(count) % len(data.x)
    return data.x[index], data.y[index]


class Clock:
    """Prints the rate of each measurement, and pauses the process between measurements."""

    def __init__(self) -> None:
        self.start_time = time.perf_counter()

    def lap(self, count: int) -> bool:
        """Print the rate of `count` images and wait for a line. False if there are no more."""
        print(count / (time.perf_counter() - self.start_time), flush=True)
        requested = bool(sys.stdin.readline())
        self.start_time = time.perf_counter()
        return requested


def train(name: str, steps: int, folder: Path) -> None:
    """Train until there are no more requests. A measurement is `steps` training steps."""
    from ignite.engine import Events
    from networks import CASES as NETWORKS

    from latentforge import CallbackSpec, Forge, hookimpl

    case, clock = NETWORKS["vae" if name == "epochs" else name], Clock()
    count = steps * case.batch_size
    epoch = case.batch_size if name == "epochs" else MEASUREMENTS * count

    class Pause:
        def attach(self, engines: Any) -> None:
            @engines.trainer.on(Events.ITERATION_COMPLETED(every=steps))
            def pause(engine: Any) -> None:
                if not clock.lap(count):
                    engine.terminate()

    class Plugin:
        @hookimpl
        def latentforge_callbacks(self) -> Iterator[Any]:
            yield CallbackSpec(name="pause", summary="Pauses", build=lambda _: Pause())

    forge = Forge([Plugin()])
    config = forge.registry.get("models", case.model).spec.config
    known = {option.name for option in fields(config)}  # an older version may lack some
    forge.train(
        case.model,
        model={name: value for name, value in case.options.items() if name in known},
        data={"train": images("train", epoch), "test": images("test", 100)},
        train={
            "epochs": 100_000,
            "batch_size": case.batch_size,
            "log_every": steps,
            "device": "cpu",
        },
        callbacks=["pause"],
        run=folder / "run",
        quiet=True,
    )


def evaluate(folder: Path) -> None:
    """Evaluate a `vae` with its default measures until there are no more requests."""
    from latentforge import Forge

    forge = Forge()
    data = {"train": images("train", 128), "test": images("test", EVALUATED)}
    options = {"epochs": 1, "batch_size": 128, "device": "cpu"}
    model = {"activation": "relu"}  # the default of older versions
    run = forge.train("vae", model=model, data=data, train=options, run=folder / "run", quiet=True)
    clock = Clock()
    forge.evaluate(run, data=data, device="cpu")
    while clock.lap(EVALUATED):
        forge.evaluate(run, data=data, device="cpu")


def work(case: str, steps: int) -> None:
    """Measure the case once for each line of the standard input, after a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        train(case, steps, Path(folder)) if case in STEPS else evaluate(Path(folder))


# ---------------------------------------------------------------- pairs


def environment(checkout: Path) -> dict[str, str]:
    """Variables with which a process imports the checkout and nothing from the current folder, and
    stores bytecode even if the environment forbids it."""
    folders = os.pathsep.join(map(str, (checkout, checkout / "plugins", HERE)))
    return {"PYTHONPATH": folders, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": ""}


class Worker:
    """A process that measures a case with the code of a checkout."""

    def __init__(self, case: str, steps: int | None, checkout: Path) -> None:
        code = f"import versions; versions.work({case!r}, {steps or STEPS.get(case, 0)})"
        self.name = f"{case}, {checkout}"
        self.child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment(checkout)},
        )

    def read(self) -> float:
        """The rate of the warm-up, or that of the last request."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        return float(line) if line else sys.exit(f"{self.name}: the process has ended")

    def measure(self) -> float:
        with suppress(BrokenPipeError):  # then there is no line to read
            print(file=self.child.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        self.child.communicate()  # closes its standard input
        if self.child.returncode:
            sys.exit(f"{self.name}: exit code {self.child.returncode}")


def measure_pair(case: str, steps: int | None, base: Path, new: Path) -> dict[str, list[float]]:
    """The rates of both checkouts, measured alternately; the first changes every round."""
    workers = []
    sides: dict[str, Callable[[], float]] = {}
    for name, checkout in (("base", base), ("new", new)):
        if case in STARTS:
            sides[name] = partial(start, case, checkout)
        else:
            workers.append(Worker(case, steps, checkout))
            sides[name] = workers[-1].measure
    for worker in workers:
        worker.read()
    pair: dict[str, list[float]] = {"base": [], "new": []}
    end_time = time.monotonic() + SECONDS
    while len(pair["new"]) < LEAST or time.monotonic() < end_time:
        rounds = turns.take_turns(sides, 2, swap=True)
        for name, rates in rounds.items():
            pair[name] += rates
    for worker in workers:
        worker.end()
    return pair


def start(case: str, checkout: Path) -> float:
    """Starts of a command per second, from the time of one."""
    command = [sys.executable, "-m", "latentforge", *STARTS[case]]
    return 1 / turns.run(command, **environment(checkout)).seconds


def prepare(checkout: Path) -> None:
    """Exit unless processes import this checkout. Then run each command once, to store
    bytecode."""
    code = "import latentforge, latentforge_plugins as p; print(latentforge.__path__ + p.__path__)"
    imported = turns.run([sys.executable, "-c", code], **environment(checkout)).out.strip()
    packages = [checkout / "latentforge", checkout / "plugins" / "latentforge_plugins"]
    if imported != str([str(package) for package in packages]):
        hint = "try: git worktree add FOLDER COMMIT"
        sys.exit(f"{checkout} is not a checkout of LatentForge: Python imports {imported}\n{hint}")
    for arguments in STARTS.values():
        turns.run([sys.executable, "-m", "latentforge", *arguments], **environment(checkout))


def compare_rates(pairs: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """The median of the ratios of the pairs, its interval, and whether NEW is slower."""
    ratios = [rate_of(pair["new"]) / rate_of(pair["base"]) for pair in pairs]
    interval = turns.median_interval(ratios)
    slower = interval is not None and interval[1] < LIMIT
    return {"ratio": statistics.median(ratios), "interval": interval, "slower": slower}


def rate_of(measurements: Sequence[float]) -> float:
    """The 90 % quantile, interpolated between measurements."""
    return statistics.quantiles(measurements, n=10, method="inclusive")[-1]


# ---------------------------------------------------------------- output


def show(table: turns.Table, case: str, results: dict[str, Any]) -> None:
    is_start = case in STARTS
    sides = ([rate_of(pair[side]) for pair in results["pairs"]] for side in ("base", "new"))
    medians = [statistics.median(rates) for rates in sides]
    cells = [f"{1000 / rate if is_start else rate:,.0f}" for rate in medians]
    interval = " to ".join(f"{end:.3f}" for end in results["interval"] or ()) or "none"
    unit = "ms" if is_start else "images/s"
    table.row(f"{case}, {unit}", *cells, f"{results['ratio']:.3f}", interval)


def verdict(cases: dict[str, Any], pairs: int) -> int:
    """Print the cases in which NEW is slower. Returns the exit code."""
    if pairs < PAIRS:
        note = " Fewer than 6 give no interval and no verdict." if pairs < 6 else ""
        print(f"\nNote: fewer than {PAIRS} pairs were used: {pairs}.{note}")
    slower = [case for case, results in cases.items() if results["slower"]]
    print(f"\nInterval entirely below {LIMIT}: {', '.join(slower) or 'no case'}.")
    return 1 if slower else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", type=Path, metavar="BASE", help="the checkout to compare with")
    parser.add_argument("new", type=Path, metavar="NEW", help="the checkout to test")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"[default: {PAIRS}]")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=2, help="[default: 2]")
    parser.add_argument("--steps", type=int, help="steps of a measurement; default: per case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measured values")
    options = parser.parse_args()
    for name in ("pairs", "threads", "steps"):
        if (count := getattr(options, name)) is not None and count < 1:
            parser.error(f"--{name} {count}: at least 1")
    base, new = options.base.resolve(), options.new.resolve()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # torch loads in other processes only
    prepare(base)
    prepare(new)
    data = "MNIST" if os.environ.get("LATENTFORGE_DATA") else "digits"
    detail = f"{data}; BASE {base}, NEW {new}; medians, and ratios of rates, pairs: {options.pairs}"
    info = turns.headline("Speed of two checkouts", detail)
    table = turns.Table("case", "BASE", "NEW", "NEW / BASE", "interval, 95 %")
    cases = {}
    for case in dict.fromkeys(options.case or CASES):
        pairs = [measure_pair(case, options.steps, base, new) for _ in range(options.pairs)]
        cases[case] = {"pairs": pairs, **compare_rates(pairs)}
        show(table, case, cases[case])
    status = verdict(cases, options.pairs)
    summary = {"data": data, "base": str(base), "new": str(new), "pairs": options.pairs}
    turns.finish(options.json, info, {**summary, "limit": LIMIT, "cases": cases})
    return status


if __name__ == "__main__":
    sys.exit(main())
