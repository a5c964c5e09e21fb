"""Contract checks for the codes of models: posteriors, priors, codebooks and groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from latentforge.conformance.assertions import (
    require_same,
    require_tensor,
    run_with_seeds,
    seed_torch,
    skip_unless_provided,
)
from latentforge.conformance.model_fixtures import batch_for, build_model, latent_of, posterior_of
from latentforge.conformance.subject import CheckSkipped, Subject, require
from latentforge.contracts.views import GivenClass
from latentforge.latent import group_slices, log_ratio, prior_of, standard_normal_log_prob

SAMPLES = 400  # samples of a posterior, to estimate its KL
DRAWS = 1000  # samples that are compared with their density
MAX_FULL = 64  # dimensions of a Gaussian with full covariance
DENSITY_ERROR = 0.01  # nats; accepted error of a mean log density


def the_mode_is_the_mean(subject: Subject) -> None:
    skip_unless_provided(subject, "diagonal_gaussian")
    posterior = posterior_of(subject)
    require_same(posterior.mean, posterior.mode(), "mode() is not the mean", "return self.mean")


def samples_depend_only_on_the_seed(subject: Subject) -> None:
    skip_unless_provided(subject, "variational")
    one, same, other = run_with_seeds((0, 0, 1), posterior_of(subject).sample)
    hint = "use torch.randn_like or latentforge.latent.noise_like"
    require(torch.equal(one, same), "two samples with the same seed differ", hint)
    hint = "sample() must be random; only mode() is deterministic"
    require(not torch.equal(one, other), "all samples are equal", hint)


def kl_matches_the_posterior(subject: Subject) -> None:
    """kl() is compared with an estimate from samples and log_prob for the prior N(0, I). They must
    agree within five standard errors."""
    skip_unless_provided(subject, "kl")
    latent = latent_of(build_model(subject))
    posterior = posterior_of(subject)
    kl = posterior.kl()
    require_tensor(kl, (6, *latent.shape), "kl()", torch.float32)
    saw = f"it provides kl, but latent.prior is {latent.prior!r}"
    require(latent.prior == "normal", saw, "prior='normal'")
    # An estimate from one sample may agree below, but would be reported as a closed form.
    hint = "do not provide kl if it has no closed form, but prior and log_prob"
    require(torch.equal(kl, posterior.kl()), "two calls of kl() differ", hint)
    skip_unless_provided(subject, "log_prob")
    hint = "kl() is KL(q || p) in nats for each latent dimension; log_prob(z) is log q(z|x)"
    _require_mean_log_ratio(kl, posterior, standard_normal_log_prob, "kl()", hint)


def the_kl_to_the_prior_matches_the_posterior(subject: Subject) -> None:
    """As above, for `kl(posterior)` of the model's own prior."""
    skip_unless_provided(subject, "variational")
    model = build_model(subject).eval()
    latent = latent_of(model)
    prior: Any = prior_of(model)
    if latent.prior != "own" or getattr(prior, "kl", None) is None:
        raise CheckSkipped("its prior has no kl(posterior)")
    posterior = model.encode(batch_for(subject).x)
    kl, name = prior.kl(posterior), "kl(posterior) of the prior"
    require_tensor(kl, (6, *latent.shape), name, torch.float32)
    hint = "do not define kl of the prior if it has no closed form"
    require(torch.equal(kl, prior.kl(posterior)), f"two calls of {name} differ", hint)
    hint = "it is KL(q || p) in nats for each latent dimension; log_prob(z) is log q(z|x)"
    _require_mean_log_ratio(kl, posterior, prior.log_prob, name, hint)


def log_ratio_terms_sum_to_the_log_ratio(subject: Subject) -> None:
    skip_unless_provided(subject, "log_ratio_terms")
    saw = "it provides log_ratio_terms, but not both of prior and log_prob"
    has_both = {"prior", "log_prob"} <= subject.entry.provides
    require(has_both, saw, "provide prior and log_prob, of which they are the terms")
    model = build_model(subject).eval()
    posterior = model.encode(batch_for(subject).x)
    seed_torch(0)
    with torch.no_grad():
        z = posterior.sample()
        terms = posterior.log_ratio_terms(z)
        name = "log_ratio_terms(z)"
        require_tensor(terms, (6, *latent_of(model).shape), name, torch.float32)
        total, expected = terms.flatten(1).double().sum(1), log_ratio(model, posterior, z).double()
        scale = 1 + posterior.log_prob(z).abs() + expected.abs()
    saw = f"{name} sums to {total.tolist()}, log q(z|x) - log p(z) is {expected.tolist()}"
    hint = (
        "return log q(z|x) - log p(z) in nats as terms of the dimensions, for the z that is given"
    )
    require(bool(((total - expected).abs() < 1e-4 * scale).all()), saw, hint)


def log_prob_matches_the_samples(subject: Subject) -> None:
    """The samples are of the posterior of one image."""
    skip_unless_provided(subject, "log_prob")
    x = batch_for(subject).x
    posterior = build_model(subject).eval().encode(x[:1].expand(DRAWS, *x.shape[1:]))
    hint = "log_prob(z) is log q(z|x) in nats, with its constant, of the z that sample() returns"
    _require_density(lambda _: posterior.sample(), posterior.log_prob, "log_prob(z)", hint)


