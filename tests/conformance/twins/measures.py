"""A good measure, and twins of it."""

from __future__ import annotations

import numpy as np
import torch

from latentforge import MeasureSpec

from .common import GoodConfig, meddle


class Means:
    """The mean of the codes, and that of a random sample of them."""

    def __init__(self, config, context):
        self.config, self.context, self.codes = config, context, []

    def update(self, seen):
        self.codes.append(seen.z.flatten(1))

    def compute(self):
        codes = torch.cat(self.codes)
        picked = codes[torch.randint(len(codes), (self.config.size,))]
        return {"good": float(codes.mean()), "good_sample": float(picked.mean())}


def measure(cls=Means, **changes):
    spec = {"name": "good", "summary": "Codes", "build": cls, "config": GoodConfig}
    spec |= {"protocol": "mean of the codes", "needs": {"encode"}}
    return MeasureSpec(**{**spec, **changes})


def cannot_be_built(config, context):
    raise AttributeError("no such attribute")


class CannotUpdate(Means):
    def update(self, seen):
        raise AttributeError("no such attribute")


class Nothing(Means):
    def compute(self):
        return {}


class NotANumber(Means):
    def compute(self):
        return {**super().compute(), "ratio": float("nan")}


class NamesTheSplit(Means):
    def compute(self):
        return {f"good_{self.context.split}": super().compute()["good"]}


class CountsInTraining(Means):
    def compute(self):
        more = {"good_count": len(self.codes)} if self.context.split == "train" else {}
        return {**super().compute(), **more}


class Unseeded(Means):
    def compute(self):
        return {"good": float(np.random.default_rng().random())}


class Decodes(Means):
    def update(self, seen):
        self.codes.append(seen.recon.flatten(1))


class EncodesWithItsRole(Means):
    def update(self, seen):
        self.codes.append(self.context.roles["other"].model.encode(seen.batch.x).mode())


class ReadsLabels(Means):
    def update(self, seen):
        self.codes.append(seen.z.flatten(1) * seen.batch.y[:, None])


class ReadsLevel(Means):
    def update(self, seen):
        self.codes.append(seen.z.flatten(1) * seen.batch.factors["level"][:, None])


class NamesAFactor(Means):
    def compute(self):
        names = [factor.name for factor in self.context.data.factors if factor.name != "class"]
        return {**super().compute(), f"good_{names[0]}": 1.0}


class ComparesTwo(Means):
    def compute(self):
        codes = torch.cat(self.codes)
        return {"good": float((codes[0] - codes[1]).norm())}


class Trains(Means):
    def update(self, seen):
        super().update(seen)
        for value in seen.model.parameters():
            value.add_(0.1)


class Thaws(Means):
    def update(self, seen):
        super().update(seen)
        seen.model.requires_grad_(True)


class TrainsTheOther(Means):
    def update(self, seen):
        super().update(seen)
        for value in self.context.roles["judge"].model.parameters():
            value.add_(0.1)


class Meddles(Means):
    def update(self, seen):
        super().update(seen)
        meddle()


MEASURES = {
    "it returns finite numbers with a protocol": [
        measure(cannot_be_built),
        measure(CannotUpdate),
        measure(Nothing),
        measure(NotANumber),
        measure(protocol=" "),
    ],
    "every capability is known": [measure(roles={"judge": {"clasify"}})],
    "metric names do not depend on the split": [
        measure(NamesTheSplit),
        measure(CountsInTraining),
    ],
    "the same evaluation gives the same numbers": [measure(Unseeded)],
    "it uses only declared capabilities": [
        measure(Decodes),
        measure(EncodesWithItsRole, roles={"other": {"decode"}}),
    ],
    "it works without labels": [measure(ReadsLabels)],
    "it works without factors": [measure(ReadsLevel), measure(NamesAFactor)],
    "a split of one image works": [measure(ComparesTwo)],
    "the model is not modified": [
        measure(Trains),
        measure(Thaws),
        measure(TrainsTheOther, roles={"judge": {"classify"}}),
    ],
    "global state is unchanged": [measure(Meddles)],
}
