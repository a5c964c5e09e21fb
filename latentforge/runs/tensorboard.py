"""Writes a run's TensorBoard event file: scalars, images, histograms, hyperparameters."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, histogram, hparams, image, text

from latentforge.errors import RunFailed
from latentforge.io.paths import write_error

DIMS_SHOWN = 64  # latent dimensions with a curve; metrics.jsonl has all of them
BINS = 40  # bins of a histogram
PANEL, PANEL_ROWS = (120, 80), 4  # width and height in pixels, and the largest number of rows
EVENTS = "events.out.tfevents."  # TensorBoard recognizes its files by this prefix


class Board:
    """Writes events into the run folder. All scalars of one step share one event, which
    takes a fifth of the time of separate `add_scalar` calls.

    TensorBoard's FileWriter is not used: it writes in a thread, so a full disk raises an exception
    that cannot be caught.
    """

    def __init__(self, folder: Path, earlier: Mapping[str, int] | None = None) -> None:
        """`earlier` contains, for a resumed run, the event files and their sizes in bytes."""
        name = f"{EVENTS}{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path, self.earlier = folder / name, dict(earlier or {})
        try:
            self.file = self.path.open("xb")
        except OSError as error:
            raise write_error(self.path, error) from None
        self.records = RecordWriter(self.file)
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        except RunFailed:  # a full disk: the run is left as it was
            with suppress(OSError):
                self.file.close()
            self.path.unlink()
            raise
        self._header = self.file.tell()

    def file_sizes(self) -> dict[str, int]:
        """The event files of this run and their current sizes in bytes."""
        return {**self.earlier, self.path.name: self.file.tell()}

    def mark_restart(self, step: int) -> None:
        """Mark a resumed run, so that TensorBoard discards the later steps it has already read."""
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def _write(self, event: Any) -> None:
        try:
            self.records.write(event.SerializeToString())
            self.file.flush()
        except OSError as error:
            raise write_error(self.path, error) from None

    def _write_summary(self, summary: Any, step: int = 0) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write_summary(Summary(value=entries), step)

    def add_image(self, tag: str, pixels: Tensor, step: int) -> None:
        """Add an image. `pixels`: (C, H, W) in [0, 1]."""
        self._write_summary(image(tag, pixels.cpu().numpy(), dataformats="CHW"), step)

    def add_encoded_image(self, tag: str, content: bytes, step: int) -> None:
        """Add a PNG or GIF file unchanged; a GIF stays animated."""
        from PIL import Image

        with Image.open(io.BytesIO(content)) as file:
            size = {"width": file.width, "height": file.height}
        encoded = Summary.Image(**size, colorspace=3, encoded_image_string=content)
        self._write_summary(Summary(value=[Summary.Value(tag=tag, image=encoded)]), step)

    def add_histogram(self, tag: str, values: np.ndarray[Any, Any], step: int) -> None:
        """Add a histogram of finite numbers."""
        self._write_summary(histogram(tag, values, BINS), step)

    def add_text(self, tag: str, content: str) -> None:
        """Add a text in Markdown."""
        self._write_summary(text(tag, content))

    def add_charts(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Define a chart for each metric of several splits: train and validation in one picture."""
        names = dict.fromkeys(name for values in metrics.values() for name in values)
        tags = {n: [f"{s}/{n}" for s, values in metrics.items() if n in values] for n in names}
        charts = {
            name: ["Multiline", [*dict.fromkeys([*found, f"test/{name}"])]]
            for name, found in tags.items()
            if len(found) > 1
        }
        if charts:
            self._write_summary(custom_scalars({"metrics": charts}))

    def add_hparams(self, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Add the hyperparameters and the names of the final metrics to this run; `add_hparams` of
        torch would create a sub-run."""
        flat = {k: v if isinstance(v, int | float | str) else str(v) for k, v in options.items()}
        for summary in hparams(flat, dict(metrics)):
            self._write_summary(summary)

    def close(self) -> None:
        """Close the event file, however training ends; delete it if nothing was written."""
        with suppress(OSError):  # a full disk has already been reported by the write that failed
            empty = self.file.tell() == self._header
            self.file.close()
            if empty:
                self.path.unlink()


class NoBoard(Board):
    """A board that writes nothing, for all processes but the first in distributed training."""

    def __init__(self, folder: Path, earlier: Mapping[str, int] | None = None) -> None:
        self.path, self.earlier = folder, dict(earlier or {})

    def file_sizes(self) -> dict[str, int]:
        return dict(self.earlier)

    def _write(self, event: Any) -> None:
        pass

    def close(self) -> None:
        pass


def flatten_metrics(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of all splits with TensorBoard tags such as `test/recon`."""
    return {f"{split}/{k}": v for split, values in metrics.items() for k, v in values.items()}


def flatten_per_dim(per_dim: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the metrics of the first latent dimensions with tags such as `z/kl_03`, which follow
    the metrics of the splits in TensorBoard."""
    return {
        f"z/{name}_{i:02d}": value
        for name, values in per_dim.items()
        for i, value in enumerate(values[:DIMS_SHOWN])
    }


def tile_pairs(originals: Tensor, recons: Tensor) -> Tensor:
    """Tile two (n, C, H, W) batches into one image (C, 2H, nW), originals at the top. Signals and
    vectors become panels of curves."""
    if originals.ndim < 4:
        return tile_curves(originals, recons)
    rows = [torch.cat(list(images), dim=2) for images in (originals, recons)]
    return torch.cat(rows, dim=1).clamp(0, 1)


def tile_curves(originals: Tensor, recons: Tensor) -> Tensor:
    """Draw signals (n, C, L) or vectors (n, D) as black curves, and their reconstructions as blue
    ones, in a row for each of at most PANEL_ROWS channels. Returns an image (3, H, W) in [0, 1].
    All panels of a row share the scale of the data."""
    from PIL import Image, ImageDraw

    pairs = torch.stack([originals, recons]).float().cpu()  # (2, n, C, L)
    pairs = pairs.unsqueeze(2) if pairs.ndim == 3 else pairs
    _, count, channels, length = pairs.shape
    shown, (width, height) = min(channels, PANEL_ROWS), PANEL
    picture = Image.new("RGB", (count * width, shown * height), "white")
    pen = ImageDraw.Draw(picture)
    x = torch.linspace(4, width - 5, length)
    for c in range(shown):
        low, high = pairs[0, :, c].aminmax()
        scaled = ((pairs[:, :, c] - low) / (high - low).clamp(min=1e-12)).nan_to_num().clamp(-1, 2)
        y = height * (c + 0.75 - 0.5 * scaled)  # the data is in the middle half of a panel
        for n in range(count):
            for ink, curve in zip(("black", "#1e88e5"), y[:, n], strict=True):
                pen.line(torch.stack([x + n * width, curve], 1).flatten().tolist(), ink, width=2)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
