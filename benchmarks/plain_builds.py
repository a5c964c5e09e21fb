"""Plain PyTorch implementations of the recipes of the presets: the references of reproduce.py.

    python benchmarks/plain_builds.py [PRESET ...] --data-file FILE [--epochs N] [--seed 0]
        [--threads 1]

Prints the metrics of each preset as a line of JSON. Without PRESET, reads presets from standard
input. FILE contains {"train": (x, y), "test": (x, y)}, saved by torch, x uint8 (N, 1, H, H).
Nothing of LatentForge is imported. Losses are in nats per image, summed over pixels; the loss of an
article that averages over pixels differs by a factor, which Adam cancels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from networks import Vae, cnn, conv_vae, mlp, mlp_classifier
from torch import Tensor, nn

# ---------------------------------------------------------------- networks, for images of one size


class Autoencoder(nn.Module):
    """An encoder and a decoder. `encode` returns the code, which has no log-variance."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        return self.encoder(x), None


def autoencoder(side: int, *, widths: tuple[int, ...], relu_code: bool = False) -> Autoencoder:
    """`widths` of the encoder's layers, the last of which is the code; the decoder mirrors them."""
    last = [nn.ReLU()] if relu_code else []
    encoder = nn.Sequential(nn.Flatten(), *mlp(side**2, *widths), *last)
    return Autoencoder(encoder, nn.Sequential(*mlp(*widths[::-1], side**2)))


def one_layer_vae(side: int, *, latent: int) -> Vae:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(side**2, 400), nn.ReLU())
    return Vae(encoder, 400, latent, nn.Sequential(*mlp(latent, 400, side**2)))


def two_layer_vae(side: int) -> Vae:
    encoder = nn.Sequential(nn.Flatten(), *mlp(side**2, 256, 128))  # no ReLU before the heads
    return Vae(encoder, 128, 16, nn.Sequential(*mlp(16, 128, 256, side**2)))


def deconv_vae(side: int) -> Vae:
    """For images of 28x28: the sides are 28, 13, 5, 2 in the encoder, 1, 4, 12, 28 after it."""
    if side != 28:
        raise SystemExit(f"grad-deconv-vae needs images of 28x28, not {side}x{side}")
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 4, stride=2), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3, stride=2), nn.ReLU(), nn.Flatten()),
    )
    decoder = nn.Sequential(
        *(nn.Linear(2, 1024), nn.ReLU(), nn.Unflatten(1, (1024, 1, 1))),
        *(nn.ConvTranspose2d(1024, 256, 4, stride=2), nn.ReLU()),
        *(nn.ConvTranspose2d(256, 128, 6, stride=2), nn.ReLU()),
        nn.ConvTranspose2d(128, 1, 6, stride=2),
    )
    return Vae(encoder, 2 * 2 * 128, 2, decoder)


# ---------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, with Adam and a constant learning rate.

    `network` takes the height of an image. `loss` is "cross-entropy" for a classifier, else the
    likelihood p(x | z): "bernoulli", or "gaussian" of sigma 1, which is half the squared error and
    a constant. A VAE adds `beta` times the KL. Images get a border of zeros so that their size is a
    multiple of `size_multiple`.
    """

    network: Callable[[int], nn.Module]
    epochs: int
    batch_size: int
    loss: str = "bernoulli"
    beta: float = 1.0
    lr: float = 1e-3
    size_multiple: int = 1


ae_64 = partial(Recipe, epochs=10, batch_size=64)
grad_128 = partial(Recipe, epochs=20, batch_size=128)
z2, z10 = (partial(one_layer_vae, latent=latent) for latent in (2, 10))

RECIPES = {
    # "Latent Space Differentiation"
    "latent-differentiation-classifier": Recipe(mlp_classifier, 5, 64, loss="cross-entropy"),
    "latent-differentiation-ae": ae_64(partial(autoencoder, widths=(512, 128, 2)), loss="gaussian"),
    # "10 Days Of Grad", day 9: "Roaming The Latent Space"
    "grad-ae": grad_128(partial(autoencoder, widths=(400, 2), relu_code=True)),
    "grad-vae-beta0": grad_128(z2, beta=0.0),
    "grad-vae-beta1": grad_128(z2),
    "grad-vae-beta4": grad_128(z2, beta=4.0),
    "grad-vae-z10-beta1": grad_128(z10),
    "grad-vae-z10-beta4": grad_128(z10, beta=4.0),
    "grad-deconv-vae": Recipe(deconv_vae, 3, 128),  # the article: 20 epochs
    # "Latent Diffusion Series: MNIST Classifier": a border of 2 pixels makes 28 to 32
    "diffusion-series-cnn": Recipe(cnn, 100, 256, loss="cross-entropy", size_multiple=16),
    # "MNIST Variational Autoencoder & t-SNE Visualisation": it states no epochs
    "tsne-conv-vae": Recipe(conv_vae, 5, 128),
    # The notebook on a vanilla autoencoder and a VAE
    "vanilla-ae": ae_64(partial(autoencoder, widths=(128, 16))),
    "vanilla-ae-relu": ae_64(partial(autoencoder, widths=(128, 16), relu_code=True)),
    "vanilla-vae": Recipe(two_layer_vae, 15, 128),
}


# ---------------------------------------------------------------- losses and metrics


def nll(logits: Tensor, x: Tensor, likelihood: str) -> Tensor:
    """-log p(x | z) of each image, (B,)."""
    if likelihood == "gaussian":
        pixels = 0.5 * (logits.sigmoid() - x).square() + 0.5 * math.log(2 * math.pi)
    else:
        pixels = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return pixels.flatten(1).sum(1)


def kl(mean: Tensor, log_var: Tensor | None) -> Tensor:
    """KL(q(z | x) || N(0, I)) of each image, (B,), and 0 for a code without a distribution."""
    if log_var is None:
        return mean.new_zeros(len(mean))
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def sample(mean: Tensor, log_var: Tensor | None) -> Tensor:
    return mean if log_var is None else mean + (0.5 * log_var).exp() * torch.randn_like(mean)


def training_loss(recipe: Recipe, network: Any, x: Tensor, y: Tensor) -> Tensor:
    if recipe.loss == "cross-entropy":
        return F.cross_entropy(network(x), y)
    mean, log_var = network.encode(x)
    logits = network.decoder(sample(mean, log_var)).view_as(x)
    return (nll(logits, x, recipe.loss) + recipe.beta * kl(mean, log_var)).mean()


def metrics_of_images(recipe: Recipe, network: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The values of each image, (B,), by metric."""
    if recipe.loss == "cross-entropy":
        return {"accuracy": network(x).argmax(1) == y}
    mean, log_var = network.encode(x)
    mode = network.decoder(mean).view_as(x)  # logits at the posterior's mode
    metrics = {
        "bce_per_pixel": nll(mode, x, "bernoulli") / x[0].numel(),
        "mse_per_pixel": (mode.sigmoid() - x).square().flatten(1).mean(1),
        "recon": nll(network.decoder(sample(mean, log_var)).view_as(x), x, recipe.loss),
    }
    if log_var is not None:
        metrics["kl"] = kl(mean, log_var)
        metrics["elbo"] = -metrics["recon"] - metrics["kl"]
        metrics["elbo_mean"] = -nll(mode, x, recipe.loss) - metrics["kl"]
    return metrics


