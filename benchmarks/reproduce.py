"""Trains and evaluates every preset on MNIST, and writes docs/reproduction.md.

    python benchmarks/reproduce.py [--only NAME ...] [--seed 0] [--threads N]
        [--data digits --epochs 1] [--runs DIR] [--page FILE]

The presets reproduce experiments from five articles on the latent spaces of MNIST. plain_builds.py
trains each recipe with a plain PyTorch loop on the same images in a second process, at the same
time. A metric is compared with that of the plain build, with a margin for the variation between
seeds. With other data or epochs nothing is compared. With --data, --epochs or --only, the script
writes a page only if --page names a file. Each process uses --threads, by default half of torch's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from systems import CLASSIFIER, SOURCES, SYSTEMS, System, verdict

from latentforge import Forge, Run

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reproduction.md"


@dataclass
class Result:
    """The metrics of one preset by key, its seconds of training and in total, and the metrics and
    seconds of training of its plain build, which `with_reference` adds. `ranges` is empty if the
    plain build has a single seed."""

    system: System
    metrics: dict[str, float]
    protocol: dict[str, str]
    train_seconds: float
    seconds: float
    command: str
    references: dict[str, float] = field(default_factory=dict)  # means over the seeds
    ranges: dict[str, list[float]] = field(default_factory=dict)  # smallest and largest value
    reference_seconds: float = math.nan

    def misses(self) -> list[str]:
        """The keys of the metrics outside their bounds, without known differences."""
        misses = []
        for metric in self.system.metrics:
            pair = self.metrics[metric.key], self.references.get(metric.key)
            if not metric.is_within_bounds(*pair) and not metric.is_known(*pair):
                misses.append(metric.key)
        return misses


def main() -> int:
    options = parse_arguments()
    systems = [s for s in SYSTEMS if not options.only or s.preset in options.only]
    if unknown := set(options.only) - {system.preset for system in SYSTEMS}:
        print(f"unknown preset {', '.join(unknown)}; available:", *(s.preset for s in SYSTEMS))
        return 2
    if any("fid" in system.extra for system in systems):  # fid needs the classifier
        systems = [s for s in SYSTEMS if s in systems or s.preset == CLASSIFIER]
    options.threads = options.threads or max(1, torch.get_num_threads() // 2)
    torch.set_num_threads(options.threads)
    as_published = options.data == "mnist" and not options.epochs
    page = options.page or (PAGE if as_published and not options.only else None)
    forge, runs = Forge(), dict[str, Run]()
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.runs or Path(scratch)
        images = save_images(forge, options.data, Path(scratch))
        with plain_process(images, options) as plain:
            assert plain.stdin is not None
            seeds = 1 if options.epochs else None  # a short run needs no comparison
            print(*(f"{s.preset}:{seeds or s.seeds}" for s in systems), sep="\n", file=plain.stdin)
            plain.stdin.close()
            done = [reproduce(forge, system, folder, runs, options) for system in systems]
            results = [with_reference(result, plain) for result in done]
    for result in results:
        show(result, as_published)
    if page:
        page.write_text(
            markdown(forge, results, time.monotonic() - start_time, options, as_published), "utf-8"
        )
        print(f"wrote {page}")
    return int(as_published and any(result.misses() for result in results))


def show(result: Result, compared: bool) -> None:
    print(result.system.preset)
    for key, value in result.metrics.items():
        print(f"  {key} {value:.5g} (reference {digits(result.references.get(key), 5)})")
    print(f"  training {result.train_seconds:.1f} s (reference {result.reference_seconds:.1f} s)")
    if compared and result.misses():
        print(f"  outside the bounds: {', '.join(result.misses())}")
    sys.stdout.flush()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--data", default="mnist", metavar="NAME")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of each process")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the runs in DIR")
    parser.add_argument("--page", type=Path, metavar="FILE")
    return parser.parse_args()


def save_images(forge: Forge, name: str, folder: Path) -> Path:
    """Write the images and labels of a dataset to a file for plain_builds.py."""
    splits, file = forge.load_data(name), folder / "images.pt"
    parts = {part: splits.split(part) for part in ("train", "test")}
    torch.save({part: (split.x, split.y) for part, split in parts.items()}, file)
    return file


@contextmanager
def plain_process(images: Path, options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """A process that reads names of presets and writes the result of each plain build."""
    command = [sys.executable, HERE / "plain_builds.py", "--data-file", images]
    command += ["--seed", options.seed, "--threads", options.threads]
    command += ["--epochs", options.epochs or 0]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*map(str, command)], **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def reproduce(
    forge: Forge,
    system: System,
    folder: Path,
    runs: dict[str, Run],
    options: argparse.Namespace,
) -> Result:
    """Train one preset and evaluate it; add its run to `runs`."""
    print(f"{system.preset}: {summary(forge, system)}", flush=True)
    start_time = time.monotonic()
    train: dict[str, Any] = {"seed": options.seed, "threads": options.threads}
    if options.epochs:
        train["epochs"] = options.epochs
    run = forge.train(
        preset=system.preset,
        data=options.data,
        train=train,
        run=folder / system.preset,
        quiet=True,
    )
    runs[system.preset] = run
    metrics, protocol = collect_metrics(forge, system, run, folder, runs, options)
    seconds = time.monotonic() - start_time
    command = f"latentforge train --preset {system.preset}"
    return Result(system, metrics, protocol, run.manifest["seconds"], seconds, command)


def with_reference(result: Result, plain: subprocess.Popen[str]) -> Result:
    """Read the next result of the process `plain`, which may still be training."""
    assert plain.stdout is not None
    line = plain.stdout.readline()
    if not line:
        preset = result.system.preset
        raise SystemExit(f"the plain build of {preset} failed: exit code {plain.wait()}")
    reference = json.loads(line)
    metrics, ranges, seconds = (reference[key] for key in ("metrics", "ranges", "seconds"))
    return replace(result, references=metrics, ranges=ranges, reference_seconds=seconds)


def collect_metrics(
    forge: Forge,
    system: System,
    run: Run,
    folder: Path,
    runs: dict[str, Run],
    options: argparse.Namespace,
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics of a run and of the additional measures, and their protocols."""
    metrics = {
        f"{split}/{name}": value
        for split in ("train", "test")
        for name, value in run.metrics[split].items()
    }
    metrics["epoch 1/loss"] = run.history()[0]["train"]["loss"]
    protocol = dict(run.manifest["protocol"])
    for measure in system.extra if options.data == "mnist" else ():
        roles = {"classifier": runs[CLASSIFIER]} if measure == "fid" else {}
        before = time.monotonic()
        evaluation = forge.evaluate(run, measures=[measure], roles=roles)
        metrics |= {f"test/{name}": value for name, value in evaluation["metrics"].items()}
        metrics[f"{measure}, seconds"] = time.monotonic() - before
        for name, text in evaluation["protocol"].items():
            protocol[name] = text.replace(f"{folder}/", "")  # runs may be temporary
        if measure == "nll":
            metrics["nll, peak MB of the process"] = peak_memory()
            metrics["-test/elbo - test/nll"] = -metrics["test/elbo"] - metrics["test/nll"]
    return metrics, protocol


