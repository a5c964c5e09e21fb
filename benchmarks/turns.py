"""Shared code of the benchmarks: sides in turns, medians and ratios, tables, JSON.

This module imports no torch. A script that measures the peak memory of processes must be small,
because the peak of a child starts at that of the process that forked it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import comb
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def make_parser(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument(
        "--repeats", type=int, default=repeats, metavar="N", help=f"turns  [default: {repeats}]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measured values")
    return parser


def take_turns(
    sides: Mapping[str, Callable[[], T]], repeats: int, *, swap: bool = False
) -> dict[str, list[T]]:
    """Results of each side, one per turn. The sides alternate because the speed of a shared machine
    changes over time. With `swap` every second turn runs the sides in reverse order, so that no
    side gains from its position."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in reversed(sides) if swap and turn % 2 else sides:
            results[name].append(sides[name]())
    return results


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the turns of the ratio of two sides."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the turns of the difference of two sides."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The exact interval of a median at `level`, or None for too few values: below 6 at 0.95.

    The k-th smallest and the k-th largest of n values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (David and Nagaraja, Order Statistics, section 7.1). The interval
    has the largest k whose probability is at least `level`."""
    n, ordered = len(values), sorted(values)
    outside = [2 * sum(comb(n, i) for i in range(k)) / 2**n for k in range(n // 2 + 1)]
    k = max(k for k, probability in enumerate(outside) if probability <= 1 - level)
    return (ordered[k - 1], ordered[n - k]) if k else None


def steady_rate(run: Any) -> float:
    """Images per second of the epochs of a run without the first, which is a warm-up."""
    return statistics.harmonic_mean([line["images_per_second"] for line in run.history()[1:]])


@dataclass(frozen=True)
class ProcessResult:
    """Wall time, peak memory and output of a finished process."""

    seconds: float
    peak_mb: float
    out: str


def run(command: Sequence[str], **environment: str) -> ProcessResult:
    """Run a command. If it fails, exit with its output."""
    start_time = time.perf_counter()
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert child.stdout is not None
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)  # subprocess does not report the peak of one child
    seconds = time.perf_counter() - start_time
    child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit {child.returncode}\n{out}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return ProcessResult(seconds, usage.ru_maxrss * unit / 2**20, out)


# ---------------------------------------------------------------- output


def machine() -> dict[str, Any]:
    """The machine and versions of a measurement. A subprocess reads those of torch if this process
    has not imported it."""
    if "torch" in sys.modules:
        import torch

        version, threads = str(torch.__version__), torch.get_num_threads()
    else:
        code = "import torch; print(torch.__version__, torch.get_num_threads())"
        version, count = run([sys.executable, "-c", code]).out.split()
        threads = int(count)
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": version,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The name of the processor, or its architecture if the system does not report a name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = next(line.split(":", 1)[1] for line in text.splitlines() if "model name" in line)
        return name.strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def headline(title: str, detail: str) -> dict[str, Any]:
    """Print the title, the machine and the detail. Returns the machine."""
    info = machine()
    print(f"## {title}\n")
    print(
        f"{info['date']}, {info['processor']} ({info['cores']} cores), {info['threads']} threads, "
        f"torch {info['torch']}"
    )
    print(f"{detail}\n", flush=True)
    return info


class Table:
    """Prints each row immediately, as Markdown that is aligned for a terminal."""

    def __init__(self, *columns: str, first: int = 28) -> None:
        self.widths = [first, *(max(10, len(column)) for column in columns[1:])]
        self.row(*columns)
        rules = ["-" * first, *("-" * (width - 1) + ":" for width in self.widths[1:])]
        print(f"| {' | '.join(rules)} |")

    def row(self, *cells: str) -> None:
        first, *others = zip(cells, self.widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print(f"| {' | '.join(aligned)} |", flush=True)


def finish(file: Path | None, info: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write the machine and the results to `file` if one is given."""
    print()
    if file:
        file.write_text(json.dumps({"machine": info, **results}, indent=2) + "\n", "utf-8")
