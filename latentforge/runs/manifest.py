"""Builds the manifest of a run, run.json. Torch-free at import."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge._version import __version__
from latentforge.config.schema import (
    PROTOCOL,
    DataConfig,
    RunConfig,
    TrainConfig,
    describe_weights,
)
from latentforge.config.validation import plain
from latentforge.io.redact import command_line
from latentforge.runs.data_description import describe_data
from latentforge.runs.folder import FORMAT
from latentforge.runtime import torchrun

if TYPE_CHECKING:
    import torch

    from latentforge.data.splits import DataSplits

RUNS = Path("runs")


def build_manifest(config: RunConfig, splits: DataSplits, device: torch.device) -> dict[str, Any]:
    """Build the content of run.json at the start of a run."""
    import torch

    return {
        "format": FORMAT,
        "evaluation_protocol": PROTOCOL,
        "latentforge": __version__,
        "status": "running",
        "weights": describe_weights(config.train),  # the weights that are evaluated
        "created": now(),
        "config": config.as_dict(),
        "data": describe_data(config.data_name, splits),
        "plugins": [
            {
                "kind": part.entry.kind.plural,
                "name": part.entry.reference,
                "plugin": part.entry.plugin.name,
                "module": part.entry.plugin.module,
                "distribution": part.entry.plugin.distribution,
                "version": part.entry.plugin.version,
            }
            for part in config.components()
        ],
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "torch": torch.__version__,
            "ignite": importlib.metadata.version("pytorch-ignite"),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "processes": torchrun.world_size(),
            "command": command_line(),
        },
        "epochs": 0,
        "steps": 0,
        "seconds": 0.0,
        "images_per_second": 0.0,
        "metrics": {},
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


SHOWN = ("epochs", "batch_size", "lr", "optimizer", "seed")


def select_options(config: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters for TensorBoard, with names such as `train.lr`: the options of the
    model and the loss, the dataset, the main options of [train], and others that were changed."""
    usual = {"data": plain(DataConfig()), "train": plain(TrainConfig())}
    return {
        f"{section}.{key}": value
        for section, values in config.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if key in SHOWN or value != usual.get(section, {}).get(key, ...)
    }


def describe_progress(result: Any) -> dict[str, Any]:
    """Describe the progress and the results of training, for run.json."""
    return {
        "epochs": result.epochs,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "metrics": result.metrics,
        "per_dim": result.per_dim,
        "best": result.best,
        "stopped": result.stopped,
        "findings": [finding.as_dict() for finding in result.findings],
    }
