"""What hooks return: one frozen dataclass for each kind of component. Standard library only.

A spec is data. Its `build` (or `load`) is called when a run needs the component, and is the place
for the heavy imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentforge.contracts import DataSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from latentforge.contracts import (
        Arrays,
        Callback,
        EvaluateContext,
        ExploreContext,
        Measure,
        Objective,
    )
    from latentforge.findings import Findings

PLUGIN_API = 1
"""The version of the contract with plugins; a plugin may state it as `LATENTFORGE_API`."""


@dataclass(frozen=True)
class NoOptions:
    """The config of a component that has none."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Common to all kinds: `name` is what users type, `summary` the line that `list` shows,
    `config` a frozen dataclass with a default for every field."""

    name: str
    summary: str
    config: type[Any] = NoOptions

    def __post_init__(self) -> None:
        for key in ("provides", "needs"):
            value = getattr(self, key, None)
            if isinstance(value, Set):  # authors write {"encode"}; a spec must not change
                object.__setattr__(self, key, frozenset(value))


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A network. `provides` names its abilities: encode, decode, decode_logits, kl, log_prob,
    classify, layers (docs/contracts.md says what each promises; a plugin may add its own words)."""

    build: Callable[[Any, DataSpec], nn.Module]
    provides: Set[str]
    default_loss: str


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """A training objective in nats per image. `needs` are abilities of the model, as a set or,
    where they depend on the options, as a function of the config."""

    build: Callable[[Any, DataSpec], nn.Module]
    needs: Set[str] | Callable[[Any], Set[str]] = frozenset()
    labels: bool = False  # whether it reads batch.y


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A source of examples. `load(config, split)` gives arrays or a map-style dataset of `(x, y)`.

    `splits` are the official ones; where there is no "test", the core cuts one from "train".
    `fetch(config)` downloads the files and returns the folder that holds them.
    """

    load: Callable[[Any, str], Arrays | Dataset[Any]]
    splits: tuple[str, ...] = ("train", "test")
    fetch: Callable[[Any], Path] | None = None


@dataclass(frozen=True, kw_only=True)
class ExplorerSpec(Spec):
    """A way to look at a latent space. `roles` are the other runs that it takes
    (`--with classifier=RUN`) and what each must provide; `optional_roles` may be left out.

    One that `searches` names the objective that it takes by default; `--set objective=NAME` chooses
    another, and the objective's options are written beside the explorer's own.
    """

    explore: Callable[[ExploreContext, Any], Findings]
    needs: Set[str] = frozenset()
    labels: bool = False  # whether it reads y
    roles: Mapping[str, Set[str]] | None = None
    optional_roles: Mapping[str, Set[str]] | None = None
    searches: str | None = None


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """What a latent search maximises. `labels`, `roles` and `optional_roles` as an explorer's.
    The context is None where a search is made without a run."""

    build: Callable[[Any, ExploreContext | None], Objective]
    labels: bool = False
    roles: Mapping[str, Set[str]] | None = None
    optional_roles: Mapping[str, Set[str]] | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureSpec(Spec):
    """A figure of a trained model. `protocol` is the sentence that stands beside the figure: its
    unit, what it sums over, which z; a measure's own attribute `protocol` replaces it where it
    depends on options. A `default` one without `roles` (as an explorer's) runs for every model that
    has its needs. `better` tells early stopping which way is up."""

    build: Callable[[Any, EvaluateContext], Measure]
    protocol: str
    needs: Set[str] = frozenset()
    labels: bool = False  # whether it reads y
    default: bool = True
    better: Literal["lower", "higher"] = "lower"
    roles: Mapping[str, Set[str]] | None = None


@dataclass(frozen=True, kw_only=True)
class CallbackSpec(Spec):
    """Something done while training: `build(config).attach(engines)` on Ignite's own events."""

    build: Callable[[Any], Callback]


@dataclass(frozen=True, kw_only=True)
class PresetSpec(Spec):
    """A named config file that lies inside a package."""

    path: Path


@dataclass(frozen=True)
class Kind:
    """One sort of component: its plural, its singular, its hook and the spec type it collects."""

    plural: str
    singular: str
    spec: type[Spec]

    @property
    def hook(self) -> str:
        return f"latentforge_{self.plural}"


_SECTION = {"name"}
_EXPLORE = {"explorer", "run", "checkpoint", "roles", "out", "assignments", "device", "data"} | {
    "preset",
    "quiet",
}
RESERVED: dict[type[Spec], Set[str]] = {
    ModelSpec: _SECTION,
    LossSpec: _SECTION,
    CallbackSpec: _SECTION,
    DatasetSpec: _SECTION | {"validation", "test", "split_seed", "binarize", "stream", "workers"},
    ExplorerSpec: _EXPLORE | {"objective"},
    ObjectiveSpec: _EXPLORE | {"objective"},
}
"""Option names that the core reads itself: a component's own would never get its value."""

KINDS: dict[str, Kind] = {
    kind.plural: kind
    for kind in (
        Kind("models", "model", ModelSpec),
        Kind("losses", "loss", LossSpec),
        Kind("datasets", "dataset", DatasetSpec),
        Kind("explorers", "explorer", ExplorerSpec),
        Kind("objectives", "objective", ObjectiveSpec),
        Kind("measures", "measure", MeasureSpec),
        Kind("callbacks", "callback", CallbackSpec),
        Kind("presets", "preset", PresetSpec),
    )
}
