"""Builds the model and the loss of a configuration, and moves images to the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from latentforge.config.schema import RunConfig
from latentforge.contracts import DataSpec
from latentforge.data.splits import DataSplits
from latentforge.engine.memory_format import lay_out
from latentforge.engine.step import Trainee
from latentforge.plugins.attribution import blame
from latentforge.seeding import mix


def build_trainee(config: RunConfig, splits: DataSplits) -> Trainee:
    """Model and loss on the CPU, their weights a function of the seed."""
    torch.manual_seed(mix("init", config.train.seed))
    trainee = Trainee(*build_modules(config, splits.spec), config.train.precision)
    lay_out(trainee, config.train)
    return trainee


def build_modules(config: RunConfig, spec: DataSpec) -> tuple[nn.Module, nn.Module]:
    """The model and the loss, on the CPU."""
    with blame(f"building model {config.model.name!r}", config.model.entry):
        model = a_module(config.model.entry.spec.build(config.model.options, spec))
    with blame(f"building loss {config.loss.name!r}", config.loss.entry):
        loss = a_module(config.loss.entry.spec.build(config.loss.options, spec))
    return model, loss


def on_device(splits: DataSplits, device: torch.device) -> DataSplits:
    with blame("moving the images to the device", save_memory="--device cpu, or fewer images"):
        return splits.to(device)


def a_module(built: Any) -> nn.Module:
    if not isinstance(built, nn.Module):
        raise TypeError(f"build returned {type(built).__name__}, not an nn.Module")
    return built
