"""Inference options for the checks of models: the default ones, and others."""

from __future__ import annotations

from typing import Any

from torch import nn

from latentforge.config.request import set_nested
from latentforge.config.validation import Faults, Option, check, describe, plain
from latentforge.plugins.registry import Entry


def set_sampler(module: nn.Module, entry: Entry) -> nn.Module:
    """Give a model its default inference options, as the core does after `build`."""
    if inference := getattr(entry.spec, "inference", None):
        module.sampler = inference()
    return module


def list_other_samplers(inference: type[Any]) -> dict[str, Any]:
    """Return instances of a class of inference options, by the option that differs from its
    default. An option without another value that is known to be valid is left out."""
    samplers = {}
    for option in describe(inference):
        for value in list_other_values(option):
            values = plain(inference())
            set_nested(values, option.name.split("."), value)
            faults = Faults()
            sampler = check(inference, values, "sampler", faults)
            if not faults.lines and sampler != inference():
                samplers[option.name] = sampler
                break
    return samplers


def list_other_values(option: Option) -> list[Any]:
    """Return values that an option may have instead of its default."""
    match option.default:
        case bool(value):
            return [not value]
        case int(value):
            return [2 * value, value + 1, value - 1]
        case float(value):
            return [2 * value, value / 2, value + 0.5]
        case str():
            return option.type.split(" | ")  # the choices of a Literal
    return []
