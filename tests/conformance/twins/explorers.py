"""A good explorer, and twins of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from latentforge import ExplorerSpec
from latentforge.findings import Film, Findings, ImageGrid, Plane, Scatter
from latentforge.findings import NamedArrays as Numbers

from .common import GoodConfig, meddle


def good_look(context, config):
    codes = context.codes("test")
    drawn = torch.rand(config.size)
    mean = float(codes.mean())
    return Findings([Numbers("codes", {"z": codes, "drawn": drawn})], {"mean": mean}, "mean: of z")


def explorer(explore=good_look, **changes):
    spec = {"name": "good", "summary": "Codes", "explore": explore, "config": GoodConfig}
    return ExplorerSpec(**{**spec, "needs": {"encode"}, **changes})


def unexplained(context, config):
    return Findings(good_look(context, config).items, {"mean": 1.0})


def unseeded(context, config):
    draw = np.random.default_rng()
    return Findings([Numbers("drawn", {"x": torch.from_numpy(draw.random(3))})])


def leaves_files(context, config):
    Path("left-behind.txt").write_text("here")
    return good_look(context, config)


def trains_on(context, config):
    for value in context.model.parameters():
        value.add_(0.1)
    return good_look(context, config)


def needs_all_classes(context, config):
    y = context.images("test").y
    means = {f"mean-{c}": context.codes("test")[y == c].mean(0) for c in range(3)}
    if any(bool(mean.isnan().any()) for mean in means.values()):
        raise ZeroDivisionError("no images")
    return Findings([Numbers("means", means)])


def needs_two_images(context, config):
    return Findings([Numbers("pair", {"z": context.codes("test")[[0, 1]]})])


def meddling_look(context, config):
    meddle()
    return good_look(context, config)


def nothing(context, config):
    return Findings([])


def nan_metric(context, config):
    return Findings(good_look(context, config).items, {"mean": float("nan")}, "mean: of nothing")


def decodes_with_its_role(context, config):
    other = context.roles["other"].model
    return Findings([Numbers("x", {"x": other.decode(context.codes("test", other))})])


def uses_its_role_as_it_can(context, config):
    other = context.roles["other"]
    can = "encode" in other.provides
    codes = context.codes("test", other.model) if can else torch.zeros(3, 1)
    return Findings([Numbers("z", {"z": codes})])


def reads_labels(context, config):
    return Findings([Numbers("y", {"y": context.images("test").y.clone()})])


def reads_level(context, config):
    return Findings([Numbers("level", {"level": context.images("test").factors["level"].clone()})])


def shows(make):
    """Return an explorer with one finding, made from four images with values from -1 to 1."""
    x = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8)
    return explorer(lambda context, config: Findings([make(x)]))


def grid(x):
    return ImageGrid("g", "Grid", [x])


def film(x):
    return Film("f", "Film", [[grid(x)]])


def map_of(x):
    return Scatter("m", "Map", torch.rand(4, 2), images=x)


def plane(x):
    knots = Plane(x.reshape(2, 2, 1, 8, 8), (0.0, 1.0), (0.0, 1.0))
    return Scatter("m", "Map", torch.rand(4, 2), plane=knots)


def unseeded_picture(context, config):
    draw = np.random.default_rng()
    x = torch.from_numpy(draw.random((2, 1, 8, 8), np.float32))
    return Findings([ImageGrid("drawn", "Noise", [x])])


def unseeded_metric(context, config):
    items = good_look(context, config).items
    return Findings(items, {"mean": float(np.random.default_rng().random())}, "mean: of nothing")


def leaves_training_on(context, config):
    context.model.encoder.train()
    return good_look(context, config)


def freezes(context, config):
    context.model.requires_grad_(not next(context.model.parameters()).requires_grad)
    return good_look(context, config)


def trains_the_other(context, config):
    for value in context.roles["judge"].model.parameters():
        value.add_(0.1)
    return good_look(context, config)


EXPLORERS = {
    "it returns findings": [explorer(nothing), explorer(unexplained), explorer(nan_metric)],
    "every capability is known": [explorer(roles={"judge": {"clasify"}})],
    "images are between 0 and 1": [shows(grid), shows(film), shows(map_of), shows(plane)],
    "it uses only declared capabilities": [
        explorer(needs={"decode"}),
        explorer(decodes_with_its_role, roles={"other": {"encode"}}),
    ],
    "it works without labels": [explorer(reads_labels)],
    "the same run gives the same findings": [
        explorer(unseeded),
        explorer(unseeded_picture),
        explorer(unseeded_metric),
    ],
    "it writes no files": [explorer(leaves_files)],
    "the model is not modified": [
        explorer(trains_on),
        explorer(leaves_training_on),
        explorer(freezes),
        explorer(trains_the_other, roles={"judge": {"classify"}}),
    ],
    "data without some classes works": [explorer(needs_all_classes)],
    "one test image works": [explorer(needs_two_images)],
    "global state is unchanged": [explorer(meddling_look)],
}
