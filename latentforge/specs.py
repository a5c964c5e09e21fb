"""Specs, which hooks yield: a frozen dataclass for each kind of component. Standard library only.

A spec is data. Its `build` (or `load`) is called when a run needs the component; put heavy imports
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from latentforge.contracts import (
        Arrays,
        Callback,
        DataSpec,
        EvaluateContext,
        ExploreContext,
        Measure,
        Objective,
    )
    from latentforge.findings import Findings

PLUGIN_API = 2
"""The version of the plugin contract; a plugin may declare it as `LATENTFORGE_API`."""

SUPPORTED_API = (1, PLUGIN_API)
"""The versions whose plugins load. docs/plugins.md lists the differences."""


@dataclass(frozen=True)
class NoOptions:
    """The config of a component without options."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The fields common to all kinds: `name` is what users type, `summary` the line that `list`
    shows, `config` a frozen dataclass with a default for every field. Where there is one, `ranges`
    names the ranges of data (contracts.RANGES) that the component supports, as a set or as a
    function of the config. None means all, and for a model that decodes only "unit"."""

    name: str
    summary: str
    config: type[Any] = NoOptions

    def __post_init__(self) -> None:
        for key in ("provides", "needs", "ranges"):
            value = getattr(self, key, None)
            if isinstance(value, Set):  # authors write {"encode"}; a spec must be immutable
                object.__setattr__(self, key, frozenset(value))


def with_implied(provides: Set[str]) -> frozenset[str]:
    """Return the capabilities of a model together with those that they imply: a KL in closed form
    implies a prior, the ELBO can be estimated if log q(z | x) and the prior are known, and images
    can be generated if codes can be drawn, from the prior or from those of images, and decoded."""
    found = {*provides, *({"prior"} if "kl" in provides else ())}
    has_bound = "kl" in found or {"prior", "log_prob"} <= found
    has_codes = "decode" in found and found & {"encode", "prior"}
    implied = {"variational": has_bound, "generate": has_codes}
    return frozenset({*found, *(name for name, is_implied in implied.items() if is_implied)})


class Role(frozenset[str]):
    """The capabilities that the run of a role must provide, with conditions on the run.

    `same_data`: it must have been trained on data of the same shape, classes and preprocessing.
    `standardize`: in a training, its codes have mean 0 and standard deviation 1 over the training
    data, for each channel of a spatial code and for each dimension of another one.
    """

    same_data: bool
    standardize: bool

    def __new__(
        cls, needs: Iterable[str] = (), *, same_data: bool = True, standardize: bool = False
    ) -> Role:
        role = super().__new__(cls, needs)
        role.same_data, role.standardize = same_data, standardize
        return role


def as_role(needs: Set[str]) -> Role:
    """Return the capabilities of a role, which authors may write as a set, as a Role."""
    return needs if isinstance(needs, Role) else Role(needs)


Roles = Mapping[str, Set[str]]
"""The other runs that a component uses: the capabilities or the `Role` of each, by role."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A network. `provides` names its capabilities: encode, decode, decode_logits, prior, kl,
    log_prob, diagonal_gaussian, conditional, classify, layers (docs/contracts.md defines them), or
    a plugin's own. If they depend on the options, it is a function of the config. `train` are its
    defaults of the section [train], such as {"lr": 2e-3}. `example` is data that it
    supports, for the conformance checks of a model that supports only some data.

    `roles` are other runs that the model uses (`train --with ROLE=RUN`); `build` then receives a
    third argument, which maps each role to its run, an `OtherRun`.

    `inference` is the class of its inference options, the section [sampler]: a frozen dataclass
    like `config`. The core sets `model.sampler` to an instance after `build`. They may be changed
    without a new training, so weights and buffers must not depend on them."""

    build: Callable[..., nn.Module]  # (config, DataSpec), and roles if there are any
    provides: Set[str] | Callable[[Any], Set[str]]
    default_loss: str
    train: Mapping[str, Any] = field(default_factory=dict)
    roles: Roles | None = None
    ranges: Set[str] | Callable[[Any], Set[str]] | None = None
    example: DataSpec | None = None
    inference: type[Any] | None = None

    def capabilities(self, options: Any = None) -> frozenset[str]:
        """The capabilities with `options`, by default those of the defaults, with implied ones."""
        provides = self.provides
        if callable(provides):
            provides = provides(self.config() if options is None else options)
        return with_implied(provides)


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """A training objective in nats per image. `needs` are capabilities of the model, as a set or,
    if they depend on the options, as a function of the config. `roles` as in ModelSpec."""

    build: Callable[..., nn.Module]  # (config, DataSpec), and roles if there are any
    needs: Set[str] | Callable[[Any], Set[str]] = frozenset()
    labels: bool = False  # whether it reads batch.y
    factors: bool = False  # whether it reads batch.factors
    roles: Roles | None = None
    ranges: Set[str] | Callable[[Any], Set[str]] | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset. `load(config, split)` returns `Arrays` or a map-style dataset of `(x, y)`.

    `splits` are the official splits, or a function of the options that returns them; if there is no
    "test", the core splits it off from "train".
    `fetch(config)` downloads the files and returns their folder. With `roles`, which are as in
    ModelSpec, `load` receives a third argument, and the function `splits` a second one.
    """

    load: Callable[..., Arrays | Dataset[Any]]  # (config, split), and roles if there are any
    splits: tuple[str, ...] | Callable[..., tuple[str, ...]] = ("train", "test")
    fetch: Callable[[Any], Path] | None = None
    roles: Roles | None = None


