"""The loss `reconstruction`."""

from collections.abc import Set

from latentforge import DataSpec, LossSpec, hookimpl
from latentforge.contracts import RANGES

from .config import ReconstructionConfig


def needs(config: ReconstructionConfig) -> Set[str]:
    return {"encode", "decode_logits" if config.likelihood == "bernoulli" else "decode"}


def ranges(config: ReconstructionConfig) -> Set[str]:
    """The ranges of data on which the likelihood is defined."""
    counts = {"counts"}
    own = {"bernoulli": {"unit"}, "poisson": counts, "negative-binomial": counts}
    return own.get(config.likelihood, set(RANGES))


def build_loss(config: ReconstructionConfig, data: DataSpec):
    from .loss import Reconstruction

    return Reconstruction(config, data)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="reconstruction",
        summary="-log p(x|z) in nats per image: Bernoulli, Gaussian, Laplace or counts",
        build=build_loss,
        config=ReconstructionConfig,
        needs=needs,
        ranges=ranges,
    )
