"""Time of the parts of a training step, in LatentForge and in a hand-written loop.

    python benchmarks/profile_step.py [--repeats 5] [--case vae] [--images 60000] [--json FILE]

The two variants train one epoch alternately, as in throughput.py. A timer wraps each part and does
not include the time of the parts that it calls, so the rows of a variant add up to its epoch. The
timer adds about 1 µs to each part, and the hand-written loop has fewer parts.

The first table contains the µs of one step, the second table the ms of work that an epoch does
once. The last row of the first table is the time of the network's matrix products, forward and
backward, on existing tensors. They cost the same however torch is called.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from pathlib import Path
from timeit import Timer
from typing import Any
from unittest.mock import patch

import torch
import turns
from networks import CASES, Case
from throughput import images
from torch import Tensor, nn

from latentforge import Forge
from latentforge.data.images import ImageSplit
from latentforge.engine import step
from latentforge.engine.finite import FiniteGate
from latentforge.engine.loss_log import LossLog
from latentforge.engine.step import StepRunner, Trainee
from latentforge.engine.trainer import Trainer
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.seeding import Noise

STEP = {
    "gather": "gathering images as floats",
    "forward": "forward, including the loss",
    "backward": "backward",
    "optimizer": "optimizer",
    "gradients": "zero_grad, accumulating the loss",
    "seed": "seeding the noise",
    "gate": "checking that the loss is finite",
    "history": "recording the loss and its terms",
    "logs": "reading and logging the loss every 50 steps",
    "step": "other",
    "engine": "Ignite events",
}
EPOCH = {
    "order": "order of the images",
    "checkpoint": "checkpoint, synced, read back",
    "evaluation": "evaluation of the test images",
    "metrics": "metrics, TensorBoard",
}
PARTS: list[tuple[Any, str, str]] = [  # owner, function, part
    (torch.Tensor, "backward", "backward"),
    (torch.optim.Adam, "step", "optimizer"),
    (ImageSplit, "batch", "gather"),
    (Trainee, "forward", "forward"),
    (step, "train_step", "gradients"),
    (Noise, "reseed", "seed"),
    (FiniteGate, "passes", "gate"),
    (LossLog, "add", "history"),
    (Trainer, "_read_log", "logs"),
    (Trainer, "_step", "step"),
    (StepRunner, "start_epoch", "order"),
    (CheckpointStore, "save", "checkpoint"),
    (Trainer, "_evaluate", "evaluation"),
    (Trainer, "_end_epoch", "metrics"),
    (Trainer, "_run_engine", "engine"),
]


class Clock:
    """Seconds by part, without the seconds of the parts that a part calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inner = [0.0]  # for each running part: seconds of the parts that it called

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self.inner.append(0.0)
            start_time = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds = time.perf_counter() - start_time
                self.seconds[part] = self.seconds.get(part, 0.0) + seconds - self.inner.pop()
                self.inner[-1] += seconds

        return call

    @contextmanager
    def wrap_parts(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, part in PARTS:
                function = self.wrap(part, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, function))
            direct = step.direct_step  # returns the update function of a run
            stack.enter_context(
                patch.object(step, "direct_step", lambda o: self.wrap("optimizer", direct(o)))
            )
            yield


def by_hand(case: Case, x: Tensor, y: Tensor) -> dict[str, float]:
    clock = Clock()
    floats = x.float() / 255
    network = case.network()
    with clock.wrap_parts():
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        order = clock.wrap("order", lambda: torch.randperm(len(x)).split(case.batch_size))
        gather = clock.wrap("gather", lambda index: (floats[index], y[index]))
        forward = clock.wrap("forward", lambda batch: case.loss(network, *batch))
        zero_grad = clock.wrap("gradients", lambda: optimizer.zero_grad(set_to_none=True))
        add = clock.wrap("history", lambda total, loss: total + loss.detach())

        def loop() -> None:
            total = torch.zeros(())
            for index in order():
                loss = forward(gather(index))
                zero_grad()
                loss.backward()
                optimizer.step()
                total = add(total, loss)

        clock.wrap("step", loop)()
    return clock.seconds


