"""A good component of each kind, and for each check a twin that is broken in that way.

A twin is named after the check that it fails; what it changes is all that it has of its own.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Events
from torch import nn

from latentforge import (
    Arrays,
    CallbackSpec,
    DatasetSpec,
    ExplorerSpec,
    LatentSpec,
    LossSpec,
    ModelSpec,
    ObjectiveSpec,
    Size,
    hookimpl,
)
from latentforge.contracts import Terms
from latentforge.findings import Arrays as Numbers
from latentforge.findings import Findings
from latentforge.latent import DiagonalGaussian, bernoulli_nll


@dataclass(frozen=True)
class GoodConfig:
    """`size` of whatever the component is about."""

    size: Size = 3


def meddle():
    """Change what belongs to the whole process, each time to something else."""
    os.environ["LATENTFORGE_TWIN"] = str(time.perf_counter_ns())


# ---------------------------------------------------------------- models


class Good(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.shape, self.latent = data.shape, LatentSpec((config.size,), "normal")
        self.encoder = nn.Linear(data.size, 2 * config.size)
        self.decoder = nn.Linear(config.size, data.size)

    def encode(self, x):
        return DiagonalGaussian(*self.encoder(x.flatten(1)).chunk(2, 1))

    def decode_logits(self, z):
        return self.decoder(z).unflatten(1, self.shape)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()


PROVIDES = {"encode", "decode", "decode_logits", "kl", "log_prob", "diagonal_gaussian"}


def model(cls=Good, provides=PROVIDES, **changes):
    spec = {
        "name": "good",
        "summary": "A VAE",
        "build": cls,
        "config": GoodConfig,
        "provides": provides,
        "default_loss": "elbo",
    }
    return ModelSpec(**{**spec, **changes})


class WrongShape(Good):
    def decode_logits(self, z):
        return self.decoder(z)  # flat


class Unused(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.spare = nn.Linear(2, 2)


class Uphill(Good):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return 2 * logits.detach() - logits  # the gradient points the other way


OWN = torch.Generator().manual_seed(1)


class OwnGenerator(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        nn.init.normal_(self.encoder.weight, generator=OWN)


class Sampled(DiagonalGaussian):
    def mode(self):
        return self.sample()


class Draws(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Sampled(seen.mean, seen.log_var)


class Shifted(DiagonalGaussian):
    def mode(self):
        return self.mean + 1


class OffMean(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Shifted(seen.mean, seen.log_var)


class Still(DiagonalGaussian):
    def sample(self):
        return self.mean


class NoSpread(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Still(seen.mean, seen.log_var)


class Twice(DiagonalGaussian):
    def kl(self):
        return 2 * super().kl()


class WrongKl(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Twice(seen.mean, seen.log_var)


class OtherSigmoid(Good):
    def decode(self, z):
        return (0.5 * self.decode_logits(z)).sigmoid()


class Detached(Good):
    def decode(self, z):
        return super().decode(z.detach())


class Squeezed(Good):
    def decode(self, z):
        return super().decode(z).squeeze()


class BatchMean(Good):
    def encode(self, x):
        return super().encode(x - x.mean(0))


class Hidden(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.shift = torch.randn(config.size)  # no buffer, and another one in each model

    def decode_logits(self, z):
        return super().decode_logits(z + self.shift.to(z.device))


class LeftBehind(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.scale = torch.ones(config.size)  # stays on the CPU

    def decode_logits(self, z):
        return super().decode_logits(z * self.scale)


class Meddles(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        meddle()


SHARED: dict[int, nn.Module] = {}


class Shares(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.encoder = SHARED.setdefault(data.size, self.encoder)


class TakesNothing(Good):
    def __init__(self, config, data):
        from latentforge.errors import UsageError

        raise UsageError("it takes nothing")


MODELS = {
    "it has what it provides": model(provides={*PROVIDES, "layers"}),
    "codes and images have their shapes [1x28x28]": model(WrongShape),
    "gradients reach every parameter": model(Unused),
    "one step lowers the default loss": model(Uphill),
    "the same seed gives the same weights": model(OwnGenerator),
    "inference draws nothing": model(Draws),
    "the mode is the mean": model(OffMean),
    "samples follow the seed": model(NoSpread),
    "the kl is that of its posterior": model(WrongKl),
    "decode is the sigmoid of its logits": model(OtherSigmoid),
    "images are differentiable in the code": model(Detached),
    "a batch of one works": model(Squeezed),
    "an image does not depend on its batch": model(BatchMean),
    "state survives saving and loading": model(Hidden),
    "it moves to another device": model(LeftBehind),
    "nothing global is changed": model(Meddles),
    "two models share nothing": model(Shares),
    "codes and images have their shapes [3x32x32]": model(TakesNothing),
    "codes and images have their shapes [1x17x30]": model(WrongShape),
    "codes and images have their shapes [12 numbers]": model(TakesNothing),
}

# ---------------------------------------------------------------- losses


class GoodLoss(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def terms(self, model, batch, step):
        posterior = model.encode(batch.x)
        recon = bernoulli_nll(model.decode_logits(posterior.sample()), batch.x)  # (B,)
        return {"recon": recon.mean(), "scale": self.log_scale.square() + self.log_scale}

    def forward(self, model, batch, step):
        return Terms(self.terms(model, batch, step))


def loss(cls=GoodLoss, **changes):
    needs = {"encode", "decode_logits"}
    spec = {"name": "good", "summary": "-log p(x|z)", "build": cls, "needs": needs}
    return LossSpec(**{**spec, "config": GoodConfig, **changes})


class Rows(GoodLoss):
    def terms(self, model, batch, step):
        return {"recon": bernoulli_nll(model.decode_logits(model.encode(batch.x).mode()), batch.x)}


class Summed(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] * len(batch.x)}


class MeanOverPixels(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] / batch.x[0].numel()}


class NoGradient(GoodLoss):
    def terms(self, model, batch, step):
        with torch.no_grad():
            recon = super().terms(model, batch, step)["recon"]
        return {"recon": recon + self.log_scale}


class Remembers(GoodLoss):
    calls = 0

    def terms(self, model, batch, step):
        self.calls += 1
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] * (1 + 0.1 * self.calls)}


class Renames(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return found if step.index < 50 else {**found, "late": found["recon"]}


class Spread(GoodLoss):
    def terms(self, model, batch, step):
        x = batch.x.flatten(1)
        spread = (x - x.mean(0)).square().sum() / (len(x) - 1)  # NaN of one image
        return {**super().terms(model, batch, step), "spread": spread}


class ClassMeans(GoodLoss):
    def terms(self, model, batch, step):
        codes = model.encode(batch.x).mode()
        means = torch.stack([codes[batch.y == c].mean(0) for c in range(3)])  # NaN without any
        return {**super().terms(model, batch, step), "apart": means.var(0).sum()}


class AfterTheEnd(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        left = torch.tensor(float(step.total - step.index))
        return {**found, "left": left.log()}  # -inf at the end


class Forgets(GoodLoss):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.weight = torch.rand(())  # no buffer, and another one in each loss

    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] * (1 + self.weight.to(batch.x.device))}


class Waits(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        if found["recon"] > 1e6:
            found["recon"] = found["recon"] * 0
        return found


class SetsVariables(GoodLoss):
    def __init__(self, config, data):
        super().__init__(config, data)
        meddle()


LOSSES = {
    "terms are finite numbers on their own": loss(Rows),
    "terms do not grow with the batch": loss(Summed),
    "a reconstruction is a sum over pixels": loss(MeanOverPixels),
    "gradients reach the model and the loss": loss(NoGradient),
    "the same seed gives the same terms": loss(Remembers),
    "terms have the same names at every step": loss(Renames),
    "a batch of one works": loss(Spread),
    "a class without images works": loss(ClassMeans, labels=True),
    "it works without gradients": loss(AfterTheEnd),
    "state survives saving and loading": loss(Forgets),
    "it waits for no device": loss(Waits),
    "nothing global is changed": loss(SetsVariables),
}

# ---------------------------------------------------------------- datasets


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


def meddling_load(config, split):
    meddle()
    return good_arrays(config, split)


DATASETS = {
    "it loads as images or vectors": dataset(flat_arrays),
    "its splits are those it names": dataset(no_train, splits=("test",)),
    "every label has a class": dataset(far_labels),
    "it is the same each time": dataset(anew),
    "nothing global is changed": dataset(meddling_load),
}

# ---------------------------------------------------------------- explorers


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


def wants_all_classes(context, config):
    y = context.images("test").y
    means = {f"mean-{c}": context.codes("test")[y == c].mean(0) for c in range(3)}
    if any(bool(mean.isnan().any()) for mean in means.values()):
        raise ZeroDivisionError("no images")
    return Findings([Numbers("means", means)])


def wants_two(context, config):
    return Findings([Numbers("pair", {"z": context.codes("test")[[0, 1]]})])


def meddling_look(context, config):
    meddle()
    return good_look(context, config)


EXPLORERS = {
    "it finds something": explorer(unexplained),
    "the same run gives the same findings": explorer(unseeded),
    "it writes no file of its own": explorer(leaves_files),
    "it leaves the model as it is": explorer(trains_on),
    "a class without images works": explorer(wants_all_classes),
    "one test image works": explorer(wants_two),
    "nothing global is changed": explorer(meddling_look),
}

# ---------------------------------------------------------------- objectives


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

# ---------------------------------------------------------------- callbacks


class Watch:
    def __init__(self, config):
        self.seen = 0

    def attach(self, engines):
        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def count():
            self.seen += 1
            engines.log("seen", float(self.seen))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def callback(cls=Watch, **changes):
    spec = {"name": "good", "summary": "Counts", "build": cls, "config": GoodConfig}
    return CallbackSpec(**{**spec, **changes})


class Breaks(Watch):
    def attach(self, engines):
        raise AttributeError("no such engine")


class Jitters(Watch):
    def attach(self, engines):
        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def jitter():
            draw = np.random.default_rng()
            with torch.no_grad():
                for value in engines.model.parameters():
                    value.mul_(1 + 0.01 * draw.random())


class Decays:
    """Shrinks the weights more each epoch, and does not keep how often it has."""

    def __init__(self, config):
        self.seen = 0

    def attach(self, engines):
        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def shrink():
            self.seen += 1
            with torch.no_grad():
                for value in engines.model.parameters():
                    value.mul_(1 - 0.01 * self.seen)


class NoJson(Watch):
    def state_dict(self):
        return {"seen": torch.zeros(1)}


class MeddlingWatch(Watch):
    def attach(self, engines):
        super().attach(engines)
        meddle()


CALLBACKS = {
    "it attaches and trains": callback(Breaks),
    "the same seed gives the same weights": callback(Jitters),
    "a resumed run ends with the same weights": callback(Decays),
    "its state is json": callback(NoJson),
    "nothing global is changed": callback(MeddlingWatch),
}

# ---------------------------------------------------------------- of every kind


@dataclass(frozen=True)
class BadDefault:
    """`size` is wrong."""

    size: Size = 0


@dataclass(frozen=True)
class Undescribed:
    """What this is, it does not say."""

    size: Size = 3
    width: Size = 3
    names: list[str] = field(default_factory=list)


TWINS = {
    "models": MODELS,
    "losses": LOSSES,
    "datasets": DATASETS,
    "explorers": EXPLORERS,
    "objectives": OBJECTIVES,
    "callbacks": CALLBACKS,
}
OPTIONS = {
    "every option has a valid default": BadDefault,
    "every option is described": Undescribed,
}
GOOD = {
    "models": model(),
    "losses": loss(),
    "datasets": dataset(),
    "explorers": explorer(),
    "objectives": objective(),
    "callbacks": callback(),
}


def plugin(kind, spec):
    """An object with one hook, which offers that spec."""

    def offer():
        return [spec]

    offer.__name__ = f"latentforge_{kind}"
    return SimpleNamespace(**{offer.__name__: hookimpl(offer)}, __name__="twin")
