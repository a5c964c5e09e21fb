"""What the benchmarks share: sides in turns, medians and ratios, one look of tables, JSON.

Imports no torch: a script that measures the memory of processes must be small itself, because a
child's peak begins with that of the process that it was forked from.
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
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument(
        "--repeats", type=int, default=repeats, metavar="N", help=f"turns  [default: {repeats}]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    return parser


def take_turns(
    sides: Mapping[str, Callable[[], T]], repeats: int, *, swap: bool = False
) -> dict[str, list[T]]:
    """What each side gave in each turn. The sides alternate, for a shared machine is never equally
    fast for long. With `swap` every second turn takes the sides in reverse order, so that going
    first favours none."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in reversed(sides) if swap and turn % 2 else sides:
            results[name].append(sides[name]())
    return results


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of neighbouring turns."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the differences of neighbouring turns."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The exact interval of a median at `level`; None for too few values: below 6 at 0.95.

    The k-th smallest and the k-th largest of n values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (David and Nagaraja, Order Statistics, section 7.1). The interval
    has the largest k whose probability is at least `level`."""
    n, ordered = len(values), sorted(values)
    outside = [2 * sum(comb(n, i) for i in range(k)) / 2**n for k in range(n // 2 + 1)]
    k = max(k for k, probability in enumerate(outside) if probability <= 1 - level)
    return (ordered[k - 1], ordered[n - k]) if k else None


def steady_rate(run: Any) -> float:
    """Images a second of a run's epochs after the first, which warms up."""
    images = run.manifest["data"]["images"]["train"]
    epochs = run.history()
    seconds = [(i + 1) * images / epoch["images_per_second"] for i, epoch in enumerate(epochs)]
    return (len(epochs) - 1) * images / (seconds[-1] - seconds[0])


@dataclass(frozen=True)
class ProcessResult:
    """What a process took, from its start to its end."""

    seconds: float
    peak_mb: float
    out: str


def run(command: Sequence[str], **environment: str) -> ProcessResult:
    """Run a command to its end; exits with what it printed where it fails."""
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
    _, status, usage = os.wait4(child.pid, 0)  # subprocess itself tells no child's own peak
    seconds = time.perf_counter() - start_time
    child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit {child.returncode}\n{out}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return ProcessResult(seconds, usage.ru_maxrss * unit / 2**20, out)


# ---------------------------------------------------------------- what is told


def machine() -> dict[str, Any]:
    """What the figures were measured on; asks another process where torch is not imported."""
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
    """The processor's name where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = next(line.split(":", 1)[1] for line in text.splitlines() if "model name" in line)
        return name.strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def headline(title: str, detail: str) -> dict[str, Any]:
    """Print what is measured and on what; returns the latter."""
    info = machine()
    print(f"## {title}\n")
    print(
        f"{info['date']}, {info['processor']} ({info['cores']} cores), {info['threads']} threads, "
        f"torch {info['torch']}"
    )
    print(f"{detail}\n", flush=True)
    return info


class Table:
    """Rows that are printed as they come, in Markdown that is also aligned for a terminal."""

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
    """Write what was measured, and on what, where a file is wanted."""
    print()
    if file:
        file.write_text(json.dumps({"machine": info, **results}, indent=2) + "\n", "utf-8")
