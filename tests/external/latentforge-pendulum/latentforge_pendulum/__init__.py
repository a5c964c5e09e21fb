from dataclasses import dataclass

from latentforge import DatasetSpec, DataSpec, ObjectiveSpec, Positive, Size, hookimpl

LATENTFORGE_API = 2


@dataclass(frozen=True)
class StrobeConfig:
    """`images` is the number of images."""

    images: Size = 2000


@dataclass(frozen=True)
class SwingConfig:
    """The pendulum is to be at each of `angles`, in degrees, `after` seconds, within `tolerance`
    degrees."""

    angles: tuple[float, ...] = (-60.0, -30.0, 0.0, 30.0, 60.0)
    after: Positive = 1.0
    tolerance: Positive = 3.0


def load(config, split):
    from .strobe import load

    return load(config)


def build(config, context):
    from .swing import Swing

    return Swing(config, context)


@hookimpl
def latentforge_datasets():
    yield DatasetSpec(
        name="pendulum",
        summary="A swinging pendulum under three coloured flashes, 24x24",
        load=load,
        config=StrobeConfig,
        splits=("train",),
    )


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="swing",
        summary="Pictures of a pendulum that will swing to a given angle",
        build=build,
        config=SwingConfig,
        ranges={"unit"},
        example=DataSpec((3, 24, 24)),
    )
