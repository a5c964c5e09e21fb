"""Time of a checkpoint of a 1 MB model with Adam's state, and of `ae` after an epoch on MNIST.

    python benchmarks/checkpoints.py [--repeats 5] [--data mnist] [--json FILE]

A checkpoint is written, synced, read back and published. It is compared with `torch.save` of the
same tensors, which only writes. `share` is the time of the checkpoint divided by the time of the
rest of its epoch. The script uses MNIST from LATENTFORGE_DATA. Without it, the script uses digits.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import turns

from latentforge import Forge
from latentforge.runs.checkpoint import CheckpointStore

MEGABYTE = 2**20 // 4  # float32 numbers


def time_saves(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Time of each save of a model and Adam's moments in ms, by variant."""
    store = CheckpointStore(folder / "checkpoints")
    weights = {f"layer{i}.weight": torch.randn(MEGABYTE // 4) for i in range(4)}
    moments = {f"{i}.{key}": torch.randn(MEGABYTE // 4) for i in range(4) for key in "mv"}
    steps, plain = itertools.count(), folder / "plain.pt"

    def ours() -> float:
        step, start_time = next(steps), time.perf_counter()
        store.save(f"step-{step:08d}", {"model": weights, "optimizer": moments}, {"step": step})
        return 1000 * (time.perf_counter() - start_time)

    def torch_save() -> float:
        start_time = time.perf_counter()
        torch.save({"model": weights, "optimizer": moments}, plain)
        return 1000 * (time.perf_counter() - start_time)

    return turns.take_turns({"latentforge": ours, "torch.save": torch_save}, repeats)


def time_epoch(folder: Path, data: str, repeats: int) -> dict[str, float]:
    """Mean time of `repeats` epochs with their checkpoints, and median time of all checkpoints
    except the first, in ms."""
    save_seconds: list[float] = []
    save = CheckpointStore.save

    def timed_save(*arguments: Any, **options: Any) -> Path:
        start_time = time.perf_counter()
        try:
            return save(*arguments, **options)
        finally:
            save_seconds.append(time.perf_counter() - start_time)

    CheckpointStore.save = timed_save  # type: ignore[method-assign]
    train = {"epochs": repeats, "device": "cpu"}
    run = Forge().train("ae", data=data, train=train, run=folder / "run", quiet=True)
    CheckpointStore.save = save  # type: ignore[method-assign]
    epoch_ms = 1000 * run.manifest["seconds"] / repeats
    save_ms = 1000 * statistics.median(save_seconds[1:] or save_seconds)
    return {"epoch_ms": epoch_ms, "checkpoint_ms": save_ms, "share": save_ms / (epoch_ms - save_ms)}


def main() -> None:
    parser = turns.make_parser(__doc__, repeats=5)
    default = "mnist" if os.environ.get("LATENTFORGE_DATA") else "digits"
    parser.add_argument("--data", default=default)
    options = parser.parse_args()
    detail = f"medians of {10 * options.repeats} saves; {options.repeats} epochs"
    info = turns.headline("Time of a checkpoint", detail)
    with tempfile.TemporaryDirectory() as folder:
        megabyte = time_saves(Path(folder), 10 * options.repeats)
        epoch = time_epoch(Path(folder), options.data, options.repeats)
    ours, plain = megabyte["latentforge"], megabyte["torch.save"]
    ratio = turns.ratio(ours, plain)
    table = turns.Table("operation", "ms", "relative", first=44)
    table.row("torch.save of 1 MB with Adam's state", f"{statistics.median(plain):.1f}", "")
    table.row("checkpoint of the same tensors", f"{statistics.median(ours):.1f}", f"{ratio:.1f} x")
    table.row(f"an epoch of ae on {options.data}", f"{epoch['epoch_ms']:,.0f}", "")
    table.row("its checkpoint", f"{epoch['checkpoint_ms']:.1f}", f"{epoch['share']:.1%}")
    results = {"megabyte_ms": megabyte, "over_torch_save": ratio, "data": options.data}
    turns.finish(options.json, info, {**results, **epoch})


if __name__ == "__main__":
    main()
