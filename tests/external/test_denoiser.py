"""The diffusion of codes in tests/external/latentforge-denoiser."""

import importlib
import shutil

import pytest
import torch

from latentforge import Forge


@pytest.fixture
def package(external):
    return external("denoiser")


@pytest.fixture
def parts(package):
    return importlib.import_module("latentforge_denoiser.parts")


def test_ddim_solves_the_flow_of_gaussian_codes(package, parts):
    # Codes from N(m, s^2) and noise have the means and the covariances of a joint Gaussian, so the
    # expected velocity is linear in the noisy code. Its flow maps the noise u to m + s u.
    mean, deviation = torch.tensor([0.5, -1.0]), torch.tensor([0.3, 2.0])

    class Exact(parts.Denoiser):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.label = torch.nn.Embedding(2, 1)

        def denoise(self, z, angle, y):
            cos, sin = angle.cos()[:, None], angle.sin()[:, None]
            variance = (cos * deviation).square() + sin.square()
            slope = cos * sin * (1 - deviation.square()) / variance
            return slope * (z - cos * mean) - sin * mean

    noise, y = torch.randn(50, 2), torch.zeros(50, dtype=torch.long)
    model = Exact()
    model.sampler = package.DenoiserSampler(steps=2000)
    codes = model.move(noise, y, torch.pi / 2, 0.0, 1.0)
    assert torch.allclose(codes, mean + deviation * noise, atol=0.01)
    assert torch.allclose(model.move(codes, y, 0.0, torch.pi / 2, 1.0), noise, atol=0.01)


def test_the_velocity_is_the_derivative_of_the_noisy_code(parts):
    z, noise = torch.randn(6, 3), torch.randn(6, 3)
    angle = torch.rand(6, 1)
    _, velocity = parts.noisy(z, noise, angle)
    _, derivative = torch.func.jvp(
        lambda at: parts.noisy(z, noise, at)[0], (angle,), (torch.ones_like(angle),)
    )
    assert torch.allclose(velocity, derivative, atol=1e-6)


def test_it_works_without_the_run_of_the_autoencoder(package, tmp_path):
    forge = Forge(plugins=[package])
    x, y = torch.rand(60, 1, 8, 8), torch.arange(60) % 2
    first = forge.train("ae", data=(x, y), train={"epochs": 1}, run=tmp_path / "ae", quiet=True)
    roles = {"autoencoder": first}

    def train(name, epochs):
        return forge.train(
            "latent-diffusion",
            data=(x, y),
            roles=roles,
            train={"epochs": epochs},
            run=tmp_path / name,
            quiet=True,
        )

    whole, part = train("whole", 3), train("part", 2)
    z, labels = torch.randn(4, *whole.load_model().latent.shape), torch.tensor([0, 1, 0, 1])
    expected = whole.load_model().decode(z, labels)
    shutil.rmtree(tmp_path / "ae")
    resumed = forge.resume(part, train={"epochs": 3}, data=(x, y), quiet=True)
    assert torch.equal(resumed.load_model().decode(z, labels), expected)


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("denoiser")
