"""The objective `class`: the log-probability of a class under a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge_plugins.objectives import CachedCall
from latentforge_plugins.walks import title_role

from .config import ClassConfig


class ClassObjective:
    """The score is log p(class | x) in nats. A request is satisfied if p(class | x) >= threshold.
    This is activation maximisation (Erhan et al. 2009) through a decoder (Nguyen et al. 2016). The
    classes come from the classifier's training data, not from this run's images."""

    def __init__(self, config: ClassConfig, context: ExploreContext) -> None:
        classifier: Any = context.roles["classifier"]
        names = classifier.data.classes
        if config.target is not None and config.target >= len(names):
            raise UsageError(
                f"no class {config.target}: the {title_role('classifier', classifier)} has "
                f"{counted(len(names), 'class')}",
                details=[f"classes: {list_classes(names)}"],
                hint=f"--set target=0, or another class up to {len(names) - 1}; "
                "omit target for all classes in turn",
            )
        target = config.target
        if target is None and context.condition in range(len(names)):
            target = context.condition  # the decoder draws no other class
        labels = range(len(names)) if target is None else [target]
        requested = [labels[i % len(labels)] for i in range(config.n)]
        self.threshold = config.threshold
        self.requests = [f"a {names[label]}" for label in requested]
        self.classes = torch.tensor(requested, device=context.device)  # int64 (n,)
        self.log_probs = CachedCall(lambda x: classifier.model(x).log_softmax(1))  # (B, classes)

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        return self._select_requested(self.log_probs.evaluate(x), request)

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return self._select_requested(self.log_probs.reuse(x), request).exp() >= self.threshold

    def _select_requested(self, log_probs: Tensor, request: Tensor) -> Tensor:
        return log_probs.gather(1, self.classes[request][:, None]).squeeze(1)  # (B,)


def list_classes(names: Sequence[str]) -> str:
    """List the classes as in `0 (cat), 1 (dog)`. A name that equals the number is omitted."""
    numbered = enumerate(names)
    return ", ".join(name if name == str(i) else f"{i} ({name})" for i, name in numbered)
