"""A differentiable simulator in the place of a decoder: with which velocity must a probe start,
among bodies that attract it, to be at a given place at a given time? No images, no run."""

from dataclasses import dataclass

from latentforge import ObjectiveSpec, Positive, hookimpl

Point = tuple[float, float]


@dataclass(frozen=True)
class ArriveConfig:
    """`targets` are where the probe shall be, `tolerance` how near to one is enough."""

    targets: tuple[Point, ...] = ((3.0, 0.0), (-2.0, 2.0), (0.0, -3.0))
    tolerance: Positive = 0.01


def build(config, context):
    from .objective import Arrive

    return Arrive(config)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="arrive",
        summary="Be at these places when the simulation ends",
        build=build,
        config=ArriveConfig,
    )
