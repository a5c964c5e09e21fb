"""A resolved configuration as TOML, which `latentforge train --config` reads again."""

from __future__ import annotations

from typing import Any

import tomli_w


def toml(config: dict[str, Any]) -> str:
    """A configuration as TOML, one line for each value; what is unset has no line."""
    given = {section: values for section, values in config.items() if values != []}
    text = tomli_w.dumps(_set(given), indent=0)
    # tomli-w writes an array over several lines; in a string it escapes every line break
    return text.replace("[\n", "[").replace(",\n]", "]").replace(",\n", ", ").rstrip()


def as_toml(value: Any) -> str:
    """A value as TOML, as `--set KEY=VALUE` takes it too."""
    return toml({"x": [[value]]}).removeprefix("x = [[").removesuffix("]]")


def _set(value: Any) -> Any:
    """A value without the keys that are unset; TOML has no null."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_set(item) for item in value]
    return "null" if value is None else value
