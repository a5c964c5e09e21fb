"""Views of conditional models, which the core makes; `latentforge.latent` exports them. A view has
the methods of a model without labels, so that losses, measures and explorers do not pass labels."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TRUE_LABELS = "codes computed under the true labels, which they may contain"
"""Qualifies how well the codes of a conditional model predict labels."""


class View:
    """A conditional model under given labels. Attributes that a view does not have are the model's,
    and calling it calls the model."""

    model: Any

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # of a copy, which has no attributes yet
            raise AttributeError(name)
        return getattr(self.model, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.model(*args, **options)


class Given(View):
    """A conditional model under the labels `y`, int64 (B,): row i of each call is under y[i].

    It calls `encode(x, y)`, `decode(z, y)`, `decode_logits(z, y)` and `prior(y)` of the model.
    Raises ValueError for a call with another number of rows; see `select_rows`.
    """

    def __init__(self, model: Any, y: Tensor) -> None:
        self.model, self.y = model, y

    def encode(self, x: Tensor) -> Any:
        return self.model.encode(x, self._labels(x))

    def decode(self, z: Tensor) -> Any:
        return self.model.decode(z, self._labels(z))

    def decode_logits(self, z: Tensor) -> Any:
        return self.model.decode_logits(z, self._labels(z))

    def prior(self) -> Any:
        """The prior p(z | y), whose row i is under y[i]."""
        return self.model.prior(self.y)

    def _labels(self, rows: Tensor) -> Tensor:
        if rows.shape[0] != self.y.shape[0]:  # len() would fix the batch size of an ONNX graph
            raise ValueError(
                f"{len(rows)} rows for {len(self.y)} labels; for some rows of a batch, or for "
                "copies of them, use latentforge.latent.select_rows(model, index)"
            )
        return self.y


class GivenClass(View):
    """A conditional model under one class, for a batch of any size: an unconditional model of that
    class. `label` is its number, int64 () on the device of the model."""

    def __init__(self, model: Any, label: Tensor) -> None:
        self.model, self.label = model, label

    def rows(self, count: int) -> Any:
        """The view `model.given(y)` with `count` labels."""
        return self.model.given(self.label.repeat(count))

    def encode(self, x: Tensor) -> Any:
        return self.rows(len(x)).encode(x)

    def decode(self, z: Tensor) -> Any:
        return self.rows(len(z)).decode(z)

    def decode_logits(self, z: Tensor) -> Any:
        return self.rows(len(z)).decode_logits(z)

    def prior(self) -> ClassPrior:
        return ClassPrior(self)


class ClassPrior:
    """The prior p(z | y) of a `view` such as a GivenClass, for any number of codes. It has `kl` if
    the prior of the model has it."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z | y) in nats: (B, *latent.shape) to (B,)."""
        log_prob: Tensor = self.view.rows(len(z)).prior().log_prob(z)
        return log_prob

    def sample(self, n: int) -> Tensor:
        """Sample n codes, (n, *latent.shape)."""
        codes: Tensor = self.view.rows(n).prior().sample(n)
        return codes

    @property
    def kl(self) -> Callable[[Any], Tensor]:
        """A function of a posterior that returns KL(q(z|x) || p(z | y)) in nats of each latent
        dimension, (B, *latent.shape)."""
        if getattr(self.view.rows(1).prior(), "kl", None) is None:
            raise AttributeError("kl")

        def kl(posterior: Any) -> Tensor:
            terms: Tensor = self.view.rows(len(posterior.mode())).prior().kl(posterior)
            return terms

        return kl


def given(model: Any, y: Tensor | None, provides: Set[str]) -> Any:
    """Return the view of a conditional model under the labels `y`, int64 (B,). A model that does
    not provide `conditional` is returned unchanged."""
    return model.given(y) if "conditional" in provides else model


def select_rows(model: Any, index: Tensor | slice) -> Any:
    """Return the view for the rows `index` of a batch, int64 (n,) or bool (B,): some of them, or
    several copies of each. A model without a label for each row is returned unchanged."""
    return model.model.given(model.y[index]) if isinstance(model, Given) else model
