"""Formats a resolved configuration as TOML that `latentforge train --config` can read."""

from __future__ import annotations

from typing import Any

import tomli_w


def toml(config: dict[str, Any]) -> str:
    """Format a configuration as TOML, one line per value, without the unset values."""
    given = {section: values for section, values in config.items() if values != []}
    text = tomli_w.dumps(_set(given), indent=0)
    # tomli-w writes an array over several lines; in a string it escapes every line break
    return text.replace("[\n", "[").replace(",\n]", "]").replace(",\n", ", ").rstrip()


def as_toml(value: Any) -> str:
    """Format one value as TOML, in the form that `--set KEY=VALUE` accepts."""
    return toml({"x": [[value]]}).removeprefix("x = [[").removesuffix("]]")


def _set(value: Any) -> Any:
    """Remove unset keys, because TOML has no null; None in a list becomes the string "null"."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_set(item) for item in value]
    return "null" if value is None else value
