"""A good loss, and twins of it."""

from __future__ import annotations

import torch
from torch import nn

from latentforge import LossSpec
from latentforge.contracts import Terms
from latentforge.latent import bernoulli_nll, closed_form_kl, kl_estimate, kl_values, prior_of

from .common import GoodConfig, meddle


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


class LazyScale(GoodLoss):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.head = nn.LazyLinear(1)


def loss(cls=GoodLoss, **changes):
    needs = {"encode", "decode_logits"}
    spec = {"name": "good", "summary": "-log p(x|z)", "build": cls, "needs": needs}
    return LossSpec(**{**spec, "config": GoodConfig, **changes})


def no_module(config, data):
    good = GoodLoss(config, data)
    return lambda model, batch, step: good(model, batch, step)


class NoTerms(GoodLoss):
    def forward(self, model, batch, step):
        return self.terms(model, batch, step)


def giving(**changes):
    """Return a loss whose Terms have these fields replaced."""

    class Other(GoodLoss):
        def forward(self, model, batch, step):
            return super().forward(model, batch, step)._replace(**changes)

    return loss(Other)


class Rows(GoodLoss):
    def terms(self, model, batch, step):
        return {"recon": bernoulli_nll(model.decode_logits(model.encode(batch.x).mode()), batch.x)}


class NoNumber(GoodLoss):
    def terms(self, model, batch, step):
        return {**super().terms(model, batch, step), "none": batch.x.new_tensor(torch.nan)}


class Spreads(GoodLoss):
    def terms(self, model, batch, step):
        spread = model.encode(batch.x).log_var.exp().mean()
        return {**super().terms(model, batch, step), "spread": spread}


class UsesKl(GoodLoss):
    def terms(self, model, batch, step):
        kl = model.encode(batch.x).kl().sum(1).mean()
        return {**super().terms(model, batch, step), "kl": kl}


class UsesPrior(GoodLoss):
    def terms(self, model, batch, step):
        log_p = prior_of(model).log_prob(model.encode(batch.x).sample())
        return {**super().terms(model, batch, step), "log_p": log_p.mean()}


class Estimates(GoodLoss):
    """Uses all that a loss with the need `variational` may use."""

    def terms(self, model, batch, step):
        posterior = model.encode(batch.x)
        z = posterior.sample()
        kl = kl_estimate(model, posterior, z).mean()
        exact = closed_form_kl(model, posterior)
        exact = kl if exact is None else exact.sum(1).mean()
        largest = kl_values(model, posterior, z).max()
        return {**super().terms(model, batch, step), "kl": kl, "exact": exact, "largest": largest}


class Indexes(GoodLoss):
    def terms(self, model, batch, step):
        level = batch.x.new_tensor([0.0, 1.0, 2.0])[batch.y.tolist()].mean()
        return {**super().terms(model, batch, step), "level": level}


class ReadsLevel(GoodLoss):
    def terms(self, model, batch, step):
        level = batch.factors["level"].mean()
        return {**super().terms(model, batch, step), "level": level}


class ReadsFirst(GoodLoss):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.first = next(f.name for f in data.factors if not f.names)

    def terms(self, model, batch, step):
        level = batch.factors[self.first].mean()
        return {**super().terms(model, batch, step), "level": level}


class Whitens(GoodLoss):
    def terms(self, model, batch, step):
        batch.x.clamp_(min=0.5)
        return super().terms(model, batch, step)


class Summed(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] * len(batch.x)}


class MeanOverPixels(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] / batch.x[0].numel()}


class SumOfDensities(GoodLoss):
    """-log of a normal density whose variance is such that its value is near 0."""

    def terms(self, model, batch, step):
        decoded = model.decode_logits(model.encode(batch.x).sample())
        squares = (decoded - batch.x).square().flatten(1)
        return {"recon": (squares / 0.02 - 10.0).sum(1).mean(), "scale": self.log_scale.square()}


class MeanOfDensities(SumOfDensities):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] / batch.x[0].numel()}


class ReportedMean(MeanOverPixels):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"].detach(), "trained": found["recon"]}


class NoGradient(GoodLoss):
    def terms(self, model, batch, step):
        with torch.no_grad():
            recon = super().terms(model, batch, step)["recon"]
        return {"recon": recon + self.log_scale}


