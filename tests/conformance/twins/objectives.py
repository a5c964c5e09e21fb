"""A good objective, and twins of it."""

from __future__ import annotations

from dataclasses import dataclass

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


class NoRequests(Bright):
    requests = ()


class OneNumber(Bright):
    def satisfied(self, x, request):
        return self.score(x, request)  # not bool


class Rounded(Bright):
    def score(self, x, request):
        return super().score(x.detach(), request)


class Mixed(Bright):
    def score(self, x, request):
        score = super().score(x, request)
        return score - score.mean()

    def satisfied(self, x, request):
        return super().score(x, request) > -0.1


class Noisy(Bright):
    def score(self, x, request):
        return super().score(x, request) + 0.01 * torch.randn(len(x))


class OneText(Bright):
    requests = "dark"


class ScoreFromCpu(Bright):
    def score(self, x, request):
        return super().score(x, request) * torch.ones(len(x))


class AnswersOnCpu(Bright):
    def satisfied(self, x, request):
        return torch.ones(len(x), dtype=torch.bool)


class Unlike(Bright):
    """Scores images by how badly another autoencoder reconstructs them."""

    def __init__(self, config, context):
        self.other = context.roles["other"].model

    def score(self, x, request):
        code = self.other.encode(x).mode()
        return (self.other.decode(code) - x).square().flatten(1).sum(1) * (1 + request)


@dataclass(frozen=True)
class StepsConfig:
    """`steps` is also an option of the explorer."""

    steps: int = 3


class ThreeClasses(Bright):
    classes = torch.tensor([0, 1, 2])


class MeddlingScore(Bright):
    def score(self, x, request):
        meddle()
        return super().score(x, request)


class BlankRequest(Bright):
    requests = ("dark", " ")


class ScoreOfPixels(Bright):
    def score(self, x, request):
        return -(x.flatten(1) - 0.5 * request[:, None]).abs()

    def satisfied(self, x, request):
        return super().score(x, request) > -0.1


class Blind(Bright):
    def __init__(self, config, context):
        self.weight = torch.zeros((), requires_grad=True)

    def score(self, x, request):
        return self.weight - 1.0 * request


class Cliff(Bright):
    def score(self, x, request):
        return super().score(x, request) + (0 * x.flatten(1)).square().sum(1).sqrt()


class Plateau(Bright):
    def score(self, x, request):
        return 0 * super().score(x, request) - 1  # so it is never satisfied


class MixedAnswers(Bright):
    def satisfied(self, x, request):
        score = self.score(x, request)
        return score >= score.max()


OBJECTIVES = {
    "requests are strings": [
        objective(NoRequests),
        objective(BlankRequest),
        objective(OneText),
    ],
    "every capability is known": [objective(roles={"judge": {"clasify"}})],
    "its options do not clash with an explorer": [objective(config=StepsConfig)],
    "it uses only declared capabilities": [objective(Unlike, roles={"other": {"encode"}})],
    "it works on another device": [objective(ScoreFromCpu), objective(AnswersOnCpu)],
    "one score and one flag per row": [objective(OneNumber), objective(ScoreOfPixels)],
    "the score is differentiable in x": [
        objective(Rounded),
        objective(Blind),
        objective(Cliff),
        objective(Plateau),
    ],
    "rows are independent": [objective(Mixed), objective(MixedAnswers)],
    "the score is deterministic": [objective(Noisy)],
    "one class per request": [objective(ThreeClasses)],
    "global state is unchanged": [objective(MeddlingScore)],
}
