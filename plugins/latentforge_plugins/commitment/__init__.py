"""The loss `commitment`, for models with a learnt codebook."""

from collections.abc import Set

from latentforge import DataSpec, LossSpec, hookimpl
from latentforge_plugins import reconstruction

from .config import CommitmentConfig


def needs(config: CommitmentConfig) -> Set[str]:
    return {*reconstruction.needs(config), "commitment"}


def build_loss(config: CommitmentConfig, data: DataSpec):
    from .loss import Commitment

    return Commitment(config, data)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="commitment",
        summary="-log p(x|z) and the distance of codes from their entries, per image",
        build=build_loss,
        config=CommitmentConfig,
        needs=needs,
        ranges=reconstruction.ranges,
    )
