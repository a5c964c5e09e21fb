"""Model `cnn-classifier`: three small convolutions, 99 % accuracy on MNIST, 7,178 parameters."""

from latentforge import DataSpec, ModelSpec, hookimpl

from .config import CnnClassifierConfig


def build(config: CnnClassifierConfig, data: DataSpec):
    from .model import CnnClassifier

    return CnnClassifier(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="cnn-classifier",
        summary="Small convolutional classifier for images of any size",
        build=build,
        config=CnnClassifierConfig,
        provides={"classify", "layers"},
        default_loss="cross-entropy",
        train={"lr": 3e-3},
    )
