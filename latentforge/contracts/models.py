"""Models and their codes: LatentSpec, posteriors, priors and the Autoencoder protocol."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from latentforge.contracts.views import Given


@dataclass(frozen=True)
class LatentSpec:
    """The `shape` of one code, and the prior p(z): `prior` is "normal" for N(0, I), "own" if the
    model has a method `prior()` that returns a Prior, and None for a model without a prior.
    `groups` names the parts of a flat code (D,), in order, and gives their shapes:
    {"top": (4,), "bottom": (2, 2)} for D = 8."""

    shape: tuple[int, ...]
    prior: Literal["normal", "own"] | None = None
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        sizes = {name: math.prod(shape) for name, shape in self.groups.items()}
        if self.groups and (len(self.shape) != 1 or sum(sizes.values()) != self.shape[0]):
            raise ValueError(f"groups have {sizes} values, and a code has the shape {self.shape}")
        for name, size in sizes.items():
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or size < 1:
                raise ValueError(
                    f"group {name!r} needs a name of letters, digits and _, and at least one value"
                )


class Prior(Protocol):
    """p(z), which may have parameters of the model. `latentforge.latent.prior_of(model)` returns
    the prior of any model.

    If the KL of the model's posteriors to this prior has a closed form, the prior may also have
    `kl(posterior)`, which returns KL(q(z|x) || p(z)) in nats as terms of the latent dimensions,
    (B, *latent.shape), whose sum over the dimensions is the KL."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, differentiable in z: (B, *latent.shape) to (B,)."""

    def sample(self, n: int) -> Tensor:
        """n codes from torch's default generator, (n, *latent.shape)."""


@runtime_checkable
class Posterior(Protocol):
    """q(z | x) of a batch. Exploration and encoding use `mode()`; training uses one `sample()`."""

    def mode(self) -> Tensor:
        """The most likely code, (B, *latent.shape)."""

    def sample(self) -> Tensor:
        """One differentiable sample from the device's default generator, (B, *latent.shape)."""


@runtime_checkable
class VariationalPosterior(Posterior, Protocol):
    """The posterior of a model whose prior is N(0, I) (capability `kl`)."""

    def kl(self) -> Tensor:
        """KL(q(z|x) || p(z)) in nats for each latent dimension, (B, *latent.shape)."""


class Autoencoder(Protocol):
    """A model that provides `encode`, `decode` and, for a Bernoulli likelihood, `decode_logits`."""

    latent: LatentSpec

    def encode(self, x: Tensor) -> Posterior:
        """Map x (B, *data.shape) to the posterior over codes."""

    def decode(self, z: Tensor) -> Tensor:
        """Map z (B, *latent.shape) to the mean of x, in data.range, (B, *data.shape)."""

    def decode_logits(self, z: Tensor) -> Tensor:
        """Map z to the values that `decode` maps to data.range, (B, *data.shape). For the range
        (0, 1) they are logits."""


class Conditional(Protocol):
    """A model that provides `conditional`: its methods also receive labels, as in `encode(x, y)`
    and `decode(z, y)`, and the core calls them through views."""

    latent: LatentSpec

    def given(self, y: Tensor) -> Given:
        """The view under the labels y, int64 (B,): `latentforge.latent.Given(self, y)`."""
