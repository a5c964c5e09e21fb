"""Runs every explorer on MNIST and writes docs/gallery.md and its pictures.

    python benchmarks/gallery.py [--runs DIR] [--docs DIR]

--runs is a folder of trained runs with the names in RUNS. The script first trains the missing runs.
The pictures of the report need Chromium. Without it they are not changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gallery_looks import METRICS, OF, REPORT, RUNS, SECTIONS, SHOTS, Look, Metric
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[1]
BUSY = 0.2  # with a larger load of other programs, in cores, times get no verdict


@dataclass
class Results:
    """Results of the commands, by the name of their `Look`."""

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    other_load: dict[str, float] = field(default_factory=dict)  # cores that other programs used
    seconds: float = 0.0

    def value_of(self, metric: Metric) -> float:
        return self.metrics[metric.look][metric.key]

    def verdict(self, metric: Metric) -> str:
        """The verdict, empty without bounds. Other load turns a missed time into no verdict."""
        value = self.value_of(metric)
        if metric.bounds_text() == "-" or metric.low <= value <= metric.high:
            return "" if metric.bounds_text() == "-" else "ok"
        if metric.name == "seconds" and self.other_load[metric.look] > BUSY:
            return f"no verdict: other programs used {self.other_load[metric.look]:.1f} cores"
        return "**differs**"


def main() -> int:
    options = parse_arguments()
    start_time, results = time.monotonic(), Results()
    runs, docs = options.runs.resolve(), options.docs.resolve()
    for name, preset in RUNS.items():
        if not (runs / name / "run.json").exists():
            print(f"training {name}", flush=True)
            latentforge(
                f"latentforge train --preset {preset} --run {shlex.quote(str(runs / name))}"
            )
    pictures = docs / "gallery"
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in RUNS:  # copies: pictures contain the folder name, a report all findings
            ignored = shutil.ignore_patterns("explore", "report*.html")
            shutil.copytree(runs / name, Path(scratch, "runs", name), ignore=ignored)
        for look in looks():
            print(look.name, flush=True)
            output = explore(look, Path(scratch), results)
            for file in look.pictures:
                copy_picture(Path(scratch, output["out"], file), pictures / picture_of(look, file))
        latentforge(REPORT, Path(scratch))
        photograph(Path(scratch, "runs/ae2/report.html"), pictures)
    results.seconds = time.monotonic() - start_time
    (docs / "gallery.md").write_text(markdown(results), "utf-8")
    for metric in METRICS:
        result = f"{OF[metric.look]}: {metric.name} {results.value_of(metric):{metric.form}}"
        print(f"{result} (target: {metric.bounds_text()}) {results.verdict(metric)}")
    return int(any("differs" in results.verdict(metric) for metric in METRICS))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gallery", metavar="DIR")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR")
    return parser.parse_args()


def looks() -> Iterator[Look]:
    for section in SECTIONS:
        yield from section.looks


def picture_of(look: Look, file: str) -> str:
    return f"{look.name}-{file}"


# ---------------------------------------------------------------- commands


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
    metrics = {**output["metrics"], "command_seconds": seconds}
    if "success_share" in metrics:
        metrics["search_seconds"] = 1000 / metrics["requests_per_second"]
    if "hidden_mse_per_pixel" in metrics:
        metrics["over_class_mean"] = (
            metrics["hidden_mse_per_pixel"] / metrics["hidden_mse_class_mean"]
        )
        metrics["over_nearest"] = metrics["hidden_mse_per_pixel"] / metrics["hidden_mse_nearest"]
    if "knn_accuracy_map" in metrics:
        metrics["knn_accuracy_lost"] = metrics["knn_accuracy_codes"] - metrics["knn_accuracy_map"]
    results.metrics[look.name] = metrics
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


# ---------------------------------------------------------------- pictures


def copy_picture(source: Path, target: Path) -> None:
    """Copy an animation unchanged. Reduce a picture to grey if it is grey, else to 256 colours."""
    if source.suffix == ".gif":
        shutil.copyfile(source, target)
        return
    image = Image.open(source).convert("RGB")
    red, green, blue = image.split()
    same = all(ImageChops.difference(red, c).getextrema()[1] == 0 for c in (green, blue))
    small = image.convert("L") if same else quantize(image)
    small.save(target, "PNG", optimize=True)


def quantize(image: Image.Image) -> Image.Image:
    """Keep the 128 most frequent colours, which include the colours of the classes. Replace each
    other colour by the nearest one of these and of a median cut. A median cut alone could give one
    class the colour of another."""
    pixels = np.asarray(image).reshape(-1, 3)
    colours, which, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    common = colours[counts.argsort()[::-1][:128]]
    cut = image.quantize(128).getpalette() or []
    palette = np.concatenate([common, np.reshape(cut, (-1, 3))])[:256].astype(np.uint8)
    distance = ((colours[:, None].astype(int) - palette.astype(int)) ** 2).sum(2)
    nearest = distance.argmin(1).astype(np.uint8)[which.ravel()]
    small = Image.fromarray(nearest.reshape(image.height, image.width), "P")
    small.putpalette(palette.tobytes())
    return small


def photograph(page: Path, folder: Path) -> None:
    """Take screenshots: on a desktop with the pointer over the map, and on a phone in dark mode."""
    path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        print("no Chromium: the pictures of the report are not changed")
        return
    desktop = {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"}
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    phone |= {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for file, options in zip(SHOTS, (desktop, phone), strict=True):
            tab = browser.new_context(**options).new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html.lf-done", state="attached")
            tab.get_by_text("Latent map of").first.evaluate("it => it.scrollIntoView()")
            chart = tab.locator("#explorer-1 .nsewdrag").first
            if file == "report-desktop.png" and (box := chart.bounding_box()):
                tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
            tab.wait_for_timeout(500)
            tab.screenshot(path=folder / file)  # small without copy_picture
        browser.close()


# ---------------------------------------------------------------- the page


def markdown(results: Results) -> str:
    """The page: metrics first, then a section for each explorer."""
    import torch

    lines = [
        "# Gallery",
        "",
        "`make gallery` writes this page. It trains the runs below on MNIST and runs every",
        "explorer on them. All values come from the commands on this page. Unless stated",
        "otherwise, explorers use the 10,000 test images and the posterior mean. Each `explore`",
        "command also writes its data, and some also write an HTML page or an animation.",
        "[components.md](components.md#explorers) describes the options.",
        "",
        "```bash",
        *(f"latentforge train --preset {preset} --run runs/{run}" for run, preset in RUNS.items()),
        "```",
        "",
        "## Metrics",
        "",
        f"Measured on {os.cpu_count()} CPU cores (threads: {torch.get_num_threads()}) with torch "
        f"{torch.__version__}, seed 0 and default settings. "
        f"Generating the whole page takes {results.seconds / 60:.0f} minutes.",
        "",
        "- Guided search: 1,000 requests, 100 for each class. Each request starts at the code of a",
        "  training image of another class, except in the original search. `mlp` guides the",
        "  search, and `cnn` judges all results. Times cover only the search.",
        "- Inpainting: the lower halves of 100 test images are hidden. The error is the squared",
        "  error per pixel, for values in [0, 1].",
        "- t-SNE: the k-NN accuracy is the fraction of images whose class is the majority class of",
        "  their 10 nearest neighbours. The accuracy lost is the difference of the two accuracies",
        "  before rounding, in percentage points. Times cover the whole command.",
        "",
        "| search or map | metric | target | result | verdict |",
        "|" + "---|" * 5,
    ]
    for metric in METRICS:
        value = results.value_of(metric)
        cells = [OF[metric.look], metric.name, metric.bounds_text(), format(value, metric.form)]
        lines.append(f"| {' | '.join([*cells, results.verdict(metric)])} |")
    for section in SECTIONS:
        lines += ["", f"## {section.title}"]
        for look in section.looks:
            lines += look_lines(look, results)
    lines += ["", "## report", "", "```bash", REPORT, "```", ""]
    lines += [f"![{alt}](gallery/{file})" for file, alt in SHOTS.items()]
    lines += [
        "",
        "The report is one HTML file that needs no network access. It contains the metrics with",
        "their protocols, the curves, the findings of all explorers that were run, the settings",
        "and the commands. A map shows the image of the point under the pointer and, for a",
        "two-dimensional latent space, the decoded image at that position.",
    ]
    return "\n".join(lines) + "\n"


def look_lines(look: Look, results: Results) -> list[str]:
    metrics = {key.replace(".", "_"): value for key, value in results.metrics[look.name].items()}
    lines = ["", look.text.format(**metrics), "", "```bash", look.command, "```", ""]
    for file, alt in look.pictures.items():
        lines += [f"![{alt}](gallery/{picture_of(look, file)})", ""]
    if look.name == "guided-search":
        return lines + compare_searches(results)
    return lines[:-1]


def compare_searches(results: Results) -> list[str]:
    """A table of the metrics of the default search and of the original search."""
    searches = [results.metrics[name] for name in ("guided-ae2", "guided-search")]
    rows = {
        "success_share": (".1%", "fraction of requests that are satisfied, with p >= 0.9"),
        "success_at_start": (
            ".1%",
            "fraction satisfied at the first starting point, before any gradient step",
        ),
        "success_single_start": (".1%", "fraction satisfied from the first starting point"),
        "judge_agreement": (
            ".1%",
            "fraction of all requests whose result is classified as the requested class by `cnn`, "
            "which did not guide the search",
        ),
        "median_steps": (
            ".0f",
            "median number of gradient steps of a satisfied request, summed over its starting "
            "points",
        ),
        "log_prior": (
            ".1f",
            "mean log density of the results under a mixture fitted to the training codes, in nats",
        ),
        "search_seconds": (".1f", "seconds of the search for all 1,000 requests"),
    }
    lines = ["| metric | definition | default | original search |", "|---|---|---|---|"]
    for key, (form, definition) in rows.items():
        values = " | ".join(format(metrics[key], form) for metrics in searches)
        lines.append(f"| `{key}` | {definition} | {values} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
