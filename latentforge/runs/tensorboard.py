"""Writes a run's TensorBoard events: scalars, images, hyperparameters, in one file."""

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
from torch.utils.tensorboard.summary import histogram, hparams, image

from latentforge.io.paths import unwritable

DIMS_SHOWN = 64  # curves of single latent dimensions; all of them are in metrics.jsonl
BINS = 40  # of a histogram
EVENTS = "events.out.tfevents."  # how TensorBoard knows its files


class Board:
    """Writes events into the run folder. All scalars of one moment share one event: a fifth of the
    cost of one `add_scalar` each.

    The stock FileWriter writes in a thread, where a full disk is a traceback that nobody catches.
    """

    def __init__(self, folder: Path, before: Mapping[str, int] | None = None) -> None:
        """`before`: the files that a run which goes on has written, with their bytes."""
        name = f"{EVENTS}{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path, self.before = folder / name, dict(before or {})
        try:
            self.file = self.path.open("xb")
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.records = RecordWriter(self.file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._header = self.file.tell()

    def written(self) -> dict[str, int]:
        """Each file of this run and its bytes up to now."""
        return {**self.before, self.path.name: self.file.tell()}

    def restart_after(self, step: int) -> None:
        """A run goes on: what a TensorBoard has already read of later steps no longer counts."""
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def _write(self, event: Any) -> None:
        try:
            self.records.write(event.SerializeToString())
            self.file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _summary(self, summary: Any, step: int = 0) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(Summary(value=entries), step)

    def picture(self, tag: str, picture: Tensor, step: int) -> None:
        """`picture`: (C, H, W) in [0, 1]."""
        self._summary(image(tag, picture.cpu().numpy(), dataformats="CHW"), step)

    def encoded_picture(self, tag: str, content: bytes, step: int) -> None:
        """A PNG or GIF file, as it is; a GIF keeps moving."""
        from PIL import Image

        with Image.open(io.BytesIO(content)) as file:
            width, height = file.size
        encoded = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=content
        )
        self._summary(Summary(value=[Summary.Value(tag=tag, image=encoded)]), step)

    def histogram(self, tag: str, values: np.ndarray[Any, Any], step: int) -> None:
        """The distribution of numbers, all finite."""
        self._summary(histogram(tag, values, BINS), step)

    def hparams(self, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """The hyperparameters, and which scalars are final figures; in this run and not, as
        `add_hparams` does, in a sub-run of its own."""
        flat = {
            k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in options.items()
        }
        for summary in hparams(flat, dict(metrics)):
            self._summary(summary)

    def close(self) -> None:
        """Every way out of a training leads here. A file of which nothing came goes again."""
        with suppress(OSError):  # a full disk has been reported by the write that found it
            empty = self.file.tell() == self._header
            self.file.close()
            if empty:
                self.path.unlink()


class NoBoard(Board):
    """Of a process that trains beside the one that writes."""

    def __init__(self, folder: Path, before: Mapping[str, int] | None = None) -> None:
        self.path, self.before = folder, dict(before or {})

    def written(self) -> dict[str, int]:
        return dict(self.before)

    def _write(self, event: Any) -> None:
        pass

    def close(self) -> None:
        pass


def flat_metrics(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Figures by split as TensorBoard's tags: `test/recon`."""
    return {f"{split}/{k}": v for split, values in metrics.items() for k, v in values.items()}


def flat_dims(per_dim: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Figures of latent dimensions, of the first ones, as TensorBoard's tags: `kl_per_dim/03`."""
    return {
        f"{name}_per_dim/{i:02d}": value
        for name, values in per_dim.items()
        for i, value in enumerate(values[:DIMS_SHOWN])
    }


def pair_sheet(originals: Tensor, recons: Tensor) -> Tensor:
    """(n, C, H, W) twice to one picture (C, 2H, nW), originals above reconstructions."""
    rows = [torch.cat(list(images), dim=2) for images in (originals, recons)]
    return torch.cat(rows, dim=1).clamp(0, 1)
