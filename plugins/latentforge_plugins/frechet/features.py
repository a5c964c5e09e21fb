"""Features of images, which are outputs of a classifier's layer, and checks of the classifier."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from copy import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from latentforge.contracts import EvaluateContext
from latentforge.errors import UsageError, did_you_mean
from latentforge.runs.compatibility import differing_steps
from latentforge_plugins.layers import capture_outputs, last_with_weights, output_of

from . import cache

MAX_NAMED = 12  # maximum number of classes that an error names

log = logging.getLogger("latentforge")


class Features:
    """`features(x)` maps (B, *data.shape) to (B, F), the layer's output averaged to `cells`.

    `classifier` is the loaded run. `key` contains everything that the features depend on: the
    weights and options of the network, the plugin that provides it, the layer and the grid. Raises
    UsageError for a layer that does not exist.
    """

    def __init__(self, classifier: Any, layer: str, grid: int) -> None:
        self.model: Any = classifier.model
        self.layer = layer or last_with_weights(self.model) or ""
        if not self.layer:
            raise UsageError(
                "the classifier's layers() returns no layer with weights",
                hint="--set fid.layer=NAME",
            )
        if self.layer not in (known := list(classifier.model.layers())):
            raise UsageError(
                f"fid.layer is {layer!r}, which is not a layer of {classifier.run.path}",
                hint=did_you_mean(layer, known) or f"choose from {', '.join(known)}",
            )
        self.grid = grid
        self.cells = (1, 1)  # cells of each map, set by the first output
        self.weights = cache.digest(self.model.state_dict())
        providers = [p for p in classifier.run.manifest["plugins"] if p["kind"] == "models"]
        network = json.dumps([classifier.run.config["model"], providers], sort_keys=True)
        self.key = f"{self.weights} {network} {self.layer} {grid}"

    def __call__(self, x: Tensor) -> Tensor:
        return output_of(self.layer, self.model, x, self.pool)

    def pool(self, output: Tensor) -> Tensor:
        if output.ndim != 4:
            return output.flatten(1).clone()
        height, width = output.shape[2:]
        self.cells = (min(self.grid, height), min(self.grid, width))  # more would be duplicates
        return F.adaptive_avg_pool2d(output, self.cells).flatten(1)

    def find_sizes(self, x: Tensor, grid: int) -> dict[str, int]:
        """Return the number of features that each layer of the classifier gives for x, with maps
        that are averaged to `grid` x `grid` cells."""
        names = list(self.model.layers())
        other = copy(self)
        other.grid = grid
        with capture_outputs(self.model, names, other.pool) as captured:
            self.model(x)
        return {name: captured[name].shape[1] for name in names if name in captured}

    def describe_pooling(self) -> str:
        """Describe the averaging of maps for a protocol."""
        return ", maps averaged to {}x{},".format(*self.cells) if self.cells != (1, 1) else ""


def describe_data(classifier: Any) -> str:
    """Describe the data of a run. An evaluation reports the fingerprint of its own data with the
    metrics, so the two fingerprints can be compared."""
    data = classifier.run.manifest["data"]
    name = classifier.run.config["data"]["name"]
    return f"{name}, fingerprint {data['fingerprint'][:12]}"


def check_same_data(context: EvaluateContext, classifier: Any) -> None:
    """Raise UsageError unless the classifier was trained with the run's preprocessing and, if the
    run's images have labels, on the same classes."""
    manifest = classifier.run.manifest["data"]
    classifier_values, run_values = manifest["preprocessing"], context.preprocessing
    differing = [
        f"{key}: {classifier_values.get(key)!r} (classifier), {run_values.get(key)!r} (run)"
        for key in differing_steps(classifier_values, run_values)
        if key in classifier_values and key in run_values
    ]
    if differing:
        raise UsageError(
            f"classifier {classifier.run.path} was trained with different preprocessing from "
            "this run",
            details=differing,
            hint="use a classifier trained on this run's data with the same [data] options",
        )
    classes = tuple(manifest["classes"])
    if context.data.classes and context.data.classes != classes:
        raise UsageError(
            f"classifier {classifier.run.path} was trained on {describe_data(classifier)}, "
            "which has different classes from this run's data",
            details=[
                f"classes of the classifier: {list_classes(classes)}",
                f"classes of the run: {list_classes(context.data.classes)}",
            ],
            hint="use a classifier trained on this run's data",
        )
    if manifest["fingerprint"] != context.fingerprint:
        log.warning(
            "the classifier %s was trained on other data (%s) than this run, so its features may "
            "not distinguish the run's images",
            classifier.run.path,
            describe_data(classifier),
        )


def list_classes(classes: Sequence[str]) -> str:
    suffix = f", ... ({len(classes)} in total)" if len(classes) > MAX_NAMED else ""
    return ", ".join(classes[:MAX_NAMED]) + suffix
