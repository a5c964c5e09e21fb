"""The parts of the gallery page: looks, tables over epochs, comparisons, sections and metrics."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RUNS = {  # the name of a run: the options of `latentforge train`
    "ae2": "--preset latent-differentiation-ae",
    "mlp": "--preset latent-differentiation-classifier",
    "cnn": "--preset diffusion-series-cnn --set train.evaluate_every=10",
    "vae2-beta0": "--preset grad-vae-beta0",
    "vae2": "--preset grad-vae-beta1",
    "vae2-beta4": "--preset grad-vae-beta4",
    "ae2-tanh": "--preset grad-ae --set model.latent_activation=tanh",
    "ae16": "--preset vanilla-ae --set train.evaluate_every=1",
    "vae16": "--preset vanilla-vae",
    "vae10-beta1": "--preset grad-vae-z10-beta1",
    "vae10-beta4": "--preset grad-vae-z10-beta4",
    "conv-vae": "--preset tsne-conv-vae",
}


@dataclass(frozen=True)
class Look:
    """A command, its images with their alternative texts, and a description.

    The description contains the command's metrics in braces, with dots written as underscores. It
    may also contain the metrics that gallery_metrics.py adds to them."""

    name: str
    command: str
    pictures: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class History:
    """A table of metrics of a run at every `every`-th epoch, and a chart.

    `columns` maps titles to metrics such as `test.loss`; `charted` are the titles in the chart, by
    default all. `published` are values of an article at the same epochs, for a further column."""

    name: str
    run: str
    every: int
    columns: Mapping[str, str]
    y_title: str
    alt: str
    text: str
    form: str = ".4f"
    published: Sequence[float] = ()
    charted: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """A table with a row for each metric and a column for each look. `looks` maps the names of
    looks to titles, `rows` maps metrics to their formats and definitions."""

    looks: Mapping[str, str]
    rows: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Section:
    title: str
    items: Sequence[Look | History | Comparison]


@dataclass(frozen=True)
class Metric:
    """A metric of a look and its target bounds. `baselines` is a text with metrics in braces, for
    comparison."""

    look: str
    key: str
    name: str
    form: str = ".1%"
    low: float = -math.inf
    high: float = math.inf
    baselines: str = ""

    def bounds_text(self) -> str:
        low, high = (format(bound, self.bound_form()) for bound in (self.low, self.high))
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{low} to {high}"
        if math.isfinite(self.low):
            return f"at least {low}"
        return f"at most {high}" if math.isfinite(self.high) else "-"

    def bound_form(self) -> str:
        return ".3g" if "%" not in self.form else ".1%" if self.low * 100 % 1 else ".0%"

    def verdict(self, value: float) -> str:
        """The verdict on a value, empty without bounds."""
        if self.bounds_text() == "-":
            return ""
        return "ok" if self.low <= value <= self.high else "**missed**"


def train_command(run: str, folder: str) -> str:
    return f"latentforge train {RUNS[run]} --run {shlex.quote(f'{folder}/{run}')}"
