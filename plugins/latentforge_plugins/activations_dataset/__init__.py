"""Dataset `activations`: the outputs of one layer of another run, one vector for each image."""

from collections.abc import Iterable

from latentforge import Arrays, DatasetSpec, Role, hookimpl

from .config import ActivationsConfig


def load(config: ActivationsConfig, split: str, roles) -> Arrays:
    """Return vectors, float32 (N, D), and the labels of the images of the other run."""
    from .reader import read

    return read(config, split, roles["classifier"])


def splits(config: ActivationsConfig, roles) -> tuple[str, ...]:
    return tuple(roles["classifier"].run.manifest["data"]["images"])


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="activations",
        summary="Outputs of a layer of another run, a classifier, on its own images",
        load=load,
        config=ActivationsConfig,
        splits=splits,
        roles={"classifier": Role({"classify", "layers"}, same_data=False)},
    )
