"""Process-wide settings, which each check restores and no component may change."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from latentforge.conformance.subject import require


class Setting(NamedTuple):
    """Functions that read and write a setting, and a value that no component sets, or None."""

    get: Callable[[], Any]
    put: Callable[[Any], object]
    before: Any = None


def set_environment(value: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(value)


def attribute_setting(module: Any, name: str, before: Any) -> Setting:
    return Setting(partial(getattr, module, name), partial(setattr, module, name), before)


ALL = slice(None)
CUDNN, ROOT = torch.backends.cudnn, logging.getLogger()
SETTINGS = {
    "torch's default type": Setting(
        torch.get_default_dtype, torch.set_default_dtype, torch.float32
    ),
    "torch's default device": Setting(
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
        torch.device("cpu"),
    ),
    "torch's gradient mode": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": Setting(torch.get_num_threads, torch.set_num_threads, 3),
    "torch's anomaly mode": Setting(
        torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, False
    ),
    "torch's deterministic mode": Setting(
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda mode: torch.use_deterministic_algorithms(mode[0], warn_only=mode[1]),
        (False, False),
    ),
    "torch's matmul precision": Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
    ),
    "cudnn.benchmark": attribute_setting(CUDNN, "benchmark", False),
    "cudnn.deterministic": attribute_setting(CUDNN, "deterministic", False),
    "the generator of `random`": Setting(
        random.getstate, random.setstate, random.Random("conformance").getstate()
    ),
    "the generator of numpy.random": Setting(
        np.random.get_state, np.random.set_state, np.random.RandomState(2718281828).get_state()
    ),
    "the environment": Setting(lambda: dict(os.environ), set_environment),
    "the working folder": Setting(os.getcwd, os.chdir),
    "sys.path": Setting(lambda: list(sys.path), lambda value: sys.path.__setitem__(ALL, value)),
    "the SIGINT handler": Setting(
        lambda: signal.getsignal(signal.SIGINT), lambda value: signal.signal(signal.SIGINT, value)
    ),
    "the root logger's level": Setting(lambda: ROOT.level, ROOT.setLevel, logging.WARNING),
    "the root logger's handlers": Setting(
        lambda: list(ROOT.handlers), lambda value: ROOT.handlers.__setitem__(ALL, value)
    ),
}
PROBES = {name: setting.before for name, setting in SETTINGS.items() if setting.before is not None}


def read_settings() -> dict[str, Any]:
    return {name: setting.get() for name, setting in SETTINGS.items()}


def changed_settings(values: dict[str, Any]) -> list[str]:
    """Return the names of the settings whose current value differs from `values`. Values are
    compared by `repr`, because `==` of arrays is not a single value."""
    return [name for name, value in values.items() if repr(SETTINGS[name].get()) != repr(value)]


def apply_settings(values: dict[str, Any]) -> None:
    for name in changed_settings(values):
        SETTINGS[name].put(values[name])


def is_blanket(rule: Any) -> bool:
    """Whether a warning filter affects other packages too: it matches every message of every
    module, and its category is built into Python."""
    _, message, category, module, _ = rule
    return message is None and module is None and category.__module__ == "builtins"


@contextmanager
def restore_settings() -> Iterator[None]:
    """Restore all settings and warning filters at the end, also after an exception."""
    before = read_settings()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            apply_settings(before)


@contextmanager
def require_no_global_change(
    action: str, first: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Raise CheckFailed if the code inside changes a process-wide setting. Before that code runs,
    the settings are set to values that no component sets, because a component that always sets the
    same value may have set it already. `first` is called at the very start, because its
    imports may change settings."""
    with restore_settings():
        first()
    with restore_settings():
        warnings.resetwarnings()
        apply_settings(PROBES)
        before = read_settings()
        yield
        changed = changed_settings(before)
        # a library that the code inside imports may silence its own warnings
        if any(map(is_blanket, warnings.filters)):
            changed.append("warnings")
    hint = "do not change process-wide settings, or restore them"
    require(not changed, f"{action} changes {', '.join(changed)}", hint)