def the_prior_matches_its_samples(subject: Subject) -> None:
    """Applies to a model whose prior is its own. That of a conditional model is under class 0."""
    skip_unless_provided(subject, "prior")
    model = build_model(subject).eval()
    latent = latent_of(model)
    saw = f"it provides prior, but latent.prior is {latent.prior!r}"
    require(latent.prior in ("normal", "own"), saw, "prior='normal' or prior='own'")
    if latent.prior == "normal":
        raise CheckSkipped("its prior is N(0, I)")
    if "conditional" in subject.entry.provides:
        model = GivenClass(model, torch.tensor(0))
    prior = model.prior()
    one, same = run_with_seeds((0, 0), lambda: prior.sample(6).detach())
    require_tensor(one, (6, *latent.shape), "a sample of the prior", torch.float32)
    hint = "sample with torch's default generator"
    require(torch.equal(one, same), "two samples of the prior with the same seed differ", hint)
    z = one.clone().requires_grad_()
    hint = "a search follows the gradient of log p(z): keep log_prob differentiable in z"
    require(prior.log_prob(z).requires_grad, "the prior's log_prob(z) has no gradient", hint)
    hint = "log_prob(z) is log p(z) in nats, with its constant, of the z that sample(n) returns"
    _require_density(prior.sample, prior.log_prob, "the prior's log_prob(z)", hint)


def codes_are_entries_of_the_codebook(subject: Subject) -> None:
    skip_unless_provided(subject, "codebook")
    model = build_model(subject).eval()
    posterior = model.encode(batch_for(subject).x)
    dim, *grid = latent_of(model).shape
    entries = len(model.codebook)
    require_tensor(model.codebook.detach(), (entries, dim), "codebook", torch.float32)
    require_tensor(posterior.entry, (6, *grid), "entry", torch.int64)
    low, high = (int(value) for value in posterior.entry.aminmax())
    saw = f"entry goes from {low} to {high}, and the codebook has {entries} entries"
    require(low >= 0 and high < entries, saw, "entry indexes the codebook")
    expected = model.codebook[posterior.entry].movedim(-1, 1)
    saw, hint = "mode() is not codebook[entry]", "return the entries, with the dimension first"
    require_same(posterior.mode(), expected, saw, hint)


def every_group_of_the_code_reaches_the_image(subject: Subject) -> None:
    skip_unless_provided(subject, "decode")
    model = build_model(subject).eval()
    slices = group_slices(latent_of(model))
    if not slices:
        raise CheckSkipped("its code has no groups")
    z = torch.zeros(1, *model.latent.shape)
    with torch.no_grad():
        before = model.decode(z)
        for name, part in slices.items():
            other = z.clone()
            other[:, part] = 3.0
            changes = not torch.equal(model.decode(other), before)
            saw = f"another value of group {name!r} does not change the decoded image"
            require(changes, saw, "give the groups in the order and with the sizes of the code")


def _require_mean_log_ratio(
    kl: Tensor, posterior: Any, log_p: Callable[[Tensor], Tensor], what: str, hint: str
) -> None:
    """Raise CheckFailed if the sum of the KL over the dimensions differs from the mean of
    log q(z|x) - log p(z) over samples of q by more than five standard errors."""
    seed_torch(0)
    values = []
    with torch.no_grad():
        for _ in range(SAMPLES):
            z = posterior.sample()
            values.append(posterior.log_prob(z) - log_p(z))
    samples = torch.stack(values).double()  # (SAMPLES, 6)
    mean, error = samples.mean(0), samples.std(0) / math.sqrt(len(samples))
    total = kl.detach().flatten(1).sum(1)
    excess = (mean - total).abs() - 5 * error - 1e-3 * mean.abs() - 1e-3
    saw = f"{what} sums to {total.tolist()}, its estimate from samples is {mean.tolist()}"
    require(bool((excess < 0).all()), saw, hint)


def _require_density(
    draw: Callable[[int], Tensor], log_prob: Callable[[Tensor], Tensor], what: str, hint: str
) -> None:
    """Raise CheckFailed if samples contradict their density p.

    For every Gaussian r, the mean of log p - log r is at least 0 over samples of p, and at most 0
    over samples of r: both are Kullback-Leibler divergences, up to the sign. r is fitted to other
    samples of p, so that they are small. The means may deviate by five standard errors.
    """
    seed_torch(0)
    with torch.no_grad():
        first, z = draw(DRAWS), draw(DRAWS)
        values = log_prob(z)
        require_tensor(values, (DRAWS,), what, torch.float32)
        rows = first.flatten(1).double()
        if rows.shape[1] <= MAX_FULL:
            covariance = rows.T.cov().view(rows.shape[1], -1)  # `cov` of one dimension is 0-d
            root = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(rows.shape[1]))
        else:
            root = (rows.std(0) + 1e-6).diag()
        gaussian: Any = MultivariateNormal(rows.mean(0), scale_tril=root, validate_args=False)
        other = gaussian.sample((DRAWS,))
        difference = values.double() - gaussian.log_prob(z.flatten(1).double())
        other_values = log_prob(other.float().view_as(z)).double()
        other_difference = other_values - gaussian.log_prob(other)
    least, most = float(difference.mean()), float(other_difference.mean())
    error, other_error = (float(v.std()) / DRAWS**0.5 for v in (difference, other_difference))
    saw = f"on its samples, {what} is on average {-least:.3g} nats below that of a fitted Gaussian"
    require(least >= -5 * error - DENSITY_ERROR, saw, hint)
    saw = f"on samples of a Gaussian, {what} is on average {most:.3g} nats above the Gaussian's"
    require(not most > 5 * other_error + DENSITY_ERROR, saw, hint)