class Constant(GoodLoss):
    def terms(self, model, batch, step):
        return {name: value.detach() for name, value in super().terms(model, batch, step).items()}


class Spare(GoodLoss):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.spare = nn.Parameter(torch.zeros(()))


class NanGradient(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "spread": (0 * self.log_scale).square().sqrt()}


OWN = torch.Generator().manual_seed(1)


class OwnNoise(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "recon": found["recon"] * (1 + 0.1 * torch.rand((), generator=OWN))}


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


class Scheduled(GoodLoss):
    """The weight of `scale` grows from 0 to 1, and is 1 from the step `full`."""

    full = 95

    def weight(self, step):
        return min(1.0, step.index / self.full)

    def forward(self, model, batch, step):
        return Terms(self.terms(model, batch, step), {"scale": self.weight(step)})


class LateStart(Scheduled):
    def weight(self, step):
        return float(step.index >= self.full)


class TouchesZero(Scheduled):
    def weight(self, step):
        return abs(step.index - self.full) / self.full


class InTurn(Scheduled):
    def weight(self, step):
        return float(step.index % 2)


class EverySixth(Scheduled):
    def weight(self, step):
        return float(step.index % 6 == 0)


class ValueInTurn(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "critic": found["recon"] * (step.index % 2)}


class Hinge(GoodLoss):
    """Zero or not, as the noise decides."""

    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        return {**found, "hinge": torch.randn(()).relu() + 0 * found["recon"]}


class Spread(GoodLoss):
    def terms(self, model, batch, step):
        x = batch.x.flatten(1)
        spread = (x - x.mean(0)).square().sum() / (len(x) - 1)  # NaN for one image
        return {**super().terms(model, batch, step), "spread": spread}


class ClassMeans(GoodLoss):
    def terms(self, model, batch, step):
        codes = model.encode(batch.x).mode()
        means = torch.stack([codes[batch.y == c].mean(0) for c in range(3)])  # NaN without images
        return {**super().terms(model, batch, step), "apart": means.var(0).sum()}


class AfterTheEnd(GoodLoss):
    def terms(self, model, batch, step):
        found = super().terms(model, batch, step)
        left = torch.tensor(float(step.total - step.index))
        return {**found, "left": left.log()}  # -inf at the end


class Forgets(GoodLoss):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.weight = torch.rand(())  # not a buffer, and different in each loss

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
    "terms are finite scalars": [
        loss(no_module),
        loss(NoTerms),
        loss(Rows),
        giving(values={"loss": torch.zeros(())}),
        giving(per_dim={"kl": torch.zeros(3, requires_grad=True)}),
        giving(weights={"kl": 2.0}),
        giving(weights={"recon": 0.0, "scale": 0.0}),
        loss(NoNumber),
        loss(LazyScale),
    ],
    "every capability is known": [
        loss(needs={"encode", "decode_logit"}),
        loss(needs={"classify", "decode_logits"}),
    ],
    "it uses only declared capabilities": [
        loss(needs={"encode"}),
        loss(Spreads, needs={"encode", "decode_logits", "kl"}),
        loss(UsesKl, needs={"encode", "decode_logits", "variational"}),
        loss(UsesPrior, needs={"encode", "decode_logits", "variational"}),
    ],
    "it works without labels": [loss(ClassMeans), loss(Indexes)],
    "it works without factors": [loss(ReadsLevel), loss(ReadsFirst)],
    "the batch is not modified": [loss(Whitens)],
    "terms do not grow with the batch": [loss(Summed)],
    "a reconstruction is a sum over pixels": [
        loss(MeanOverPixels),
        loss(MeanOfDensities),
        loss(ReportedMean),
    ],
    "gradients reach the model and the loss": [
        loss(NoGradient),
        loss(Constant),
        loss(Spare),
        loss(NanGradient),
    ],
    "the same seed gives the same terms": [loss(OwnNoise)],
    "terms have the same names at every step": [loss(Renames)],
    "weights do not alternate": [loss(InTurn), loss(EverySixth), loss(ValueInTurn)],
    "a batch of one works": [loss(Spread)],
    "a batch without some classes works": [loss(ClassMeans, labels=True)],
    "it works without gradients": [loss(AfterTheEnd)],
    "state survives saving and loading": [loss(Forgets), loss(Remembers)],
    "it does not synchronize the device": [loss(Waits)],
    "global state is unchanged": [loss(SetsVariables)],
}