def summary(forge: Forge, system: System) -> str:
    text: str = forge.registry.get("presets", system.preset).spec.summary
    return text


def peak_memory() -> float:
    """The peak memory of this process so far, in MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def markdown(
    forge: Forge,
    results: Sequence[Result],
    seconds: float,
    options: argparse.Namespace,
    compared: bool,
) -> str:
    """The page: metrics of SYSTEMS, all metrics of each preset, their protocols, the sources."""
    lines = [
        "# Reproduction",
        "",
        "`make reproduce` writes this page. Each preset reproduces an experiment from one of five",
        "articles on the latent spaces of MNIST ([sources](#sources)). The script trains every",
        "preset on all 60,000 training images and evaluates it on the 10,000 test images. No",
        "result is selected by its score. Losses are in nats per image; reconstruction losses are",
        "summed over pixels.",
        "",
        f"Seed {options.seed}, data {options.data}, {processor()}, two processes side by side with "
        f"{options.threads} thread{'s' * (options.threads > 1)} each, torch {torch.__version__}, "
        f"Python {platform.python_version()}; {seconds / 60:.0f} minutes in total.",
        "",
        '"Published" is the value in the article. "Reference" is the result of a plain PyTorch',
        "implementation of the same recipe ([plain_builds.py](../benchmarks/plain_builds.py)),",
        "which uses nothing of LatentForge. It is measured in the same call: while one process",
        "trains the presets, another one trains the plain implementations on the same images, with",
        "their own initial weights, batches and noise. A reference with a range is the mean over",
        "several seeds. The training times are those of one seed, and of",
        "two trainings that share the machine. Two-sided bounds are the reference plus or minus a",
        "fixed allowance for the variation between seeds; one-sided bounds are fixed. A result of",
        "LatentForge within the bounds is marked ok. A small deviation with a known reason is",
        'marked "differs", with the reason.',
        "",
        "| preset | metric | published | reference | bounds | LatentForge | verdict | "
        "training: reference | training: LatentForge |",
        "|" + "---|" * 9,
    ]
    for result in results:
        times = f"{result.reference_seconds:.0f} s", f"{result.train_seconds:.0f} s"
        for metric in result.system.metrics:
            if metric.key not in result.metrics:  # its measure did not run
                continue
            value, reference = result.metrics[metric.key], result.references.get(metric.key)
            judged = verdict(metric, value, reference, compared=compared)
            cells = [f"`{result.system.preset}`", metric.key, metric.published or "-"]
            cells += [with_range(result, metric.key), metric.bounds(reference)]
            cells += [digits(value, 5), judged]
            lines.append(f"| {' | '.join([*cells, *times])} |")
    for result in results:
        system = result.system
        lines += ["", f"## {system.preset}", "", f"{summary(forge, system)}. {system.note}"]
        lines += ["", f"    {result.command}", ""]
        lines += ["| metric | reference | LatentForge |", "|---|---|---|"]
        lines += [
            f"| {key} | {digits(result.references.get(key), 6)} | {digits(value, 6)} |"
            for key, value in result.metrics.items()
        ]
        training = f"{result.reference_seconds:.1f} s (reference), {result.train_seconds:.1f} s"
        lines += ["", f"Training: {training} (LatentForge, {result.seconds:.1f} s in total)."]
    names_by_protocol: dict[str, dict[str, None]] = {}  # metrics of each protocol, in order
    for result in results:
        for name, text in result.protocol.items():
            names_by_protocol.setdefault(text.replace("|", r"\|"), {})[name] = None
    lines += ["", "## Metric definitions", "", "| metrics | protocol |", "|---|---|"]
    lines += [f"| {', '.join(names)} | {text} |" for text, names in names_by_protocol.items()]
    lines += ["", "## Sources", "", "| presets | article |", "|---|---|"]
    lines += [f"| `{presets}` | {article} |" for presets, article in SOURCES.items()]
    return "\n".join(lines) + "\n"


def with_range(result: Result, key: str) -> str:
    text = digits(result.references.get(key), 5)
    if key in result.ranges:
        low, high = result.ranges[key]
        text += f" ({digits(low, 5)} to {digits(high, 5)}, {result.system.seeds} seeds)"
    return text


def digits(value: float | None, count: int) -> str:
    return "-" if value is None else f"{value:.{count}g}"


def processor() -> str:
    """The name of the processor, or its architecture if the system does not report a name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = next(line.split(":", 1)[1] for line in text.splitlines() if "model name" in line)
        return f"{name.strip()} ({os.cpu_count()} cores)"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
