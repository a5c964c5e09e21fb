"""The plain builds: the recipes of the presets, with networks, losses and metrics equal to ours."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from latentforge import DataSpec, Forge
from latentforge.config.request import draft_request
from latentforge.config.resolve import resolve
from latentforge.config.schema import ScheduleConfig, TrainConfig
from latentforge.engine.build import build_modules
from latentforge.engine.optimizer import build_optimizer

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PRESETS = (
    *("latent-differentiation-classifier", "latent-differentiation-ae"),
    *("grad-ae", "grad-vae-beta0", "grad-vae-beta1", "grad-vae-beta4"),
    *("grad-vae-z10-beta1", "grad-vae-z10-beta4", "grad-deconv-vae"),
    *("diffusion-series-cnn", "tsne-conv-vae", "vanilla-ae", "vanilla-ae-relu", "vanilla-vae"),
)
OF_8X8 = [preset for preset in PRESETS if preset != "grad-deconv-vae"]  # which needs 28x28
SIZES = [*((preset, 28) for preset in PRESETS), *((preset, 8) for preset in OF_8X8)]


def load_script(name: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module(name)
    sys.modules.pop(name)


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    yield from load_script("plain_builds")


@pytest.fixture(scope="module")
def systems() -> Iterator[ModuleType]:
    yield from load_script("systems")


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge()


@pytest.fixture(scope="module")
def digits(forge):
    """300 images for training and 100 for the test, with labels, by split."""
    splits = forge.load_data("digits")
    parts = {"train": (splits.split("train"), 300), "test": (splits.split("test"), 100)}
    return {name: (split.x[:count], split.y[:count]) for name, (split, count) in parts.items()}


@pytest.fixture
def config_of(forge):
    def call(preset: str):
        return resolve(draft_request(forge.registry, None, preset=preset)[0], forge.registry)

    return call


def tensors(network: nn.Module) -> list[torch.Tensor]:
    """The weights and running statistics in the order of the data flow."""
    parts = [network]
    if hasattr(network, "decoder"):
        head = getattr(network, "head", network)
        heads = [head.mean, head.log_var] if hasattr(head, "mean") else []
        parts = [network.encoder, *heads, network.decoder]
    return [tensor for part in parts for tensor in part.state_dict().values()]


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_every_preset_of_the_page_has_a_plain_build(plain, systems):
    assert [*plain.RECIPES] == [*PRESETS]
    assert {system.preset for system in systems.SYSTEMS} == {*PRESETS}


def test_plain_builds_do_not_import_latentforge():
    for name in ("plain_builds.py", "networks.py"):
        assert not re.search(r"(import|from) latentforge", (FOLDER / name).read_text("utf-8"))


@pytest.mark.parametrize("preset", PRESETS)
def test_recipe_is_that_of_the_preset(plain, config_of, preset):
    recipe, config = plain.RECIPES[preset], config_of(preset)
    assert config.train.schedule.name == "constant"
    assert replace(config.train, schedule=ScheduleConfig()) == TrainConfig(
        epochs=recipe.epochs, batch_size=recipe.batch_size, lr=recipe.lr
    )
    options = config.loss.options
    assert recipe.loss == getattr(options, "likelihood", config.loss.name)
    assert recipe.beta == getattr(options, "beta", 1.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_optimizer_is_that_of_the_preset(plain, config_of, preset):
    recipe, network = plain.RECIPES[preset], nn.Linear(1, 1)
    theirs = plain.make_optimizer(recipe, network)
    ours = build_optimizer(network, config_of(preset).train)
    assert type(theirs) is type(ours)
    assert theirs.defaults == ours.defaults


@pytest.mark.parametrize(("preset", "side"), SIZES)
def test_network_has_the_parameters_of_the_preset(plain, config_of, preset, side):
    data = DataSpec((1, side, side), "image", tuple("0123456789"))
    ours, _ = build_modules(config_of(preset), data)
    recipe = plain.RECIPES[preset]
    padded = plain.prepare(recipe, torch.zeros(1, 1, side, side, dtype=torch.uint8))
    network = recipe.network(padded.shape[-1])
    assert [t.shape for t in tensors(network)] == [t.shape for t in tensors(ours)]
    assert count_parameters(network) == count_parameters(ours)


@pytest.mark.parametrize("preset", PRESETS)
def test_trained_weights_have_the_same_metrics_in_the_plain_build(
    plain, forge, digits, preset, tmp_path
):
    folder = tmp_path / "run"
    run = forge.train(preset=preset, data=digits, train={"epochs": 1}, run=folder, quiet=True)
    ours = run.metrics["test"]
    recipe, (x, y) = plain.RECIPES[preset], digits["test"]
    x = plain.prepare(recipe, x)
    network = recipe.network(x.shape[-1])
    with torch.no_grad():
        for target, source in zip(tensors(network), tensors(run.load_model()), strict=True):
            target.copy_(source)
    theirs = plain.evaluate(recipe, network, x, y)
    with torch.no_grad():
        theirs["loss"] = float(plain.training_loss(recipe, network, x, y))
    for name, value in theirs.items():
        # a sampled z: the noise differs
        error = 6 * ours.get("recon_se", 0.0) if name in ("recon", "elbo", "loss") else 0.0
        assert value == pytest.approx(ours[name], rel=1e-4, abs=max(error, 1e-12)), name
    assert set(theirs) >= {"loss"} | set(ours) & {"accuracy", "recon", "kl", "elbo", "elbo_mean"}


def test_sample_has_the_mean_and_the_variance_of_the_posterior(plain):
    torch.manual_seed(0)
    mean, log_var = torch.full((100_000, 1), 3.0), torch.full((100_000, 1), math.log(4.0))
    z = plain.sample(mean, log_var)
    assert float(z.mean()) == pytest.approx(3.0, abs=0.04)
    assert float(z.var()) == pytest.approx(4.0, rel=0.03)


@pytest.mark.parametrize("preset", PRESETS)
def test_training_loss_is_the_nll_and_beta_times_the_kl(plain, digits, preset):
    recipe, (x, y) = plain.RECIPES[preset], digits["test"]
    x = plain.prepare(recipe, x)
    network = recipe.network(x.shape[-1]).eval().requires_grad_(False)
    if hasattr(network, "log_var"):
        nn.init.ones_(network.log_var.bias)  # a KL far from 0
    torch.manual_seed(0)
    loss = float(plain.training_loss(recipe, network, x, y))
    torch.manual_seed(0)  # the same noise
    metrics = plain.evaluate(recipe, network, x, y)
    if recipe.loss == "cross-entropy":
        chosen = network(x).softmax(1)[torch.arange(len(x)), y]
        assert loss == pytest.approx(-float(chosen.log().mean()), rel=1e-5)
    else:
        expected = metrics["recon"] + recipe.beta * metrics.get("kl", 0.0)
        assert loss == pytest.approx(expected, rel=1e-6)


class Recorder(nn.Linear):
    """A classifier that records its input values."""

    def __init__(self) -> None:
        super().__init__(1, 10)
        self.seen: list[list[float]] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.seen.append(input.flatten().tolist())
        return super().forward(input.flatten(1))


def test_every_epoch_is_a_new_order_of_all_images(plain):
    recipe = plain.Recipe(nn.Identity, 2, 4, loss="cross-entropy")
    network, values = Recorder(), torch.arange(10.0)
    plain.train(recipe, network, values.view(10, 1, 1, 1), values.long(), 2)
    assert [len(batch) for batch in network.seen] == [4, 4, 2] * 2
    images = [*chain.from_iterable(network.seen)]
    first, second = images[:10], images[10:]
    assert sorted(first) == sorted(second) == values.tolist()
    assert first != second
    assert values.tolist() not in (first, second)


def test_result_is_determined_by_the_seed_and_has_the_keys_of_the_page(plain, digits):
    first, second, other = (plain.run("vanilla-vae", digits, 2, seed) for seed in (3, 3, 4))
    assert first["metrics"] == second["metrics"] != other["metrics"]
    metrics = first["metrics"]
    assert metrics["train/loss"] < metrics["epoch 1/loss"]
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/recon"] - metrics["test/kl"])


def test_result_of_several_seeds_is_their_mean_with_the_range(plain, digits):
    each = [plain.run("vanilla-vae", digits, 1, seed)["metrics"] for seed in (3, 4)]
    both = plain.run_seeds("vanilla-vae", digits, 1, [3, 4])
    for name, value in both["metrics"].items():
        values = [metrics[name] for metrics in each]
        assert value == pytest.approx(sum(values) / 2)
        assert both["ranges"][name] == [min(values), max(values)]
    assert plain.run_seeds("vanilla-vae", digits, 1, [3])["ranges"] == {}


def test_loss_of_an_epoch_is_the_mean_over_its_images(plain, digits):
    """With a learning rate of 0 the weights do not change, so the mean is that of all images."""
    x, y = digits["train"]
    recipe = replace(plain.RECIPES["vanilla-ae"], lr=0.0)
    x = plain.prepare(recipe, x)
    network = recipe.network(28)
    [loss] = plain.train(recipe, network, x, y, 1)  # 300 images: 4 batches of 64 and one of 44
    with torch.no_grad():
        assert loss == pytest.approx(float(plain.training_loss(recipe, network, x, y)), rel=1e-5)


@pytest.mark.parametrize("preset", OF_8X8)
def test_images_of_8x8_can_be_trained(plain, digits, preset):
    small = {name: (x[:, :, 2:26:3, 2:26:3], y) for name, (x, y) in digits.items()}
    assert all(math.isfinite(value) for value in plain.run(preset, small, 1)["metrics"].values())


def test_deconv_vae_refuses_images_of_another_size(plain):
    with pytest.raises(SystemExit, match="needs images of 28x28, not 8x8"):
        plain.deconv_vae(8)
