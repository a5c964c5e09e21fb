from dataclasses import dataclass

from latentforge import (
    DatasetSpec,
    ExplorerSpec,
    LossSpec,
    MeasureSpec,
    ModelSpec,
    NonNegative,
    Role,
    Size,
    hookimpl,
)

LATENTFORGE_API = 2
CLASSIFIER = Role({"classify", "layers"}, same_data=False)


@dataclass(frozen=True)
class SparseAutoencoderConfig:
    """`features` is the number of features, usually several times the number of units."""

    features: Size = 128


@dataclass(frozen=True)
class SparseLossConfig:
    """`sparsity` weighs the sum of the features."""

    sparsity: NonNegative = 0.5


@dataclass(frozen=True)
class HiddenUnitsConfig:
    """`layer` is a name from the classifier's layers(), by default the last one."""

    layer: str = ""


@dataclass(frozen=True)
class TopExamplesConfig:
    """Shows the `examples` of the `split` with the largest values of each of those `features` that
    are active most often.
    """

    features: Size = 10
    examples: Size = 10
    split: str = "test"


def build_model(config, data):
    from .parts import SparseAutoencoder

    return SparseAutoencoder(config, data)


def build_loss(config, data):
    from .parts import SparseLoss

    return SparseLoss(config)


def build_measure(config, context):
    from .parts import Sparsity

    return Sparsity()


def load(config, split, roles):
    from .units import hidden_units

    return hidden_units(config.layer, split, roles["classifier"])


def explore(context, config):
    from .parts import top_examples

    return top_examples(context, config)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="sparse-autoencoder",
        summary="Vectors as sums of few of many features",
        build=build_model,
        config=SparseAutoencoderConfig,
        provides={"encode", "decode"},
        ranges={"any"},
        default_loss="sparse-reconstruction",
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="sparse-reconstruction",
        summary="-log p(x|z) of a Gaussian, and the sum of the features",
        build=build_loss,
        config=SparseLossConfig,
        needs={"encode", "decode"},
        ranges={"any"},
    )


@hookimpl
def latentforge_datasets():
    yield DatasetSpec(
        name="hidden-units",
        summary="The units of a layer of a classifier, scaled, for the images of its run",
        load=load,
        config=HiddenUnitsConfig,
        splits=lambda config, roles: tuple(roles["classifier"].run.manifest["data"]["images"]),
        roles={"classifier": CLASSIFIER},
    )


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="sparsity",
        summary="Active features of an example, dead features and explained variance",
        build=build_measure,
        protocol="sparsity: features above 0, mean over examples; dead_features: share of the "
        "features that are 0 for the whole split; explained_variance: 1 - squared error / variance",
        needs={"encode", "decode"},
        ranges={"any"},
        default=False,
    )


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="top-examples",
        summary="The images that activate features most",
        explore=explore,
        config=TopExamplesConfig,
        needs={"encode"},
        roles={"classifier": CLASSIFIER},
    )
