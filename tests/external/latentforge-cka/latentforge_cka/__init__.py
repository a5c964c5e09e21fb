from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from latentforge import ExplorerSpec, hookimpl

LATENTFORGE_API = 2


@dataclass(frozen=True)
class CkaConfig:
    """The first `images` images of a `split` are compared."""

    images: Annotated[int, Ge(3)] = 500
    split: Literal["train", "validation", "test"] = "test"


def explore(context, config):
    from .alignment import explore

    return explore(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="cka",
        summary="Similarity of the codes and layers of two runs",
        explore=explore,
        config=CkaConfig,
        roles={"other": set()},
    )
