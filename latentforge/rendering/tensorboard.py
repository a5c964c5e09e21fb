"""Writes findings for TensorBoard: drawn images and animations, metrics, histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from latentforge.findings import Findings, Histogram
from latentforge.rendering.images import to_numpy
from latentforge.runs.tensorboard import Board


def write_board(
    findings: Findings, files: Sequence[Sequence[Path]], folder: Path, explorer: str
) -> None:
    """Write one event file into `folder`. `files` are the files of each finding. All tags start
    with `explorer`; the film strip of an animation has a separate tag."""
    with closing(Board(folder)) as board:
        metrics = {k: v for k, v in findings.metrics.items() if math.isfinite(v)}
        if metrics:  # as text, because a chart of one point shows nothing
            rows = "".join(f"| {name} | {value:.6g} |\n" for name, value in metrics.items())
            board.add_text(f"{explorer}/metrics", f"| metric | value |\n|---|---|\n{rows}")
        for item, item_files in zip(findings.items, files, strict=True):
            pictures = [file for file in item_files if file.suffix in (".png", ".gif")]
            for number, file in enumerate(pictures):
                tag = f"{explorer}/{item.name}{'-strip' if number else ''}"
                board.add_encoded_image(tag, file.read_bytes(), step=0)
            if isinstance(item, Histogram):
                for title, values in item.panels.items():
                    finite = to_numpy(values).astype(float).ravel()
                    finite = finite[np.isfinite(finite)]
                    if len(finite):
                        board.add_histogram(f"{explorer}/{item.name}/{title}", finite, step=0)
