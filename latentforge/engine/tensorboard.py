"""What TensorBoard shows of a run: scalars, reconstructions, hyperparameters, in one event file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import hparams, image
from torch.utils.tensorboard.writer import FileWriter


class Board:
    """Writes events into the run folder. All scalars of one moment share one event: a fifth of the
    cost of one `add_scalar` each."""

    def __init__(self, folder: Path) -> None:
        self.writer = FileWriter(str(folder))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.writer.add_summary(Summary(value=entries), step)

    def picture(self, tag: str, picture: Tensor, step: int) -> None:
        """`picture`: (C, H, W) in [0, 1]."""
        self.writer.add_summary(image(tag, picture.cpu().numpy(), dataformats="CHW"), step)

    def hparams(self, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """The hyperparameters, and which scalars are final figures; in this run and not, as
        `add_hparams` does, in a sub-run of its own."""
        flat = {
            k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in options.items()
        }
        for summary in hparams(flat, dict(metrics)):
            self.writer.add_summary(summary)

    def close(self) -> None:
        self.writer.close()


def pair_sheet(originals: Tensor, recons: Tensor) -> Tensor:
    """(n, C, H, W) twice to one picture (C, 2H, nW), originals above reconstructions."""
    rows = [torch.cat(list(images), dim=2) for images in (originals, recons)]
    return torch.cat(rows, dim=1).clamp(0, 1)
