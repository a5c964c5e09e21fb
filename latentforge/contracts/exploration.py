"""Exploration: runs, other runs in a role, what an explorer receives, and objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from latentforge.contracts.data import Batch, DataSpec, Images, at_once
from latentforge.contracts.views import given

if TYPE_CHECKING:
    import torch
    from ignite.engine import Engine
    from torch import Tensor


class RunInfo(Protocol):
    """The part of a run that plugins can read. `status`: running, done, interrupted, failed or
    killed. `metrics`: the last metrics of each split. `config`: the resolved config, structured
    like the TOML file."""

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def metrics(self) -> dict[str, dict[str, float]]: ...
    @property
    def config(self) -> dict[str, Any]: ...


class OtherRun(Protocol):
    """Another run, given by role (`--with ROLE=RUN`). Its model is frozen: it is in evaluation
    mode, and its weights have no gradient. Keep this object, and not its `model`, as an attribute
    of an `nn.Module`: otherwise the weights would become a part of that module.

    `model`, `loss` and `data` are those of the run, `provides` are the capabilities of the model,
    and `checkpoint` is the name of the checkpoint that the weights come from. If the role asks for
    standardized codes, `codes`, `encode`, `decode` and `decode_logits` use codes with mean 0 and
    deviation 1; `model` always uses its own codes.
    """

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Any: ...
    @property
    def provides(self) -> Set[str]: ...
    @property
    def loss(self) -> Any: ...
    @property
    def data(self) -> DataSpec: ...
    @property
    def run(self) -> RunInfo: ...
    @property
    def checkpoint(self) -> str: ...

    def images(self, split: str) -> Images:
        """One split of the data of the run that uses this one if it was trained on the same data,
        or else of its own data. Raises MissingError if its own data cannot be loaded."""

    def codes(self, split: str, *, sample: bool = False) -> Tensor:
        """The codes of all examples of a split in order, (N, *latent.shape), on the device: the
        modes of the posteriors, or one sample of each. Modes are computed once."""

    def encode(self, batch: Batch, *, sample: bool = False) -> Tensor:
        """The codes of a batch, (B, *latent.shape): modes, or samples from the default generator.
        The posteriors of a split are computed once if they fit into the memory of the device."""

    def decode(self, z: Tensor) -> Tensor:
        """Map codes (B, *latent.shape) to the mean of x, (B, *data.shape), differentiable in z."""

    def decode_logits(self, z: Tensor) -> Tensor:
        """Map codes to the logits of `decode(z)`, (B, *data.shape)."""


class Objective(Protocol):
    """What a latent search maximises. One objective defines `len(requests)` requests. Row i of `x`
    is an attempt at request `request[i]`, so a search can restart some requests and drop others.

    Optional attributes: `classes`, int64 (requests,), is the target class of each request, so that
    a search can start from other classes and a judge can check the results; `findings(x)` returns
    `Findings` about the results x (requests, *data.shape); `open_ended = True` means that the
    objective is never satisfied, so that the search runs to the last step.
    """

    @property
    def requests(self) -> Sequence[str]:
        """A description of each request; may also be a plain attribute."""

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        """How well each row satisfies its request: (B,), differentiable, higher is better."""

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        """Return which rows satisfy their request: bool (B,)."""


@dataclass(frozen=True)
class ExploreContext:
    """What an explorer works with: the model in evaluation mode on `device`, the run's preprocessed
    images, and other runs by role. An explorer returns findings and writes no file.

    `name` is the name of the run, `loss` the loss that it was trained with, `provides` the
    capabilities of its model. `preprocessing` describes how stored values became images. If the
    explorer searches, `objective` is set, and passing `attach` to the search shows its progress.

    `condition` is the number of a class, or None. If it is set, a conditional model is a view under
    that class and no longer provides `conditional`, and `images` contains only images of the class.
    """

    model: Any
    data: DataSpec
    images: Callable[[str], Images]  # returns a split by name
    device: torch.device
    seed: int
    roles: Mapping[str, OtherRun] = field(default_factory=dict)
    name: str = ""
    loss: Any = None
    provides: Set[str] = frozenset()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    objective: Any = None
    attach: Callable[[Engine], None] | None = None
    condition: int | None = None

    def codes(self, split: str, model: Any = None) -> Tensor:
        """The posterior modes of all images of a split, (N, *latent.shape), in the order of the
        split, under their own labels if the model is conditional. `model` may be the model of
        another run."""
        import torch

        own = model is None or model is self.model
        encoder, provides = (self.model, self.provides) if own else (model, frozenset())
        size = at_once(self.data, 1000)
        with torch.no_grad():
            views = ((b, given(encoder, b.y, provides)) for b in self.images(split).batches(size))
            return torch.cat([view.encode(batch.x).mode() for batch, view in views])
