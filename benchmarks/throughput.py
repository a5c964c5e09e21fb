"""Training speed of LatentForge and of four other ways to train the same network, in one process.

    python benchmarks/throughput.py [--repeats 3] [--case ae] [--side by-hand] [--json FILE]

The variants run alternately in short rounds, and each round trains from scratch. The result is the
median of the ratios within the rounds, because the speed of a shared machine changes over time.

- write-up: torchvision's MNIST, ToTensor, a DataLoader that shuffles, an eager loop, plain Adam.
- lightning: the same data with PyTorch Lightning (extra `bench`), without checkpoints and logs.
- ignite: the same data with create_supervised_trainer, RunningAverage and ProgressBar.
- by-hand: float images in memory (already padded if the network needs padding), fused Adam, and a
  sum of the losses.
- latentforge: default settings, with logs, progress and a checkpoint per epoch.

Evaluation is not included. The three DataLoader baselines train only on the first --few images,
because their images per second do not depend on the number of images. For `conv-vae` all variants
train on half as many. The script uses MNIST from LATENTFORGE_DATA, or random images without it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import turns
from latentforge_plugins.torchvision_import import import_torchvision
from networks import CASES, Case
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from latentforge import Forge


class TorchvisionImages(Dataset[tuple[Tensor, int]]):
    """Processes each image as torchvision's MNIST does: PIL, then ToTensor."""

    def __init__(self, x: Tensor, y: Tensor, pad: int) -> None:
        import_torchvision()
        from torchvision import transforms

        steps = [transforms.Pad(pad)] if pad else []
        self.x, self.y = x.squeeze(1).numpy(), y
        self.transform = transforms.Compose([*steps, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.x[i], mode="L")), int(self.y[i])


def loader(case: Case, x: Tensor, y: Tensor) -> DataLoader[Any]:
    return DataLoader(TorchvisionImages(x, y, case.pad), case.batch_size, shuffle=True)


def write_up(case: Case, x: Tensor, y: Tensor, _: Path) -> float:
    network = case.network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    batches, total = loader(case, x, y), 0.0
    start_time = time.perf_counter()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = case.loss(network, images, labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return len(x) / (time.perf_counter() - start_time)


def with_lightning(case: Case, x: Tensor, y: Tensor, folder: Path) -> float:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = case.network()

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = case.loss(self.network, *batch)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

        def on_train_start(self) -> None:
            self.start_time = time.perf_counter()

        def on_train_end(self) -> None:
            self.seconds = time.perf_counter() - self.start_time

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader(case, x, y))
    return len(x) / module.seconds


def with_ignite(case: Case, x: Tensor, y: Tensor, _: Path) -> float:
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import ProgressBar
    from ignite.metrics import RunningAverage

    class WithLoss(nn.Module):
        """Contains the loss, because Ignite's factory calls model(x) and loss(model(x), y)."""

        def __init__(self) -> None:
            super().__init__()
            self.network = case.network()

        def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return case.loss(self.network, *batch)

    network = WithLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    trainer = create_supervised_trainer(
        network,
        optimizer,
        lambda loss, _: loss,
        prepare_batch=lambda batch, *_, **__: (batch, batch[1]),
    )
    RunningAverage(output_transform=float).attach(trainer, "loss")
    with contextlib.redirect_stderr(io.StringIO()):
        ProgressBar().attach(trainer, ["loss"])
        batches, start_time = loader(case, x, y), time.perf_counter()
        trainer.run(batches, max_epochs=1)
    return len(x) / (time.perf_counter() - start_time)


