"""Formats a resolved configuration as TOML that `latentforge train --config` can read."""

from __future__ import annotations

from typing import Any

import tomli_w


def format_toml(config: dict[str, Any]) -> str:
    """Format a configuration as TOML, one line per value, without the unset values."""
    sections = {section: values for section, values in config.items() if values != []}
    text = tomli_w.dumps(_remove_unset(sections), indent=0)
    # tomli-w writes an array over several lines; in a string it escapes every line break
    return text.replace("[\n", "[").replace(",\n]", "]").replace(",\n", ", ").rstrip()


def format_toml_value(value: Any) -> str:
    """Format one value as TOML, in the form that `--set KEY=VALUE` accepts."""
    return format_toml({"x": [[value]]}).removeprefix("x = [[").removesuffix("]]")


def _remove_unset(value: Any) -> Any:
    """Remove unset keys, because TOML has no null; None in a list becomes the string "null"."""
    if isinstance(value, dict):
        return {key: _remove_unset(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_remove_unset(item) for item in value]
    return "null" if value is None else value
