"""Runs every explorer on MNIST and writes docs/gallery.md and its pictures.

    python benchmarks/gallery.py [--runs DIR] [--docs DIR] [--only LOOK]

--runs is a folder of trained runs with the names in RUNS. The script first trains the missing runs.
The pictures of the report need Chromium. Without it they are not changed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gallery_content import RUNS, History, Look, train_command
from gallery_looks import REPORT, SECTIONS
from gallery_metrics import METRICS, OF, Results, derive
from gallery_page import describe, markdown
from gallery_pictures import copy_picture, photograph
from gallery_training import draw_chart, format_table, read_values

ROOT = Path(__file__).resolve().parents[1]
ITEMS = {
    item.name: item
    for section in SECTIONS
    for item in section.items
    if isinstance(item, Look | History)
}


def main() -> int:
    options = parse_arguments()
    start_time, results = time.monotonic(), Results()
    runs, docs = options.runs.resolve(), options.docs.resolve()
    only = {*options.only, *(["map-ae2"] if "report" in options.only else [])}  # the map it shows
    names = [name for name in (*ITEMS, "report") if name in only or not only]
    needed = [run for run in RUNS if any(run in runs_of(name) for name in names)]
    for run in needed:
        if not (runs / run / "run.json").exists():
            print(f"training {run}", flush=True)
            latentforge(train_command(run, str(runs)))
    for item in (ITEMS.get(name) for name in names):
        if isinstance(item, History):
            read_values(item, runs)  # ends the script before its long part if a metric is missing
    pictures = docs / "gallery"
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for run in needed:  # copies: pictures contain the folder name, a report all findings
            ignored = shutil.ignore_patterns("explore", "report*.html")
            shutil.copytree(runs / run, Path(scratch, "runs", run), ignore=ignored)
        for name in names:
            print(name, flush=True)
            show(name, Path(scratch), pictures, results)
    if options.only:
        print_results(results)
        return 0
    results.seconds = time.monotonic() - start_time
    page = markdown(results)
    (docs / "gallery.md").write_text(page, "utf-8")
    for file in (*pictures.glob("*.png"), *pictures.glob("*.gif")):
        if f"](gallery/{file.name})" not in page:  # of an earlier page
            file.unlink()
    for metric in METRICS:
        result = f"{OF[metric.look]}: {metric.name} {results.value_of(metric):{metric.form}}"
        print(f"{result} (target: {metric.bounds_text()}) {results.verdict(metric)}")
    return int(any("**" in results.verdict(metric) for metric in METRICS))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gallery", metavar="DIR")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[*ITEMS, "report"],
        metavar="LOOK",
        help="write the pictures of this look and print its text, but write no page; repeatable: "
        + ", ".join([*ITEMS, "report"]),
    )
    return parser.parse_args()


def runs_of(name: str) -> set[str]:
    """The names of the runs that an item of the page, or the report, uses."""
    item = ITEMS.get(name)
    if isinstance(item, History):
        return {item.run}
    return set(re.findall(r"\bruns/([\w-]+)", item.command if item else REPORT))


def show(name: str, folder: Path, pictures: Path, results: Results) -> None:
    """Write the pictures of an item, or of the report, and store its results."""
    match ITEMS.get(name):
        case Look() as look:
            output = explore(look, folder, results)
            for file in look.pictures:
                copy_picture(folder / output["out"] / file, pictures / f"{look.name}-{file}")
        case History() as history:
            values = read_values(history, folder / "runs")
            results.tables[history.name] = format_table(history, values)
            chart = folder / f"{history.name}.png"
            chart.write_bytes(draw_chart(history, values))
            copy_picture(chart, pictures / chart.name)
        case None:
            latentforge(REPORT, folder)
            photograph(folder / REPORT.split()[-1] / "report.html", pictures)


def print_results(results: Results) -> None:
    """Print the text and all metrics of each look, and the tables over epochs."""
    for name, metrics in results.metrics.items():
        look = ITEMS[name]
        assert isinstance(look, Look)
        print(f"\n{describe(look, results)}\n")
        print("\n".join(f"{key:28} {value:g}" for key, value in metrics.items()))
    for table in results.tables.values():
        print("\n" + "\n".join(table))


def latentforge(command: str, folder: Path | None = None) -> Any:
    """Run a command in its own process, as a user does. Returns its JSON output."""
    arguments = [sys.executable, "-m", *shlex.split(command), "--json"]
    quiet = [] if arguments[3] == "report" else ["--quiet"]
    process = subprocess.run([*arguments, *quiet], cwd=folder, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        sys.exit(f"{command}: exit {process.returncode}")
    return json.loads(process.stdout)


def explore(look: Look, folder: Path, results: Results) -> dict[str, Any]:
    """Run an explorer. Store its metrics and the metrics that are computed from them."""
    before, own_before, busy_before = time.monotonic(), own_seconds(), busy_seconds()
    output: dict[str, Any] = latentforge(look.command, folder)
    seconds = time.monotonic() - before
    other_seconds = (busy_seconds() - busy_before) - (own_seconds() - own_before)
    results.other_load[look.name] = other_seconds / seconds
    results.metrics[look.name] = derive(look, output, folder, seconds)
    return output


def own_seconds() -> float:
    """The CPU time of this process and its children."""
    return sum(os.times()[:4])


def busy_seconds() -> float:
    """The CPU time of all processes since the boot, or of this process and its children without
    /proc."""
    try:
        user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    except OSError:
        return own_seconds()
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
