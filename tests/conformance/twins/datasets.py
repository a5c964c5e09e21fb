"""Good arrays, and twins of them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch

from latentforge import Arrays, DatasetSpec

from .common import GoodConfig, meddle


def good_arrays(config, split):
    draw = np.random.default_rng({"train": 0, "test": 1}[split])
    return Arrays(draw.random((40, 8, 8), np.float32), np.arange(40) % 2, ("even", "odd"))


def dataset(load=good_arrays, **changes):
    spec = {"name": "good", "summary": "Noise", "load": load, "config": GoodConfig}
    return DatasetSpec(**{**spec, **changes})


def flat_arrays(config, split):
    return Arrays(np.zeros((40, 8, 8), np.float32), np.arange(40) % 2, ("even", "odd"))


def no_train(config, split):
    return good_arrays(config, "train")


def far_labels(config, split):
    return Arrays(good_arrays(config, split).x, np.arange(40) % 5, ("even", "odd"))


def anew(config, split):
    return Arrays(torch.rand(40, 8, 8), np.arange(40) % 2, ("even", "odd"))


def short_factor(config, split):
    return replace(good_arrays(config, split), factors={"size": np.arange(39)})


def unlike_factors(config, split):
    name = {"train": "size", "test": "length"}[split]
    return replace(good_arrays(config, split), factors={name: np.arange(40)})


def factor_anew(config, split):
    return replace(good_arrays(config, split), factors={"size": torch.rand(40)})


def meddling_load(config, split):
    meddle()
    return good_arrays(config, split)


def seeding(seed):
    def load(config, split):
        seed(0)
        return good_arrays(config, split)

    return load


def bright_arrays(config, split):
    found = good_arrays(config, split)
    return Arrays(255 * found.x, found.y, found.classes)  # float32


def a_list(config, split):
    return [[0.0, 1.0]]


DATASETS = {
    "every capability is known": [dataset(roles={"autoencoder": {"encod"}})],
    "it loads as images or vectors": [
        dataset(flat_arrays),
        dataset(far_labels),
        dataset(bright_arrays),
        dataset(a_list),
        dataset(no_train, splits=("test",)),
        dataset(short_factor),
        dataset(unlike_factors),
    ],
    "two loads give the same data": [dataset(anew), dataset(factor_anew)],
    "global state is unchanged": [
        dataset(meddling_load),
        dataset(seeding(random.seed)),
        dataset(seeding(np.random.seed)),
    ],
}
