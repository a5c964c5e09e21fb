"""A latent search with a differentiable simulator instead of a decoder, without images or a run. It
finds the initial velocity with which a probe reaches a given position at a given time."""

from dataclasses import dataclass

from latentforge import ObjectiveSpec, Positive, hookimpl

Point = tuple[float, float]


@dataclass(frozen=True)
class ArriveConfig:
    """`targets` are the positions to reach; `tolerance` is the distance that is close enough."""

    targets: tuple[Point, ...] = ((3.0, 0.0), (-2.0, 2.0), (0.0, -3.0))
    tolerance: Positive = 0.01


def build(config, context):
    from .objective import Arrive

    return Arrive(config)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="arrive",
        summary="Arrive at given positions at the end of the simulation",
        build=build,
        config=ArriveConfig,
    )
