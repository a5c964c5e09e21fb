"""The types of the fields of run.json and of the lines of metrics.jsonl, which may come from
somebody else or be damaged."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from latentforge.contracts import RANGES
from latentforge.specs import KINDS

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


def check_splits(images: dict[str, int]) -> dict[str, int]:
    if not images.get("train"):
        raise ValueError("there are no training images")
    return images


def check_range(bounds: list[float | None] | None) -> list[float | None] | None:
    known = [value and [None if v == math.inf else v for v in value] for value in RANGES.values()]
    if bounds not in known:
        raise ValueError(f"must be one of {known}")
    return bounds


class Fields(BaseModel):
    """A JSON object with these fields and any others."""

    model_config = ConfigDict(strict=True, extra="allow")


class Named(Fields):
    name: str


class Config(Fields):
    model: Named
    loss: Named
    data: Named
    train: dict[str, Any]
    callbacks: list[Named]
    roles: dict[str, str] = {}
    sampler: dict[str, Any] = {}


class ScalingFields(Fields):
    mean: list[FiniteFloat]
    deviation: list[Annotated[FiniteFloat, Field(gt=0)]]

    @model_validator(mode="after")
    def check(self) -> Self:
        if len(self.mean) != len(self.deviation):
            raise ValueError("mean and deviation must have the same length")
        return self


class Preprocessing(Fields):
    layout: Annotated[str, Field(pattern="^[NCDHWL]{1,5}$")] = "NCHW"
    stored: str = ""
    black: float | None = None
    white: float | None = None
    range: Annotated[list[float | None] | None, AfterValidator(check_range)] = [0.0, 1.0]
    limits: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    normalize: ScalingFields | None = None


class FactorFields(Fields):
    name: Annotated[str, Field(min_length=1)]
    names: list[str] = []


class Data(Fields):
    kind: Literal["image", "vector", "signal"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=3)]
    classes: list[str]
    factors: list[FactorFields] = []
    images: Annotated[dict[str, Count], AfterValidator(check_splits)]
    fingerprint: str
    sample: str = ""
    preprocessing: Preprocessing = Preprocessing()
    class_counts: dict[str, dict[str, Count]] = {}

    @model_validator(mode="after")
    def check_scaling(self) -> Self:
        scaling = self.preprocessing.normalize
        if scaling and len(scaling.mean) != self.shape[0]:
            raise ValueError(f"preprocessing.normalize must have {self.shape[0]} means")
        return self


class Plugin(Fields):
    kind: Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]
    name: str
    plugin: str
    module: str | None = None
    distribution: str | None = None
    version: str | None = None


class Manifest(Fields):
    """run.json. Fields with a default are missing in the runs of older versions."""

    status: str
    config: Config
    data: Data
    plugins: list[Plugin]
    metrics: dict[str, dict[str, float | None]]
    epochs: Count = 0
    steps: Count = 0
    seconds: float | None = 0.0
    images_per_second: float = 0.0
    evaluation_protocol: Size = 1
    weights: str = ""
    created: str = ""
    error: str | None = None
    stopped: str | None = None
    best: dict[str, Any] | None = None
    environment: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    protocol: dict[str, str] = {}
    steps_made: dict[str, Any] = {}
    per_dim: dict[str, list[float | None]] = {}
    findings: list[dict[str, Any]] = []
    resumed: list[dict[str, Any]] = []
    roles: dict[str, dict[str, Any]] = {}
    events: list[str] = []


class Epoch(Fields):
    """A line of metrics.jsonl."""

    epoch: Count
    step: Count
    train: dict[str, float | None]
    validation: dict[str, float | None] = {}
    test: dict[str, float | None] = {}


def find_faults(value: Any, schema: type[Fields] = Manifest) -> list[str]:
    """Return what is wrong with a JSON object, one line per field; empty if nothing is."""
    try:
        schema.model_validate(value)
    except ValidationError as error:
        return [
            ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
            for fault in error.errors(include_url=False, include_input=False)
        ]
    return []


def fill(manifest: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of the fields that other code reads without a check."""
    for name in ("epochs", "steps", "seconds", "images_per_second"):
        manifest.setdefault(name, Manifest.model_fields[name].default)
    return manifest
