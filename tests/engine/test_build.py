"""Modules that cannot be trained are refused when they are built."""

from __future__ import annotations

import pytest
import torch
from latentforge_plugins.autoencoder import build as build_autoencoder
from latentforge_plugins.autoencoder.config import AutoencoderConfig
from torch import nn

from latentforge import Forge, LossSpec, ModelSpec
from latentforge.contracts import Terms
from latentforge.errors import PluginError

from ..plugin import plugin_of


class MeanLoss(nn.Module):
    """The mean of a linear layer over the pixels."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, model, batch, step):
        recon = model.decode(model.encode(batch.x).mode())
        return Terms({"mean": self.layer(recon.flatten(1)).square().mean()})


def lazy_loss(config, data):
    return MeanLoss(nn.LazyLinear(1))


def initialized_loss(config, data):
    loss = lazy_loss(config, data)
    loss.layer(torch.zeros(1, *data.shape).flatten(1))
    return loss


def lazy_model(config, data):
    model = build_autoencoder(AutoencoderConfig(hidden=[8], latent_dim=2), data)
    model.norm = nn.LazyBatchNorm1d()
    return model


@pytest.fixture
def train(work):
    how = {"summary": "s", "needs": {"encode", "decode"}}
    losses = [
        LossSpec(name="lazy", build=lazy_loss, **how),
        LossSpec(name="initialized", build=initialized_loss, **how),
    ]
    provides = {"encode", "decode", "decode_logits"}
    model = ModelSpec(
        name="lazy",
        summary="s",
        build=lazy_model,
        provides=provides,
        default_loss="reconstruction",
    )
    forge = Forge([plugin_of(model, *losses)])

    def train(model, **how):
        options = {"hidden": [8]} if model == "ae" else None
        train = {"epochs": 1}
        return forge.train(model, data="digits", model=options, train=train, quiet=True, **how)

    return train


@pytest.mark.parametrize(
    ("model", "loss", "names"),
    [("ae", "lazy", "layer.weight, layer.bias"), ("lazy", None, "norm.weight, norm.bias, norm.ru")],
)
def test_lazy_layers_without_sizes_are_the_fault_of_the_component(train, model, loss, names):
    with pytest.raises(PluginError) as caught:
        train(model, loss=loss)
    kind = "loss" if loss else "model"
    expected = f"{kind} 'lazy' has lazy layers that `build` does not initialize: {names}"
    assert caught.value.message.startswith(expected)
    assert "torch.zeros(1, *data.shape)" in caught.value.hint
    assert caught.value.exit_code == 3


def test_lazy_layers_that_build_initializes_are_trained(train):
    assert train("ae", loss="initialized").status == "done"
