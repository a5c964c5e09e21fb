"""A good objective, and twins of it."""

from __future__ import annotations

import torch

from latentforge import ObjectiveSpec

from .common import GoodConfig, meddle


class Bright:
    requests = ("dark", "bright")

    def __init__(self, config, context):
        pass

    def score(self, x, request):
        return -(x.flatten(1).mean(1) - 0.5 * request).abs()

    def satisfied(self, x, request):
        return self.score(x, request) > -0.1


def objective(cls=Bright, **changes):
    spec = {"name": "good", "summary": "Dark and bright", "build": cls, "config": GoodConfig}
    return ObjectiveSpec(**{**spec, **changes})


class AsksNothing(Bright):
    requests = ()


class OneNumber(Bright):
    def satisfied(self, x, request):
        return self.score(x, request)  # no bool


class Rounded(Bright):
    def score(self, x, request):
        return super().score(x.detach(), request)


class Mixed(Bright):
    def score(self, x, request):
        score = super().score(x, request)
        return score - score.mean()


class Noisy(Bright):
    def score(self, x, request):
        return super().score(x, request) + 0.01 * torch.randn(len(x))


class ThreeClasses(Bright):
    classes = torch.tensor([0, 1, 2])


class MeddlingScore(Bright):
    def score(self, x, request):
        meddle()
        return super().score(x, request)


OBJECTIVES = {
    "it asks for something in words": objective(AsksNothing),
    "scores and answers are one a row": objective(OneNumber),
    "the score is differentiable in x": objective(Rounded),
    "rows do not mix": objective(Mixed),
    "the same images score the same": objective(Noisy),
    "its classes are one a request": objective(ThreeClasses),
    "nothing global is changed": objective(MeddlingScore),
}
