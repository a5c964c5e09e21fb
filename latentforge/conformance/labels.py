"""Labels for the checks of conditional models, whose methods the checks call without labels."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.conformance.subject import Subject
from latentforge.contracts import DataSpec
from latentforge.contracts.views import ClassPrior
from latentforge.plugins.registry import Entry
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.runs.folder import RunFolder
from latentforge.specs import ModelSpec

MOST = 3  # classes in a cycle of labels


def label_cycle(data: DataSpec) -> int:
    """The number of classes in the cycle of labels: row i is under class i % n."""
    return max(1, min(MOST, len(data.classes)))


def fill_labels(module: nn.Module, entry: Entry, data: DataSpec) -> nn.Module:
    """Let the methods of a conditional model also work without labels: row i is then under class
    i % 3, if there are so many. Other modules are returned unchanged."""
    if not isinstance(entry.spec, ModelSpec) or "conditional" not in entry.provides:
        return module
    cls: Any = type(module)
    cycle = label_cycle(data)

    def view_for(model: Any, rows: Tensor) -> Any:
        return model.given(torch.arange(len(rows), device=rows.device) % cycle)

    class Cycle:
        """The views of a model, for a prior with as many labels as a call has rows."""

        def __init__(self, model: Any) -> None:
            self.model = model
            self.device = next(chain(model.parameters(), model.buffers())).device

        def rows(self, count: int) -> Any:
            return view_for(self.model, torch.empty(count, device=self.device))

    def prior(self: Any, *labels: Tensor) -> Any:
        return cls.prior(self, *labels) if labels else ClassPrior(Cycle(self))

    def method(name: str) -> Any:
        def call(self: Any, rows: Tensor, *labels: Tensor) -> Any:
            if labels:
                return getattr(cls, name)(self, rows, *labels)
            return getattr(view_for(self, rows), name)(rows)

        return call

    names = [name for name in ("encode", "decode", "decode_logits") if hasattr(cls, name)]
    methods = {name: method(name) for name in names}
    if hasattr(cls, "prior"):
        methods["prior"] = prior
    module.__class__ = type(cls.__name__, (cls,), {"__module__": cls.__module__, **methods})
    return module


def condition_for(subject: Subject, *runs: RunFolder) -> int | None:
    """The class that an explorer is given for these runs: 0 if a model is conditional and the
    explorer does not choose labels itself, otherwise None."""
    if subject.entry.spec.conditional:
        return None
    configs = [resolve_stored_config(subject.forge.registry, run) for run in runs]
    return 0 if any("conditional" in config.model.entry.provides for config in configs) else None
