"""The command that shows the data of a run."""

from __future__ import annotations

from typing import Any

from latentforge.config.request import toml_value
from latentforge.config.schema import Component, DataConfig, OtherData, RunConfig
from latentforge.config.validation import plain
from latentforge.io.paths import quoted
from latentforge.io.toml import format_toml_value

COMMAND = "latentforge data show"


def complete_command(text: str, config: RunConfig, other: Any = None) -> str:
    """Return a hint with the name and options of the data in the command that shows data. The data
    is `other`, if it replaces the run's own."""
    dataset, options = config.dataset, config.data
    if other is not None:
        known = isinstance(other, OtherData)
        dataset, options = (other.dataset, other.config) if known else (None, options)
    return text.replace(f"`{COMMAND}`", f"`{data_command(dataset, options)}`")


def data_command(dataset: Component | None, config: DataConfig) -> str:
    """Return `latentforge data show NAME` with the options that are not the defaults. Data that was
    passed in Python has no name."""
    if dataset is None:
        return COMMAND
    values = {**plain(dataset.options), **plain(config)}
    default = {**plain(type(dataset.options)()), **plain(DataConfig())}
    options = [
        f"--set {quoted(f'data.{key}={_as_option(value)}')}"
        for key, value in values.items()
        if value != default[key] and value is not None  # TOML has no null
    ]
    return " ".join([COMMAND, quoted(dataset.entry.reference), *options])


def _as_option(value: Any) -> str:
    """Format a value so that `--set` reads it again: a text such as 5 needs quotation marks."""
    is_text = isinstance(value, str) and toml_value(value) == value
    return str(value) if is_text else format_toml_value(value)
