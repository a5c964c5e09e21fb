"""`latentforge demo`: trains on a dataset of digits, explores the codes and writes a report."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from latentforge.cli.output import Json, forge_of, print_result, table

if TYPE_CHECKING:
    from latentforge.forge import Forge

# The classifiers need no validation split, so they train on all images outside the test split.
ALL: dict[str, Any] = {"name": "digits", "validation": 0}
# A second thread gains little for networks this small. On a busy machine, where threads wait for
# each other, it costs ten times what it gains.
TRAIN: dict[str, Any] = {"threads": 1, "batch_size": 48}
SCHEDULE: dict[str, Any] = {"name": "cosine", "warmup_epochs": 5}

# folder -> model, purpose, options
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vae": (
        "vae",
        "encodes an image as two numbers and decodes them",
        {
            "data": "digits",
            "model": {"latent_dim": 2, "activation": "tanh"},
            "train": {"epochs": 120, "lr": 4e-3, "clip_grad_norm": 50.0, "schedule": SCHEDULE},
        },
    ),
    "mlp": ("mlp-classifier", "guides the search", {"data": ALL, "train": {"epochs": 15}}),
    "cnn": (
        "cnn-classifier",
        "judges the results of the search",
        {
            "data": ALL,
            "model": {"dropout": 0.2},
            "train": {"epochs": 30, "lr": 4e-3, "schedule": SCHEDULE},
        },
    ),
}
SEARCHES = 100
# explorer -> purpose, the other runs by role, options
EXPLORERS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "guided": (
        "search for ten images of every digit",
        {"classifier": "mlp", "judge": "cnn"},
        {"n": SEARCHES},
    ),
    "latent-map": ("the codes of the images", {}, {}),
    "manifold": ("the decoded images of the whole latent plane", {}, {"spacing": "quantile"}),
    "interpolate": (
        "the decoded images between digits",
        {"classifier": "cnn"},
        {"classes": (4, 6, 0, 9, 3), "path": "linear"},
    ),
}
# run or explorer, metric, explanation; {} is the number of test images
METRICS: tuple[tuple[str, str, str], ...] = (
    ("vae", "elbo", "nats per image, over {} test images"),
    ("mlp", "accuracy", "of {} test images; this classifier guides the search"),
    ("cnn", "accuracy", "of {} test images; this classifier judges the results"),
    ("latent-map", "knn_accuracy_map", "of {} test images have the class of most neighbours"),
    (
        "guided",
        "success_share",
        f"of {SEARCHES} searches, started from other digits, reach p >= 0.9",
    ),
    (
        "guided",
        "judge_agreement",
        f"of {SEARCHES} results are the requested digit according to the judge",
    ),
)


def demo(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder.  [default: runs/demo-<n>]")
    ] = None,
    json: Json = False,
) -> None:
    """Train, explore and report on 1,797 real digits.

    Trains a VAE and two classifiers.

    Example: latentforge demo
    """
    from latentforge.runs.folder import create_run_folder

    start = time.monotonic()
    forge = forge_of(ctx)
    folder = create_run_folder(out, Path("runs"), "demo")
    stderr = sys.stderr
    with redirect_stderr(IndentedStream(stderr)):
        result = run_demo(forge, folder, lambda line: print(line, file=stderr, flush=True))
    result["seconds"] = round(time.monotonic() - start, 1)
    print_result(result, json, format_result(result))


def run_demo(forge: Forge, folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Train, explore and write the report. Returns paths, and metrics by run or explorer."""
    paths = {name: folder / name for name in RUNS}
    vae, last = paths["vae"], len(RUNS) + len(EXPLORERS) + 1
    metrics: dict[str, dict[str, float]] = {}
    pictures: dict[str, list[str]] = {}
    for step, (name, (model, purpose, options)) in enumerate(RUNS.items(), 1):
        report(f"[{step}/{last}] train {model}: {purpose}")
        options = options | {"train": TRAIN | options["train"]}
        run = forge.train(model, run=paths[name], **options)
        metrics[name] = run.metrics["test"]
    for step, (name, (purpose, others, options)) in enumerate(EXPLORERS.items(), 1 + len(RUNS)):
        report(f"[{step}/{last}] explore {name}: {purpose}")
        roles = {role: paths[other] for role, other in others.items()}
        result = forge.explore(name, vae, roles=roles, **options)
        metrics[name] = result["metrics"]
        pictures[name] = [file for file in result["files"] if file.endswith((".png", ".gif"))]
    report(f"[{last}/{last}] report: all results on one page")
    return {
        "report": forge.report(vae)["report"],
        "out": str(folder),
        "runs": {name: str(path) for name, path in paths.items()},
        "test_images": run.manifest["data"]["images"]["test"],
        "metrics": metrics,
        "pictures": pictures,
    }


def format_result(result: Mapping[str, Any]) -> list[str]:
    """Format the metrics and the paths as lines of text."""
    rows = []
    for source, name, explanation in METRICS:
        value = result["metrics"][source][name]
        number = f"{value:.1f}" if name == "elbo" else f"{100 * value:.1f} %"
        rows.append([source, name, number, explanation.format(result["test_images"])])
    return [
        "",
        *table(rows),
        "",
        f"open      {result['report']}",
        f"pictures  {Path(result['runs']['vae'], 'explore')}",
        f"curves    tensorboard --logdir {result['out']}",
        f"Finished in {result['seconds']:.0f} s.",
    ]


class IndentedStream(io.TextIOBase):
    """A stream that indents text. It is not a terminal: on a terminal, training would print a line
    per epoch."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.mid_line = stream, False

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self.stream.write(line if self.mid_line else f"      {line}")
            self.mid_line = not line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self.stream.flush()
