"""Components that use another run, and twins of them."""

from __future__ import annotations

import torch
from torch import nn

from latentforge import Arrays

from .datasets import dataset
from .losses import GoodLoss, loss
from .models import Good, model

ROLES = {"teacher": {"encode"}}


class Student(Good):
    """Its input is the code of the teacher."""

    def __init__(self, config, data, roles):
        super().__init__(config, data)
        self.teacher = roles["teacher"]
        self.encoder = nn.Linear(8, 2 * config.size)

    def encode(self, x):
        with torch.no_grad():
            z = self.look(x).flatten(1)
        return super().encode(nn.functional.pad(z, (0, 8))[:, :8])

    def look(self, x):
        return self.teacher.model.encode(x).mode()


class DecodesToo(Student):
    def look(self, x):
        return self.teacher.model.decode(super().look(x))


class WakesTeacher(Student):
    def look(self, x):
        self.teacher.model.train()
        return super().look(x)


class TeachesTeacher(Student):
    def look(self, x):
        next(self.teacher.model.parameters()).add_(1e-3)
        return super().look(x)


class Distils(GoodLoss):
    def __init__(self, config, data, roles):
        super().__init__(config, data)
        self.teacher = roles["teacher"]

    def terms(self, model, batch, step):
        return {**super().terms(model, batch, step), "norm": self.norm(batch)}

    def norm(self, batch):
        return self.teacher.encode(batch).square().mean()


class DecodesInLoss(Distils):
    def norm(self, batch):
        return self.teacher.model.decode(self.teacher.encode(batch)).mean()


class ThawsInLoss(Distils):
    def norm(self, batch):
        self.teacher.model.requires_grad_(True)
        return super().norm(batch)


def codes(config, split, roles):
    return Arrays(roles["teacher"].codes(split).sigmoid())


def decoded(config, split, roles):
    with torch.no_grad():
        return Arrays(roles["teacher"].model.decode(roles["teacher"].codes(split)).clamp(0, 1))


def after_training_mode(config, split, roles):
    roles["teacher"].model.train()
    return codes(config, split, roles)


NEEDS = "it uses only declared capabilities of its roles"
UNMODIFIED = "the runs in its roles are not modified"
WITH_ROLES = {
    "models": {
        NEEDS: [model(DecodesToo, roles=ROLES)],
        UNMODIFIED: [model(WakesTeacher, roles=ROLES), model(TeachesTeacher, roles=ROLES)],
    },
    "losses": {
        NEEDS: [loss(DecodesInLoss, roles=ROLES)],
        UNMODIFIED: [loss(ThawsInLoss, roles=ROLES)],
    },
    "datasets": {
        NEEDS: [dataset(decoded, roles=ROLES)],
        UNMODIFIED: [dataset(after_training_mode, roles=ROLES)],
    },
}
