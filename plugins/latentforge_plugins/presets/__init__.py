"""Presets: config files with a name, `latentforge train --preset NAME`."""

from __future__ import annotations

from pathlib import Path

from latentforge import PresetSpec, hookimpl

SUMMARIES = {
    "vanilla-ae": "784-128-16-128-784 autoencoder on MNIST, 10 epochs",
    "diffusion-series-cnn": "Small CNN classifier on MNIST, 100 epochs, 99.1 %",
}


@hookimpl
def latentforge_presets():
    for name, summary in SUMMARIES.items():
        yield PresetSpec(name=name, summary=summary, path=Path(__file__).with_name(f"{name}.toml"))
