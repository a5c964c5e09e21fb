"""The data of a run as run.json and its checkpoints describe it. Must not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentforge.config.data_range import from_json, to_json
from latentforge.contracts import DataSpec, Factor, Scaling
from latentforge.contracts.data import CLASS

if TYPE_CHECKING:
    from latentforge.data.splits import DataSplits


def describe_data(name: str, splits: DataSplits) -> dict[str, Any]:
    """The section `data` of run.json: the data of a run, whose dataset is called `name`."""
    return {
        "name": name,
        "kind": splits.spec.kind,
        "shape": list(splits.spec.shape),
        "classes": list(splits.spec.classes),
        "factors": describe_factors(splits.spec.factors),
        "images": {name: len(images) for name, images in splits.splits.items()},
        "class_counts": splits.class_counts(),
        "preprocessing": splits.preprocessing,
        "fingerprint": splits.fingerprint,
        "sample": splits.sample,
    }


def describe_factors(factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """Describe the factors other than the class for run.json. Those without names are numeric."""
    return [
        {"name": factor.name, **({"names": list(factor.names)} if factor.names else {})}
        for factor in factors
        if factor.name != CLASS
    ]


def describe_spec(spec: DataSpec) -> dict[str, Any]:
    """The properties of the data with which an edit of run.json is noticed."""
    return {
        "shape": [*spec.shape],
        "classes": [*spec.classes],
        "range": to_json(spec.range),
        "normalize": spec.scaling and spec.scaling.as_dict(),
        "factors": describe_factors(spec.factors),
    }


def read_spec(about: Mapping[str, Any]) -> DataSpec:
    """Return the spec of the data that a run.json describes under `data`."""
    steps = about.get("preprocessing", {})
    factors = (Factor(f["name"], tuple(f.get("names", ()))) for f in about.get("factors", ()))
    return DataSpec(
        shape=tuple(about["shape"]),
        kind=about["kind"],
        classes=tuple(about["classes"]),
        range=from_json(steps.get("range", [0.0, 1.0])),
        factors=tuple(factors),
        limits=tuple(steps["limits"]) if steps.get("limits") else None,
        scaling=read_scaling(steps.get("normalize")),
    )


def read_scaling(stored: Mapping[str, Any] | None) -> Scaling | None:
    """Return the scaling that Scaling.as_dict() has written."""
    return Scaling(tuple(stored["mean"]), tuple(stored["deviation"])) if stored else None
