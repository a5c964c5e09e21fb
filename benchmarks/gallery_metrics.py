"""The metrics of the gallery: those computed from the outputs of the commands, the table of
metrics with their target bounds and baselines, and the results."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gallery_content import Look, Metric

BUSY = 0.2  # with a larger load of other programs, in cores, times get no verdict


@dataclass
class Results:
    """Results of the commands, by the name of their `Look`."""

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    other_load: dict[str, float] = field(default_factory=dict)  # cores that other programs used
    tables: dict[str, list[str]] = field(default_factory=dict)  # by the name of their `History`
    seconds: float = 0.0

    def value_of(self, metric: Metric) -> float:
        return self.metrics[metric.look][metric.key]

    def verdict(self, metric: Metric) -> str:
        """The verdict, empty without bounds. Other load turns a missed time into no verdict."""
        verdict = metric.verdict(self.value_of(metric))
        if "missed" in verdict and metric.name == "seconds":
            load = self.other_load[metric.look]
            return f"no verdict: other programs used {load:.1f} cores" if load > BUSY else verdict
        return verdict

    def baselines(self, metric: Metric) -> str:
        return metric.baselines.format(**self.metrics[metric.look])


def derive(look: Look, output: dict[str, Any], folder: Path, seconds: float) -> dict[str, float]:
    """The metrics of a command that took `seconds` in `folder`, and metrics computed from them,
    from its arrays, and from the metrics of the run."""
    metrics = {**run_metrics(look, folder), **output["metrics"], "command_seconds": seconds}
    if "success_share" in metrics:
        metrics["search_seconds"] = requests_of(look) / metrics["requests_per_second"]
    if "log_prior_training" in metrics:
        metrics["log_prior_difference"] = metrics["log_prior"] - metrics["log_prior_training"]
    if "hidden_mse_per_pixel" in metrics:
        for name in ("class_mean", "nearest", "neighbours"):
            baseline = metrics[f"hidden_mse_{name}"]
            metrics[f"over_{name}"] = metrics["hidden_mse_per_pixel"] / baseline
    if "knn_accuracy_map" in metrics:
        metrics["knn_accuracy_lost"] = metrics["knn_accuracy_codes"] - metrics["knn_accuracy_map"]
        metrics |= map_ranges(folder / output["out"] / "map.npz")
    if film := re.search(r"film=(\d+)", look.command):
        metrics |= film_metrics(folder / output["out"] / "found.npz", int(film[1]))
    return metrics


def requests_of(look: Look) -> int:
    match = re.search(r" n=(\d+)", look.command)
    return int(match[1]) if match else 10


def run_metrics(look: Look, folder: Path) -> dict[str, float]:
    """The metrics of the run after training, such as run.test.kl."""
    run = look.command.split()[3]
    splits = json.loads((folder / run / "run.json").read_text("utf-8"))["metrics"]
    return {
        f"run.{split}.{name}": value
        for split, values in splits.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def map_ranges(file: Path) -> dict[str, float]:
    """The lowest and the highest value of the points on each axis of a map."""
    points = np.load(file)["points"]  # (N, 2)
    ends = {"low": points.min(0), "high": points.max(0)}
    return {f"axis_{i}_{name}": float(end[i]) for i in (0, 1) for name, end in ends.items()}


def film_metrics(file: Path, request: int) -> dict[str, float]:
    """The steps after which the request of the film was satisfied, and the number of its start."""
    found = np.load(file)
    return {
        "film_steps": float(found["steps"][request]),
        "film_start": float(found["first_round"][request]) + 1,
    }


REACHED = "requests that reach p >= 0.9"
GROUPS = "groups of similar results among 1,000"
RETRIEVED = (
    "before the first step: {success_at_start:.1%}; from the first starting point: "
    "{success_single_start:.1%}; best of 16 training codes: {best_of_16:.0%}, of 256: "
    "{best_of_256:.0%}"
)
CLASSES = "single classes: {deviation_ratio_min:.2f} to {deviation_ratio_max:.2f}"
DENSITIES = "results: {log_prior:.1f}; training codes: {log_prior_training:.1f}"
SPREAD = "spread of the codes relative to that of training images"
CLOSENESS = "log density minus that of training codes, nats"


def search_metrics(
    look: str,
    reached: float,
    judged: float = -math.inf,
    seconds: float = math.inf,
    nats: float = math.inf,
) -> list[Metric]:
    """The metrics of a search from training codes: at least the fraction `reached` satisfied and
    `judged` confirmed, in at most `seconds`, with a log density within `nats` of training codes."""
    return [
        Metric(look, "success_share", REACHED, low=reached, baselines=RETRIEVED),
        Metric(look, "judge_agreement", "judge agreement", low=judged),
        Metric(look, "result_groups", GROUPS, ".0f"),
        Metric(look, "deviation_ratio", SPREAD, ".2f", baselines=CLASSES),
        Metric(look, "log_prior_difference", CLOSENESS, ".1f", -nats, nats, DENSITIES),
        Metric(look, "search_seconds", "seconds", ".1f", high=seconds),
    ]


def error_over(name: str, text: str) -> Metric:
    """The error of inpainting relative to that of a baseline."""
    baselines = f"error {{hidden_mse_{name}:.4f}}"
    title = f"error relative to the {text}"
    return Metric("inpaint", f"over_{name}", title, ".2f", high=1, baselines=baselines)


PUBLISHED = "before the first step: {success_at_start:.1%}"
CODES = "in the latent space: {knn_accuracy_codes:.1%}"
METRICS = (
    *search_metrics("guided-digits", 0.99, 0.97, seconds=20),
    *search_metrics("guided-vae16", 0.995, 0.97, seconds=5),
    *search_metrics("guided-one-start", 0.99, 0.97, nats=3),
    Metric("guided-search", "success_share", REACHED, low=0.12, high=0.29, baselines=PUBLISHED),
    Metric("guided-search", "judge_agreement", "judge agreement"),
    Metric("guided-search-adam", "success_share", REACHED, baselines=PUBLISHED),
    Metric("guided-search-adam", "judge_agreement", "judge agreement"),
    Metric("inpaint", "hidden_mse_per_pixel", "error on the hidden half", ".4f"),
    error_over("class_mean", "mean of the true class"),
    error_over("nearest", "nearest image"),
    error_over("neighbours", "mean of the 20 nearest"),
    Metric("map-vae16", "knn_accuracy_map", "k-NN accuracy in the map", baselines=CODES),
    Metric("map-vae16", "knn_accuracy_lost", "accuracy lost in the map", high=0.02),
    Metric("map-vae16", "command_seconds", "seconds", ".1f", high=40),
    Metric("map-conv-vae", "knn_accuracy_map", "k-NN accuracy in the map", baselines=CODES),
    Metric("map-conv-vae", "knn_accuracy_lost", "accuracy lost in the map", high=0.02),
)
OF = {
    "guided-digits": "guided, AE z=2",
    "guided-vae16": "guided, VAE z=16",
    "guided-one-start": "guided, VAE z=16, one start",
    "guided-search": "published search, AE z=2, SGD",
    "guided-search-adam": "published search, AE z=2, Adam",
    "inpaint": "inpainting, VAE z=16",
    "map-vae16": "t-SNE of 10,000 codes, z=16",
    "map-conv-vae": "t-SNE of 10,000 codes, conv VAE z=20",
}
