"""The section on training: tables and charts of the metrics that a run stored after each epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gallery_content import RUNS, History, Section

CLASSIFIER = History(
    "cnn-losses",
    "cnn",
    10,
    {"training loss": "train.loss", "test loss": "test.loss", "test accuracy": "test.accuracy"},
    "nats per image",
    "Two curves over 100 epochs: the training loss and, below it, the test loss",
    "**A convolutional classifier**: losses in nats per image after every tenth of 100 epochs. The "
    "training loss is the mean over the steps of the epoch, with dropout and while the weights "
    "change; the test loss is computed after the epoch, without dropout. It can therefore be "
    "smaller.",
    charted=("training loss", "test loss"),
)

AUTOENCODER = History(
    "ae16-losses",
    "ae16",
    1,
    {"test loss": "test.bce_per_pixel"},
    "nats per pixel",
    "Two falling curves over ten epochs, the published one above",
    "**An autoencoder with 16 latent dimensions**: the test loss after each of ten epochs, "
    "in nats per pixel. The log of the article matches an encoder that ends in a ReLU, unlike the "
    "article's code and this run ([reproduction.md](reproduction.md#vanilla-ae)).",
    published=(0.1403, 0.1294, 0.1249, 0.1220, 0.1197, 0.1182, 0.1170, 0.1159, 0.1152, 0.1145),
)

VARIATIONAL = History(
    "vae16-losses",
    "vae16",
    1,
    {"training loss": "train.loss", "reconstruction": "train.recon", "KL": "train.kl"},
    "nats per image",
    "Two nearly equal falling curves over 15 epochs",
    "**A variational autoencoder with 16 latent dimensions**: the training loss, which is the "
    "negative ELBO, and its two terms in each of 15 epochs, in nats per image.",
    form=".2f",
    published=(
        *(187.7829, 137.8783, 124.7550, 118.2380, 114.7054, 112.2805, 110.6472, 109.4060),
        *(108.4367, 107.5782, 106.9144, 106.3025, 105.8472, 105.4330, 104.9902),
    ),
    charted=("training loss",),
)

TRAINING = Section("training", [CLASSIFIER, AUTOENCODER, VARIATIONAL])


def read_values(history: History, runs: Path) -> dict[int, list[float]]:
    """The values of the columns by epoch. Raises SystemExit if the run did not store one."""
    folder = runs / history.run
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    by_epoch: dict[int, dict[str, Any]] = {line["epoch"]: line for line in lines}
    values: dict[int, list[float]] = {}
    for epoch in range(history.every, max(by_epoch) + 1, history.every):
        values[epoch] = []
        for metric in history.columns.values():
            split, _, name = metric.partition(".")
            try:
                values[epoch].append(float(by_epoch[epoch][split][name]))
            except KeyError:
                raise SystemExit(
                    f"{folder} has no {metric} for epoch {epoch}: remove the folder, and the "
                    f"script trains it with {RUNS[history.run]}"
                ) from None
    return values


def format_table(history: History, values: dict[int, list[float]]) -> list[str]:
    titles = ["epoch", *history.columns, *(["published"] if history.published else [])]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row, (epoch, numbers) in enumerate(values.items()):
        shown = [*numbers, *history.published[row : row + 1]]
        lines.append(f"| {epoch} | {' | '.join(format(n, history.form) for n in shown)} |")
    return lines


def draw_chart(history: History, values: dict[int, list[float]]) -> bytes:
    """A PNG of the charted columns and the published values by epoch."""
    import torch

    from latentforge.findings import Lines
    from latentforge.rendering.write import png

    columns = zip(*values.values(), strict=True)
    by_title = {t: list(v) for t, v in zip(history.columns, columns, strict=True)}
    if history.published:
        by_title["published"] = list(history.published)
    charted = {*(history.charted or history.columns), "published"}
    series = {title: torch.tensor(v) for title, v in by_title.items() if title in charted}
    title = f"Losses of {history.run} by epoch"
    chart = Lines(history.name, title, torch.tensor([*values]), series, "epoch", history.y_title)
    return png(chart, history.run)
