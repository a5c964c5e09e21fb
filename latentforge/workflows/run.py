"""A run and its operations. Torch-free; the methods import torch when they are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.plugins.registry import Registry
from latentforge.plugins.running import runs_plugins
from latentforge.runs.folder import RunFolder, read_manifest
from latentforge.runtime.python_form import python_api

if TYPE_CHECKING:
    from torch import nn


@python_api
@runs_plugins
@dataclass(eq=False, repr=False)
class Run(RunFolder):
    """A training run and its results; `Forge.train` and `open_run` return it."""

    registry: Registry

    def load_model(self, checkpoint: str = "last", *, device: str = "cpu") -> nn.Module:
        """Load the trained model in evaluation mode, from the checkpoint `last` or `best`."""
        from latentforge.config.schema import check_device
        from latentforge.runs.compatibility import resolve_stored_config
        from latentforge.runtime.device import resolve_device
        from latentforge.workflows.load import load

        check_device(device)
        config = resolve_stored_config(self.registry, self)
        return load(self, config, checkpoint, resolve_device(device)).model

    def evaluate(self, split: str = "test", **options: Any) -> dict[str, float]:
        """Compute metrics on a split, with the `options` of `Forge.evaluate`."""
        from latentforge.workflows.evaluate import evaluate

        metrics: dict[str, float] = evaluate(self.registry, self, split, **options)["metrics"]
        return metrics

    def explore(self, explorer: str, /, **options: Any) -> dict[str, Any]:
        """Run an explorer and draw its findings, with the `options` of `Forge.explore`."""
        from latentforge.workflows.explore import explore

        return explore(self.registry, explorer, self, **options)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the run's HTML page and return its path; see `Forge.report`."""
        from latentforge.rendering.report.write import report

        return Path(report([self], self.registry, Path(out) if out else None)["report"])


def open_run(registry: Registry, path: str | Path) -> Run:
    """Open a run folder as a Run. Raises MissingError if there is none."""
    return Run(Path(path), read_manifest(Path(path)), registry)