@dataclass(frozen=True, kw_only=True)
class ExplorerSpec(Spec):
    """An explorer of a latent space. `roles` maps each other run that it requires
    (`--with classifier=RUN`) to the capabilities that the run's model must provide; the runs in
    `optional_roles` may be omitted.

    For an explorer that searches, `searches` is the name of its default objective. `--set
    objective=NAME` selects another one. Options of the objective are set like the explorer's own.

    A `conditional` explorer explores a conditional model also without a class (`condition`). Then
    `context.model` is the model itself, and the explorer calls `context.model.given(y)`.
    """

    explore: Callable[[ExploreContext, Any], Findings]
    needs: Set[str] = frozenset()
    labels: bool = False  # whether it reads y
    factors: bool = False  # whether it reads factors
    roles: Roles | None = None
    optional_roles: Roles | None = None
    searches: str | None = None
    ranges: Set[str] | Callable[[Any], Set[str]] | None = None
    conditional: bool = False


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """What a latent search maximises. `labels`, `roles` and `optional_roles` mean the same
    as in ExplorerSpec. The context is None if a search has no run. `example` describes the x that
    it scores, for the conformance checks of an objective that does not score images."""

    build: Callable[[Any, ExploreContext | None], Objective]
    labels: bool = False
    roles: Roles | None = None
    optional_roles: Roles | None = None
    ranges: Set[str] | Callable[[Any], Set[str]] | None = None
    example: DataSpec | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureSpec(Spec):
    """A metric of a trained model. `protocol` is the sentence that defines the metric: its unit,
    what it sums over, which z. If the definition depends on options, the measure object has its own
    attribute `protocol`, which takes precedence. A `default` measure without `roles` (see
    ExplorerSpec) runs for every model that provides its `needs`. `better` is the direction for
    early stopping. With `likelihood`, it does not run for a loss that declares no likelihood."""

    build: Callable[[Any, EvaluateContext], Measure]
    protocol: str
    needs: Set[str] = frozenset()
    labels: bool = False  # whether it reads y
    factors: bool = False  # whether it reads factors
    likelihood: bool = False  # whether it reads the likelihood of the loss
    default: bool = True
    better: Literal["lower", "higher"] = "lower"
    roles: Roles | None = None
    ranges: Set[str] | Callable[[Any], Set[str]] | None = None


@dataclass(frozen=True, kw_only=True)
class CallbackSpec(Spec):
    """A training callback: `build(config).attach(engines)` adds handlers of Ignite events."""

    build: Callable[[Any], Callback]


@dataclass(frozen=True, kw_only=True)
class PresetSpec(Spec):
    """A named config file inside a package."""

    path: Path


@dataclass(frozen=True)
class Kind:
    """A kind of component: its plural and singular names, and the spec type of its hook."""

    plural: str
    singular: str
    spec: type[Spec]

    @property
    def hook(self) -> str:
        return f"latentforge_{self.plural}"


_SECTION = {"name"}
_EXPLORE = {"explorer", "run", "checkpoint", "roles", "out", "assignments", "device", "data"}
_EXPLORE |= {"preset", "quiet", "objective", "condition", "sampler"}
RESERVED: dict[type[Spec], Set[str]] = {
    ModelSpec: _SECTION,
    LossSpec: _SECTION,
    CallbackSpec: _SECTION,
    DatasetSpec: _SECTION
    | {"validation", "test", "split_seed", "binarize", "stream", "workers"}
    | {"layout", "black", "white", "range", "normalize"},
    ExplorerSpec: _EXPLORE,
    ObjectiveSpec: _EXPLORE,
}
"""Option names that the core uses: a component's option of such a name would never be set."""

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
