"""Runs, as plugins see them, and other runs in a role: RunInfo and OtherRun."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from latentforge.contracts.data import Batch, DataSpec, Images

if TYPE_CHECKING:
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
