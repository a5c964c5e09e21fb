"""Modules that cannot be trained are refused when they are built."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from latentforge_plugins.autoencoder import build as build_autoencoder
from latentforge_plugins.autoencoder.config import AutoencoderConfig
from torch import nn

from latentforge import DataSpec, Forge, LossSpec, ModelSpec
from latentforge.contracts import Terms
from latentforge.errors import PluginError, UsageError

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


def build_for_signals(config, data):
    if data.kind != "signal":
        raise UsageError("it supports signals", hint="another model")
    return build_autoencoder(AutoencoderConfig(hidden=[8], latent_dim=2), data)


def build_unprepared(config, data):
    assert len(data.shape) == 2
    return build_autoencoder(AutoencoderConfig(hidden=[8], latent_dim=2), data)


SIGNALS = [
    ModelSpec(
        name=name,
        summary="s",
        build=build,
        provides={"encode", "decode", "decode_logits"},
        default_loss="reconstruction",
        example=DataSpec((2, 50), "signal"),
    )
    for name, build in (("own-signals", build_for_signals), ("unprepared", build_unprepared))
]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        *(("signal-vae", shape) for shape in ((40, 2, 16), (40, 16))),
        *(("own-signals", shape) for shape in ((40, 2, 16), (40, 16))),
        ("unprepared", (40, 2, 16)),
    ],
)
def test_arrays_that_can_be_signals_are_suggested_as_such(work, cli, model, shape):
    x = np.random.default_rng(0).random(shape)
    forge = Forge([plugin_of(*SIGNALS)])
    with pytest.raises((UsageError, PluginError)) as caught:
        forge.train(model, data=x, quiet=True)
    hint = caught.value.hint
    assert hint.startswith("data={'train': x, 'layout': 'signal'}, if the examples are signals, or")
    forge.train(model, data={"train": x, "layout": "signal"}, train={"epochs": 1}, quiet=True)


def test_a_model_of_signals_suggests_both_readings_last(work, cli):
    np.savez("square.npz", x=np.random.default_rng(0).random((40, 8, 8)))
    line = ["train", "signal-vae", "--data", "arrays", "--set", "data.path=square.npz"]
    refused = cli(*line).err
    options = "--set data.layout=NCL or --set data.layout=NLC, if the examples are signals"
    assert refused.endswith(f"signals of any size, or {options}\n")
    np.savez("long.npz", x=np.random.default_rng(0).random((40, 2, 16)))
    line[-1] = "data.path=long.npz"
    hint = cli(*line).err.partition("try: ")[2]
    assert hint.startswith("--set data.layout=signal, if the examples are signals, or the model")


def test_images_are_not_suggested_as_signals(work):
    with pytest.raises(UsageError) as caught:
        Forge().train("signal-vae", data=np.zeros((40, 3, 9, 9), np.uint8), quiet=True)
    assert caught.value.hint.startswith("the model vae")
    assert "layout" not in caught.value.hint
