"""Training speed: LatentForge against a loop written by hand for the same network, in one process.

The two sides take short turns, each training from scratch; what counts is the median of the ratios
of neighbouring turns, for a shared machine is never equally fast for long.
The hand-written side keeps float images in memory (padded beforehand where the network wants
that), uses fused Adam, and adds up its loss; LatentForge logs, shows progress and writes a
checkpoint an epoch, as it always does. Evaluation is left out on both sides.

    python benchmarks/throughput.py [--repeats 15] [--epochs 1] [--threads N] [--case ae]

Real MNIST through LATENTFORGE_DATA; without it, 60,000 random images, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import Forge


@dataclass
class Case:
    """The same training on both sides."""

    model: str
    options: dict[str, Any]
    batch_size: int
    network: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    pad: int = 0


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 16),
        nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 784),
    )  # fmt: skip


def autoencoder_loss(network: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    flat = x.flatten(1)
    return F.binary_cross_entropy_with_logits(network(flat), flat, reduction="sum") / len(x)


def classifier() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"), nn.ReLU(), nn.AvgPool2d(4),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip


def classifier_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(network(x), y)


CASES = {
    "ae": Case("ae", {"hidden": [128], "latent_dim": 16}, 64, autoencoder, autoencoder_loss),
    "cnn-classifier": Case("cnn-classifier", {}, 256, classifier, classifier_loss, pad=2),
}


def by_hand(case: Case, x: Tensor, y: Tensor, epochs: int) -> float:
    """Images per second of a plain loop over tensors in memory."""
    x = F.pad(x.float() / 255, (case.pad,) * 4).contiguous()
    network = case.network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    started = time.perf_counter()
    for _ in range(epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(x)).split(case.batch_size):
            loss = case.loss(network, x[index], y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        assert torch.isfinite(total)
    return epochs * len(x) / (time.perf_counter() - started)


def with_latentforge(case: Case, x: Tensor, y: Tensor, epochs: int, folder: Path) -> float:
    """Images per second as a run reports them: logging included, evaluation not."""
    run = Forge().train(
        case.model,
        model=case.options,
        data={"train": (x, y), "test": (x[:1000], y[:1000])},
        train={"epochs": epochs, "batch_size": case.batch_size},
        run=folder / f"run-{len(list(folder.iterdir()))}",
    )
    return float(run.manifest["images_per_second"])


def images() -> tuple[Tensor, Tensor, str]:
    if os.environ.get("LATENTFORGE_DATA"):
        train = Forge().load_data("mnist").split("train")
        assert train.y is not None
        return train.x, train.y, "MNIST"
    torch.manual_seed(0)
    x = torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8)
    return x, torch.randint(0, 10, (60_000,)), "random images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    x, y, source = images()
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{source}, {machine}, torch {torch.__version__}")
    print(f"{'case':16}{'by hand':>14}{'LatentForge':>14}{'ratio':>8}   (images/s, medians)")
    results = {}
    for name in options.case or CASES:
        case = CASES[name]
        hand, ours = [], []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.repeats):
                hand.append(by_hand(case, x, y, options.epochs))
                ours.append(with_latentforge(case, x, y, options.epochs, Path(folder)))
        ratio = statistics.median(o / h for o, h in zip(ours, hand, strict=True))
        medians = statistics.median(hand), statistics.median(ours)
        print(f"{name:16}{medians[0]:14,.0f}{medians[1]:14,.0f}{ratio:8.3f}", flush=True)
        results[name] = {"by_hand": hand, "latentforge": ours, "median_ratio": ratio}
    if options.json:
        options.json.write_text(json.dumps({"data": source, "cases": results}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
