"""The prior over codes on all 81 codes of 2 x 2 entries of three, and the VQ-VAE's gradients."""

from types import SimpleNamespace

import pytest
import torch

from latentforge import DataSpec, Forge, LatentSpec
from latentforge.latent import standard_normal_log_prob

EVERY = torch.cartesian_prod(*[torch.arange(3)] * 4).view(81, 2, 2)


@pytest.fixture
def model(external):
    """The prior over an autoencoder whose images are its entries, (B, 2, 2), and (B, 5, 2, 2)."""
    external("codes")
    from latentforge_codes import CodeGruConfig, build_gru

    torch.manual_seed(0)
    quantized = SimpleNamespace(
        codebook=torch.randn(3, 5),
        latent=LatentSpec((5, 2, 2)),
        encode=lambda x: SimpleNamespace(entry=x),
    )
    autoencoder = SimpleNamespace(model=quantized, decode=lambda z: z)
    model = build_gru(CodeGruConfig(hidden=16), DataSpec((1, 8, 8)), {"autoencoder": autoencoder})
    with torch.no_grad():
        model.head.weight.mul_(8)  # entries that depend on each other
    return model


def entries(model, u):
    vectors = model.decode(u).movedim(1, -1)  # (B, 2, 2, 5)
    return (
        torch.cdist(vectors.flatten(0, 2), model.autoencoder.model.codebook).argmin(1).view(-1, 4)
    )


@torch.no_grad()
def test_the_kl_is_a_distribution_of_the_codes_and_samples_follow_it(model):
    p = (-model.encode(EVERY).kl().sum(1)).exp()
    torch.testing.assert_close(p.sum(), torch.tensor(1.0))
    assert p.max() > 5 / 81

    drawn = entries(model, torch.randn(40_000, 4)) @ torch.tensor([27, 9, 3, 1])
    share = drawn.bincount(minlength=81) / 40_000
    assert ((share - p).abs() < 5 * (p / 40_000).sqrt() + 1e-4).all()


@torch.no_grad()
def test_codes_decode_to_their_entries_and_have_the_density_of_the_prior_there(model):
    posterior = model.encode(EVERY)
    for u in (posterior.mode(), posterior.sample()):
        assert torch.equal(entries(model, u), EVERY.flatten(1))
        ratio = posterior.log_prob(u) - standard_normal_log_prob(u)
        torch.testing.assert_close(ratio, posterior.kl().sum(1))
        assert (posterior.log_prob(u.roll(1, 0)) == -torch.inf).all()  # of another code


@torch.no_grad()
def test_an_entry_depends_on_no_later_one(model):
    changed = EVERY.flatten(1).clone()
    changed[:, 2] = (changed[:, 2] + 1) % 3
    before, after = model.of(EVERY.flatten(1)), model.of(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def test_the_gradient_of_a_sample_passes_straight_to_the_encoder(external):
    external("codes")
    from latentforge_codes.quantizer import Quantized

    raw, codebook = torch.randn(2, 5, 3, 3, requires_grad=True), torch.randn(4, 5)
    posterior = Quantized(raw, codebook)
    distance = (raw.movedim(1, -1)[..., None, :] - codebook).square().sum(-1)  # (2, 3, 3, 4)
    assert torch.equal(posterior.entry, distance.argmin(-1))
    torch.testing.assert_close(posterior.commitment(), distance.amin(-1).sum((1, 2)))
    torch.testing.assert_close(posterior.sample(), posterior.mode())
    weight = torch.randn_like(raw)
    (posterior.sample() * weight).sum().backward()
    torch.testing.assert_close(raw.grad, weight)


def test_both_stages_are_exported(external, tmp_path):
    forge, x = Forge(plugins=[external("codes")]), torch.rand(60, 1, 8, 8)
    train = {"train": {"epochs": 1}, "data": x, "quiet": True}
    first = forge.train("quantizer", run=tmp_path / "vq", **train)
    run = forge.train("code-gru", roles={"autoencoder": first}, run=tmp_path / "gru", **train)
    for exported, part in ((first, "encoder"), (run, "decoder")):
        assert forge.export(exported, part)["check"]["batches"] == [1, 7]


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("codes")
