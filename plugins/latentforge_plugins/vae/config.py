"""Options of `vae`."""

from dataclasses import dataclass
from typing import Literal

from latentforge import Size
from latentforge_plugins.autoencoder.config import Activation, LatentActivation


@dataclass(frozen=True)
class VaeConfig:
    """`encoder` and `decoder` are layer widths in the order of the data flow, and `latent_dim` is
    the length of a code.

    `activate_last` adds an `activation` after the encoder's last layer. By default, it is added
    only if this layer is the encoder's only layer, because the encoder would otherwise be linear.
    `latent_activation` is applied to the posterior's mean. The default `activation` is elu, because
    with relu the posterior often collapses in the first epochs.

    The `prior` is N(0, I) or is learnt: flow is a RealNVP with `couplings` affine couplings, each
    with a network of two hidden layers of `coupling_width` units; vamp is a mixture of the
    posteriors of `components` learnt pseudo-inputs.
    """

    encoder: tuple[Size, ...] = (256, 128)
    decoder: tuple[Size, ...] = (128, 256)
    latent_dim: Size = 16
    activation: Activation = "elu"
    activate_last: bool | None = None
    latent_activation: LatentActivation = "none"
    prior: Literal["normal", "flow", "vamp"] = "normal"
    couplings: Size = 6
    coupling_width: Size = 64
    components: Size = 500

    def __post_init__(self) -> None:
        # an option that differs from its default was set by the user, but would have no effect
        owners = {"couplings": "flow", "coupling_width": "flow", "components": "vamp"}
        for name, owner in owners.items():
            if self.prior != owner and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} needs prior = {owner!r}")
        if self.prior == "flow" and self.latent_dim < 2:
            raise ValueError("prior = 'flow' needs a latent_dim of at least 2")