# ---------------------------------------------------------------- training and evaluation


def prepare(recipe: Recipe, x: Tensor) -> Tensor:
    """Return bytes as floats in [0, 1] with the border of the recipe."""
    border = -x.shape[-1] % recipe.size_multiple // 2
    return F.pad(x.float() / 255, (border,) * 4)


def make_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=recipe.lr, fused=True)


def train(recipe: Recipe, network: nn.Module, x: Tensor, y: Tensor, epochs: int) -> list[float]:
    """Train the network. Return the mean loss of each epoch, while the weights change."""
    optimizer, means = make_optimizer(recipe, network), []
    network.train()
    for _ in range(epochs):
        total = torch.zeros((), dtype=torch.float64)
        for index in torch.randperm(len(x)).split(recipe.batch_size):
            loss = training_loss(recipe, network, x[index], y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += len(index) * loss.detach()
        means.append(float(total) / len(x))
    return means


@torch.no_grad()
def evaluate(recipe: Recipe, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the means over all images, z one sample of the posterior unless stated otherwise."""
    network.eval()
    totals: dict[str, float] = {}
    for images, labels in zip(x.split(500), y.split(500), strict=True):
        for name, values in metrics_of_images(recipe, network, images, labels).items():
            totals[name] = totals.get(name, 0.0) + float(values.double().sum())
    return {name: total / len(x) for name, total in totals.items()}


def run(
    preset: str, data: dict[str, tuple[Tensor, Tensor]], epochs: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Train the recipe of a preset and evaluate it. Return the training's seconds and the metrics
    by the keys of reproduce.py. `epochs` 0 are those of the recipe."""
    recipe = RECIPES[preset]
    (x, y), (test_x, test_y) = ((prepare(recipe, x), y) for x, y in (data["train"], data["test"]))
    torch.manual_seed(seed)
    network = recipe.network(x.shape[-1])
    network.to(memory_format=torch.channels_last)  # the same numbers, faster convolutions
    start_time = time.perf_counter()
    losses = train(recipe, network, x, y, epochs or recipe.epochs)
    seconds = time.perf_counter() - start_time
    metrics = {"epoch 1/loss": losses[0], "train/loss": losses[-1]}
    for name, value in evaluate(recipe, network, test_x, test_y).items():
        metrics[f"test/{name}"] = value
    return {"seconds": seconds, "metrics": metrics}


def run_seeds(
    preset: str, data: dict[str, tuple[Tensor, Tensor]], epochs: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Run a recipe with several seeds. Return the means, and for several seeds the smallest and the
    largest value of each metric."""
    results = [run(preset, data, epochs, seed) for seed in seeds]
    values = {name: [r["metrics"][name] for r in results] for name in results[0]["metrics"]}
    return {
        "seconds": sum(r["seconds"] for r in results) / len(results),
        "metrics": {name: sum(v) / len(v) for name, v in values.items()},
        "ranges": {name: [min(v), max(v)] for name, v in values.items() if len(v) > 1},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    help_text = f"{', '.join(RECIPES)}; PRESET:N runs N seeds; default: from standard input"
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=help_text)
    parser.add_argument("--data-file", type=Path, required=True, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=0, metavar="N", help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = torch.load(options.data_file)
    for preset in options.presets or map(str.strip, sys.stdin):
        name, _, count = preset.partition(":")
        seeds = range(options.seed, options.seed + int(count or 1))
        print(json.dumps(run_seeds(name, data, options.epochs, seeds)), flush=True)


if __name__ == "__main__":
    main()
