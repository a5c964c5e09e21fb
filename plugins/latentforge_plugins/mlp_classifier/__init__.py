"""Model `mlp-classifier`: a few linear layers from pixels to classes."""

from latentforge import DataSpec, ModelSpec, hookimpl

from .config import MlpClassifierConfig


def build(config: MlpClassifierConfig, data: DataSpec):
    from .model import MlpClassifier

    return MlpClassifier(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="mlp-classifier",
        summary="MLP classifier for images or vectors of any size",
        build=build,
        config=MlpClassifierConfig,
        provides={"classify", "layers"},
        default_loss="cross-entropy",
    )
