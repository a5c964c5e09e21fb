"""Results of single trainings, stored as JSON files, and the statistics of paired differences.

This module imports neither torch nor LatentForge.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import turns

Result = dict[str, Any]


class Store:
    """A folder with one JSON file for each training, so that an interrupted benchmark continues
    after the last one. A file belongs to the settings that its name contains as a hash; results of
    other settings are kept beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Mapping[str, Any], compute: Callable[[], Result]) -> Result:
        """Return the stored result of `key`, or compute and store it, with the machine."""
        file = self.folder / file_name(key)
        if file.exists():
            result: Result = json.loads(file.read_text("utf-8"))
            print(f"{describe(key)}: from {file}", flush=True)
            return result
        print(f"{describe(key)}: training", flush=True)
        result = {"key": dict(key), **compute(), "machine": turns.machine()}
        self.folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")  # a file with the final name is complete
        part.write_text(json.dumps(result) + "\n", "utf-8")
        os.replace(part, file)
        return result


def file_name(key: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    readable = re.sub(r"[^\w.]+", "-", describe(key))
    return f"{readable}-{digest}.json"


def describe(key: Mapping[str, Any]) -> str:
    return f"{key['case']}, {key['side']}, seed {key['seed']}"


# ---------------------------------------------------------------- statistics


@dataclass(frozen=True)
class Difference:
    """A mean difference with its standard errors: over the images, where the differences of all
    seeds are averaged for each image, and over the seeds, None for a single seed."""

    mean: float
    image_error: float
    seed_error: float | None

    @property
    def error(self) -> float:
        """The larger standard error."""
        return max(self.image_error, self.seed_error or 0.0)

    @property
    def better(self) -> bool:
        """Whether the difference exceeds three times each standard error."""
        return self.mean > 3 * self.error


def paired_difference(
    base: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> Difference:
    """Compare the values of images by seed, base - other: positive if `other` is lower."""
    by_seed = [
        [a - b for a, b in zip(*pair, strict=True)] for pair in zip(base, other, strict=True)
    ]
    by_image = [statistics.fmean(values) for values in zip(*by_seed, strict=True)]
    means = [statistics.fmean(values) for values in by_seed]
    return Difference(
        statistics.fmean(means),
        standard_error(by_image) or 0.0,
        standard_error(means),
    )


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean, or None for a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def within_range(value: float, values: Sequence[float]) -> bool:
    return min(values) <= value <= max(values)


def mean_and_error(values: Sequence[float], digits: int) -> str:
    """`1.23 ± 0.04`, with the standard error if there are several values."""
    text, error = f"{statistics.fmean(values):.{digits}f}", standard_error(values)
    return text if error is None else f"{text} ± {error:.{digits}f}"
