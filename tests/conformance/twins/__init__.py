"""A good component of each kind, and for each check its twins: broken copies that fail this check.

Twins are listed under the name of the check that they fail; each overrides only what it breaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from latentforge import Size, hookimpl
from latentforge.errors import PluginError

from .callbacks import CALLBACKS, callback
from .codes import CODES
from .datasets import DATASETS, dataset
from .explorers import EXPLORERS, explorer
from .losses import LOSSES, loss
from .measures import MEASURES, measure
from .models import MODELS, model
from .objectives import OBJECTIVES, objective
from .roles import WITH_ROLES


@dataclass(frozen=True)
class BadDefault:
    """`size` has an invalid default."""

    size: Size = 0


@dataclass(frozen=True)
class Undescribed:
    """Describes none of its options."""

    size: Size = 3
    width: Size = 3
    names: list[str] = field(default_factory=list)


TWINS = {
    "models": {
        name: [*MODELS.get(name, []), *CODES.get(name, [])]
        for name in dict.fromkeys([*MODELS, *CODES])
    }
    | WITH_ROLES["models"],
    "losses": {**LOSSES, **WITH_ROLES["losses"]},
    "datasets": {**DATASETS, **WITH_ROLES["datasets"]},
    "explorers": EXPLORERS,
    "objectives": OBJECTIVES,
    "measures": MEASURES,
    "callbacks": CALLBACKS,
}
RAISES = {  # by the run itself
    ("callbacks", "it attaches and trains", 0): PluginError,
    ("measures", "it returns finite numbers with a protocol", 0): PluginError,
    ("measures", "it returns finite numbers with a protocol", 1): PluginError,
}
OPTIONS = {
    "every option has a valid default": BadDefault,
    "every option is described": Undescribed,
}
GOOD = {
    "models": model(),
    "losses": loss(),
    "datasets": dataset(),
    "explorers": explorer(),
    "objectives": objective(),
    "measures": measure(),
    "callbacks": callback(),
}


def plugin(kind, spec):
    """Return an object with one hook, which returns the spec."""

    def offer():
        return [spec]

    offer.__name__ = f"latentforge_{kind}"
    return SimpleNamespace(**{offer.__name__: hookimpl(offer)}, __name__="twin")
