"""The data of a run as run.json and its checkpoints describe it. Must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentforge.config.data_range import from_json, to_json
from latentforge.contracts import DataSpec, Scaling
from latentforge.runs.manifest import describe_factors, stored_factors


def read_spec(about: Mapping[str, Any]) -> DataSpec:
    """Return the spec of the data that a run.json describes under `data`."""
    steps = about.get("preprocessing", {})
    return DataSpec(
        shape=tuple(about["shape"]),
        kind=about["kind"],
        classes=tuple(about["classes"]),
        range=from_json(steps.get("range", [0.0, 1.0])),
        factors=stored_factors(about),
        limits=tuple(steps["limits"]) if steps.get("limits") else None,
        scaling=read_scaling(steps.get("normalize")),
    )


def read_scaling(stored: Mapping[str, Any] | None) -> Scaling | None:
    """Return the scaling that Scaling.as_dict() has written."""
    return Scaling(tuple(stored["mean"]), tuple(stored["deviation"])) if stored else None


def describe_spec(spec: DataSpec) -> dict[str, Any]:
    """The properties of the data with which an edit of run.json is noticed."""
    return {
        "shape": [*spec.shape],
        "classes": [*spec.classes],
        "range": to_json(spec.range),
        "normalize": spec.scaling and spec.scaling.as_dict(),
        "factors": describe_factors(spec.factors),
    }
