"""A resolved configuration as TOML, which `latentforge train --config` reads again."""

from __future__ import annotations

import json
import re
from typing import Any


def toml(config: dict[str, Any]) -> list[str]:
    """A resolved configuration as TOML lines; what is unset has no line."""
    lines: list[str] = []
    for section, values in config.items():
        tables = values if isinstance(values, list) else [values]
        heading = f"[[{section}]]" if isinstance(values, list) else f"[{section}]"
        for entries in tables:
            lines += ["", heading]
            lines += [
                f"{_key(key)} = {as_toml(value)}"
                for key, value in entries.items()
                if value is not None
            ]
    return lines


def as_toml(value: Any) -> str:
    """A value as TOML, as `--set KEY=VALUE` takes it too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    # JSON's scalars and arrays are TOML's too, but for its surrogates and a bare DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else as_toml(name)