def with_latentforge(case: Case, data: dict[str, Any], folder: Path) -> dict[str, float]:
    clock = Clock()
    with clock.wrap_parts():
        Forge().train(
            case.model,
            model=case.options,
            data=data,
            train={"epochs": 1, "batch_size": case.batch_size, "device": "cpu"},
            run=folder / f"run-{len(list(folder.iterdir()))}",
            quiet=True,
        )
    return clock.seconds


def matrix_product_time(case: Case) -> float:
    """µs of the matrix products of the linear layers in one step."""
    layers = [layer for layer in case.network().modules() if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach() for layer in layers]
    biases = [layer.bias.detach() for layer in layers]
    inputs = [torch.randn(case.batch_size, weight.shape[1]) for weight in weights]
    grads = [torch.randn(case.batch_size, weight.shape[0]) for weight in weights]

    def multiply_all() -> None:
        for x, weight, bias in zip(inputs, weights, biases, strict=True):
            torch.addmm(bias, x, weight.t())
        for x, grad in zip(inputs, grads, strict=True):
            torch.mm(grad.t(), x)
        for grad, weight in zip(grads[1:], weights[1:], strict=True):  # images need no gradient
            torch.mm(grad, weight)

    timer = Timer("multiply_all()", globals={"multiply_all": multiply_all})
    timer.timeit(20)
    return 1e6 * statistics.median(timer.repeat(20, 20)) / 20


def profile(case: Case, data: dict[str, Any], repeats: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds by variant and part, in µs of a step or ms of an epoch."""
    steps = -(-len(data["train"][0]) // case.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        sides = {
            "by-hand": partial(by_hand, case, *data["train"]),
            "latentforge": partial(with_latentforge, case, data, Path(scratch)),
        }
        measured = turns.take_turns(sides, repeats)
    unit = {**dict.fromkeys(STEP, 1e6 / steps), **dict.fromkeys(EPOCH, 1e3)}
    return {
        side: {
            part: factor * statistics.median(record.get(part, 0.0) for record in records)
            for part, factor in unit.items()
        }
        for side, records in measured.items()
    }


def show(name: str, found: dict[str, dict[str, float]], products: float) -> None:
    for parts, title in ((STEP, f"{name}: one step, µs"), (EPOCH, f"{name}: an epoch, ms")):
        table = turns.Table(title, "by hand", "LatentForge", "difference", first=39)
        rows = {text: [found[side][part] for side in found] for part, text in parts.items()}
        rows["total"] = [sum(column) for column in zip(*rows.values(), strict=True)]
        for text, (by_hand, ours) in rows.items():
            table.row(text, f"{by_hand:,.1f}", f"{ours:,.1f}", f"{ours - by_hand:+,.1f}")
        if parts is STEP:
            table.row("matrix products only", f"{products:,.1f}", f"{products:,.1f}", "")
        print()


def main() -> None:
    names = ("vae", "ae", "mlp-classifier")
    parser = turns.make_parser(__doc__, repeats=5)
    parser.add_argument("--images", type=int, default=60_000, help="[default: 60000]")
    parser.add_argument("--case", choices=names, action="append", help="default: all")
    options = parser.parse_args()
    x, y, source = images()
    x, y = x[: options.images], y[: options.images]
    data = {"train": (x, y), "test": (x[: len(x) // 6 + 1], y[: len(x) // 6 + 1])}
    detail = f"{source}, {len(x):,} images; medians of {options.repeats} rounds"
    info = turns.headline("Time of the parts of a step", detail)
    cases = {}
    for name in options.case or names:
        case = CASES[name]
        results, products = profile(case, data, options.repeats), matrix_product_time(case)
        show(f"{name}, {case.batch_size}", results, products)
        cases[name] = {**results, "products": products}
    turns.finish(options.json, info, {"data": source, "images": len(x), "cases": cases})


if __name__ == "__main__":
    main()
