"""What a checkpoint costs: of a 1 MB model with Adam's state, and of an epoch of `ae` on MNIST.

    python benchmarks/checkpoints.py [--repeats N]

Prints medians as one JSON object. MNIST is looked for in LATENTFORGE_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from latentforge import Forge
from latentforge.checkpoint import CheckpointStore

MEGABYTE = 2**20 // 4  # float32 numbers


def of_a_megabyte(folder: Path, repeats: int) -> float:
    """Milliseconds of one save: model, both moments, state, read back and published."""
    store = CheckpointStore(folder / "checkpoints")
    weights = {f"layer{i}.weight": torch.randn(MEGABYTE // 4) for i in range(4)}
    moments = {f"{i}.{key}": torch.randn(MEGABYTE // 4) for i in range(4) for key in "mv"}
    taken = []
    for step in range(repeats):
        began = time.perf_counter()
        store.save(f"step-{step:08d}", {"model": weights, "optimizer": moments}, {"step": step})
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def of_an_epoch(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of training and of saving in each epoch but the first, medians."""
    saving: list[float] = []
    save = CheckpointStore.save

    def timed(*arguments: Any, **options: Any) -> Path:
        began = time.perf_counter()
        try:
            return save(*arguments, **options)
        finally:
            saving.append(time.perf_counter() - began)

    CheckpointStore.save = timed  # type: ignore[method-assign]
    run = Forge().train(
        "ae", data="mnist", train={"epochs": repeats}, run=folder / "run", quiet=True
    )
    CheckpointStore.save = save  # type: ignore[method-assign]
    seconds = run.manifest["seconds"] / repeats  # with the saving
    saved = statistics.median(saving[1:])
    return {"epoch_s": seconds, "checkpoint_s": saved, "share": saved / (seconds - saved)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="[default: 5]")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as scratch:
        told = {"megabyte_ms": of_a_megabyte(Path(scratch), 10 * repeats)}
        told |= of_an_epoch(Path(scratch), repeats)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
