"""The checks support conditional models, and components of a package that has only such a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentforge import ExplorerSpec, Forge, LatentSpec, LossSpec, hookimpl
from latentforge.conformance import CheckFailed, CheckSkipped, checks_of
from latentforge.contracts import Terms
from latentforge.findings import Findings, NamedArrays
from latentforge.latent import Bernoulli, DiagonalGaussian

from .twins.conditional import Conditional, DecodesAlike, conditional, with_label_prior

MINE = "spoke"  # a capability that only the model of the package provides


class Loss(torch.nn.Module):
    likelihood = Bernoulli()

    def forward(self, model, batch, step):
        posterior = model.encode(batch.x)
        recon = self.likelihood.nll(model, posterior.sample(), batch.x).mean()
        return Terms({"recon": recon, "kl": posterior.kl().flatten(1).sum(1).mean()})


def codes(context, config):
    z = context.codes("test")
    images = context.model.decode(z)
    return Findings([NamedArrays("codes", {"z": z, "x": images})])


def by_class(context, config):
    if "conditional" not in context.provides:
        return codes(context, config)
    y = torch.arange(len(context.data.classes), device=context.device)
    z = torch.zeros(len(y), *context.model.latent.shape, device=context.device)
    return Findings([NamedArrays("classes", {"x": context.model.given(y).decode(z)})])


class Package:
    @hookimpl
    def latentforge_models(self):
        yield conditional(name="spoken", provides={MINE})

    @hookimpl
    def latentforge_losses(self):
        needs = {"encode", "decode_logits", "kl", MINE}
        yield LossSpec(name="own", summary="s", build=lambda c, d: Loss(), needs=needs)

    @hookimpl
    def latentforge_explorers(self):
        needs = {"encode", "decode", MINE}
        yield ExplorerSpec(name="codes", summary="s", explore=codes, needs=needs)
        yield ExplorerSpec(
            name="by-class", summary="s", explore=by_class, needs=needs, conditional=True
        )


@pytest.mark.parametrize(
    ("kind", "name"),
    [("models", "spoken"), ("losses", "own"), ("explorers", "codes"), ("explorers", "by-class")],
)
def test_every_check_of_a_conditional_package_passes(kind, name, work):
    passed = set()
    for check in checks_of(kind, name, forge=Forge([Package()])):
        try:
            check()
            passed.add(check.name)
        except CheckSkipped:
            pass
    assert len(passed) > 8
    assert (
        kind != "models"
        or {
            "the outputs depend on the label",
            "each row is under its own label",
        }
        <= passed
    )


class ClassPrior:
    def __init__(self, rows):
        self.rows, self.log_prob = rows, rows.log_prob

    def sample(self, n):
        return self.rows.sample()


class WithPrior(Conditional):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent = LatentSpec((config.size,), "own")
        self.means = torch.nn.Embedding(self.classes, config.size)

    def prior(self, y):
        means = self.means(y)
        return ClassPrior(DiagonalGaussian(means, torch.zeros_like(means)))


class TooWide(WithPrior):
    def prior(self, y):
        prior, means = super().prior(y), self.means(y)
        prior.rows = DiagonalGaussian(means, torch.ones_like(means))
        return prior


def passed(cls):
    names = {"encode", "decode", "decode_logits", "prior", "log_prob", "conditional"}

    class Package:
        @hookimpl
        def latentforge_models(self):
            yield replace(conditional(cls, name="with-prior"), provides=names)

    passed = set()
    for check in checks_of("models", "with-prior", forge=Forge([Package()])):
        try:
            check()
            passed.add(check.name)
        except CheckSkipped:
            pass
    return passed


def test_the_prior_of_a_conditional_model_is_checked_under_a_class(work):
    assert "the prior matches its samples" in passed(WithPrior)
    with pytest.raises(CheckFailed, match="log_prob"):
        passed(TooWide)


def test_a_label_may_act_through_the_prior_alone(work):
    """p(x | z) of the model does not depend on the label, but what it generates does."""
    named = replace(with_label_prior(DecodesAlike), name="alike")

    class Package:
        @hookimpl
        def latentforge_models(self):
            yield named

    [check] = [
        check
        for check in checks_of("models", "alike", forge=Forge([Package()]))
        if check.name == "the outputs depend on the label"
    ]
    check()
