"""The variants of benchmarks/whole.py that train a `vae` without LatentForge.

    python benchmarks/whole_sides.py SIDE --data DIR --epochs N --out FILE [--to-first-step]

Each variant reads DIR/MNIST/raw, trains with batch size 128 on the CPU, saves the weights and
prints the training time in seconds. It does not evaluate.

- by-hand: float images in memory, fused Adam, and a sum of the losses.
- by-hand-bytes: the same with images as bytes; each batch is converted to floats.
- write-up: torchvision's MNIST, ToTensor, a DataLoader that shuffles, an eager loop, plain Adam.
- lightning: the same data with PyTorch Lightning, without checkpoints and logs.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
from networks import vae, vae_loss
from torch import Tensor, nn

BATCH = 128


def by_hand(options: argparse.Namespace) -> tuple[nn.Module, float]:
    import numpy as np

    file = options.data / "MNIST" / "raw" / "train-images-idx3-ubyte"
    x = torch.from_numpy(np.fromfile(file, np.uint8)[16:].reshape(-1, 784))
    floats = options.side == "by-hand"
    if floats:
        x = x.float() / 255
    network = vae()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    start_time = time.perf_counter()
    for _ in range(options.epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(x)).split(BATCH):
            if options.to_first_step:
                os._exit(0)  # skips the clean-up, which must not be in the measured time
            batch = x[index] if floats else x.index_select(0, index) / 255
            loss = vae_loss(network, batch, index)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        assert torch.isfinite(total)
    return network, time.perf_counter() - start_time


def loader(folder: Path) -> Any:
    from latentforge_plugins.torchvision_import import import_torchvision

    torchvision = import_torchvision()
    from torch.utils.data import DataLoader
    from torchvision.transforms import ToTensor

    data = torchvision.datasets.MNIST(str(folder), transform=ToTensor())
    return DataLoader(data, BATCH, shuffle=True)


def write_up(options: argparse.Namespace) -> tuple[nn.Module, float]:
    batches, network = loader(options.data), vae()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    start_time = time.perf_counter()
    for _ in range(options.epochs):
        total = 0.0
        for images, labels in batches:
            optimizer.zero_grad()
            loss = vae_loss(network, images, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return network, time.perf_counter() - start_time


def with_lightning(options: argparse.Namespace) -> tuple[nn.Module, float]:
    batches = loader(options.data)  # before lightning, whose import of torchvision would fail
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = vae()

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = vae_loss(self.network, *batch)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

        def on_train_start(self) -> None:
            self.start_time = time.perf_counter()

        def on_train_end(self) -> None:
            self.seconds = time.perf_counter() - self.start_time

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        default_root_dir=options.out.parent,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, batches)
    return module.network, module.seconds


SIDES = {
    "by-hand": by_hand,
    "by-hand-bytes": by_hand,
    "write-up": write_up,
    "lightning": with_lightning,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to-first-step", action="store_true")
    options = parser.parse_args()
    network, seconds = SIDES[options.side](options)
    torch.save(network.state_dict(), options.out)
    print(f"\nseconds {seconds:.3f}")


if __name__ == "__main__":
    main()
