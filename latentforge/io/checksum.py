"""Checksums of JSON objects, which show that a file was edited after LatentForge wrote it.

They protect against accidental edits. They are not signatures: anyone who edits a file can compute
them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from latentforge.io.paths import replace_nonfinite

KEY = "checksum"
TIMES = ("seconds", "images_per_second")  # not protected: they alone differ between equal runs


def compute_checksum(value: Mapping[str, Any]) -> str:
    """Return the checksum of a JSON object except its recorded times, 16 hexadecimal digits."""
    content = {key: item for key, item in value.items() if key not in (KEY, *TIMES)}
    stored = json.loads(json.dumps(replace_nonfinite(content)))  # as it is read from a file
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:16]


def add_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its checksum."""
    return {**value, KEY: compute_checksum(value)}


def is_edited(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object does not match its checksum; False if it has none, as in the files of
    older versions."""
    try:
        return KEY in value and bool(value[KEY] != compute_checksum(value))
    except RecursionError:  # LatentForge writes no value that is nested this deeply
        return True