def by_hand(case: Case, x: Tensor, y: Tensor, _: Path) -> float:
    x = F.pad(x.float() / 255, (case.pad,) * 4).contiguous()
    network = case.network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    start_time = time.perf_counter()
    total = torch.zeros(())
    for index in torch.randperm(len(x)).split(case.batch_size):
        loss = case.loss(network, x[index], y[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()
    assert torch.isfinite(total)
    return len(x) / (time.perf_counter() - start_time)


def with_latentforge(settings: dict[str, Any]) -> Callable[[Case, Tensor, Tensor, Path], float]:
    def side(case: Case, x: Tensor, y: Tensor, folder: Path) -> float:
        run = Forge().train(
            case.model,
            model=case.options,
            data={"train": (x, y), "test": (x[:100], y[:100])},
            train={"epochs": 1, "batch_size": case.batch_size, **settings},
            run=folder / f"run-{len(list(folder.iterdir()))}",
            quiet=True,
        )
        ours, theirs = parameters(run.load_model()), parameters(case.network())
        if ours != theirs:
            raise SystemExit(f"{case.model}: {ours} parameters, but {theirs} by hand")
        return float(run.manifest["images_per_second"])

    return side


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


SLOW = {"write-up": write_up, "lightning": with_lightning, "ignite": with_ignite}


def images() -> tuple[Tensor, Tensor, str]:
    if os.environ.get("LATENTFORGE_DATA"):
        train = Forge().load_data("mnist").split("train")
        assert train.y is not None
        return train.x, train.y, "MNIST"
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return x, torch.randint(0, 10, (60_000,), generator=generator), "random images"


def measure(
    case: Case, sides: dict[str, Any], x: Tensor, y: Tensor, few: int, repeats: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        counts = {name: few if name in SLOW else len(x) for name in sides}
        if case.slow:
            counts = dict.fromkeys(sides, few // 2)
        rates: dict[str, list[float]] = turns.take_turns(
            {
                name: partial(side, case, x[: counts[name]], y[: counts[name]], Path(scratch))
                for name, side in sides.items()
            },
            repeats,
        )
    ours = rates["latentforge"]
    ratios = {
        name: turns.ratio(ours, theirs) for name, theirs in rates.items() if name != "latentforge"
    }
    return {"images_per_second": rates, "ratios": ratios, "target": case.target}


def show(table: turns.Table, name: str, results: dict[str, Any]) -> None:
    rates = results["images_per_second"].values()
    table.row(f"{name}: images/s", *(f"{statistics.median(rate):,.0f}" for rate in rates))
    targets = dict(zip(("by-hand", "lightning"), results["target"], strict=True))
    table.row(
        "LatentForge / variant", *(f"{ratio:.2f}" for ratio in results["ratios"].values()), ""
    )
    table.row(
        "aim", *(f"{targets[side]}" if side in targets else "" for side in results["ratios"]), ""
    )


def select_sides(requested: list[str] | None, precision: str) -> dict[str, Any]:
    """The functions of the requested variants by name. LatentForge is the last."""
    functions: dict[str, Any] = {**SLOW, "by-hand": by_hand}
    sides = {name: side for name, side in functions.items() if name in (requested or functions)}
    if "lightning" in sides:
        import_torchvision()  # before lightning, which imports it without the workaround
        try:
            import lightning  # noqa: F401
        except ImportError:
            print("without lightning; try: pip install 'latentforge[bench]'\n")
            del sides["lightning"]
    return {**sides, "latentforge": with_latentforge({"precision": precision})}


def main() -> None:
    parser = turns.make_parser(__doc__, repeats=3)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--images", type=int, help="images of the variants in memory; default: all")
    parser.add_argument("--few", type=int, default=12_800, help="images of the DataLoader variants")
    parser.add_argument("--case", choices=CASES, action="append")
    others = [*SLOW, "by-hand"]
    parser.add_argument("--side", choices=others, action="append", help="default: all")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    x, y, source = images()
    x, y = x[: options.images], y[: options.images]
    sides = select_sides(options.side, options.precision)
    few = min(options.few, len(x))
    info = turns.headline(
        "Training speed",
        f"{source}, {len(x):,} images ({few:,} for the DataLoader variants, {few // 2:,} in "
        f"conv-vae), LatentForge in {options.precision}; medians of {options.repeats} rounds",
    )
    table = turns.Table("case", *sides)
    results = {}
    for name in options.case or CASES:
        results[name] = measure(CASES[name], sides, x, y, few, options.repeats)
        show(table, name, results[name])
    summary = {"data": source, "precision": options.precision, "cases": results}
    turns.finish(options.json, info, {**summary, "images": len(x), "few": few})


if __name__ == "__main__":
    main()
