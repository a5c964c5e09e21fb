"""Training speed on a GPU: a hand-written loop, and LatentForge without and with a CUDA graph.

    python benchmarks/gpu.py [--epochs 4] [--repeats 3] [--case vae] [--json FILE]

Three variants run alternately in one process: a hand-written loop over the same modules (images on
the device, fused Adam, no logging), LatentForge with `train.cuda_graph=off`, and LatentForge with
default settings. Images per second cover the epochs after the first, so they do not include the
graph capture. The seconds of the preset `fast-mnist-cnn` include it, but not reading the files,
building the network or the final evaluation. The script uses MNIST from LATENTFORGE_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from turns import steady_rate

from latentforge import Forge
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.contracts import Step
from latentforge.data.loading import load_splits
from latentforge.engine.build import build_trainee
from latentforge.workflows.run import Run

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mlp-classifier 64": ("mlp-classifier", {}, {"batch_size": 64}),
    "ae z=16, 64": ("ae", {"hidden": [128], "latent_dim": 16}, {"batch_size": 64}),
    "vae z=16, 128": ("vae", {}, {"batch_size": 128}),
    "ae z=2, 64": ("ae", {"hidden": [512, 128], "latent_dim": 2}, {"batch_size": 64}),
    "cnn-classifier 256": ("cnn-classifier", {}, {"batch_size": 256}),
    "cnn-classifier 256, bf16": ("cnn-classifier", {}, {"batch_size": 256, "precision": "bf16"}),
    "conv-vae 128": ("conv-vae", {}, {"batch_size": 128}),
    "conv-vae 128, contiguous": ("conv-vae", {}, {"batch_size": 128, "channels_last": "off"}),
    "conv-vae 128, bf16": ("conv-vae", {}, {"batch_size": 128, "precision": "bf16"}),
}


def run_by_hand(name: str, options: dict[str, Any], train: dict[str, Any], epochs: int) -> float:
    forge, draft = Forge(), Draft()
    draft.select("model", name, "the case")
    draft.update("model", options, "the case")
    draft.update("train", train, "the case")
    draft.update("data", {"name": "mnist"}, "the case")
    config = resolve(draft, forge.registry)
    splits = load_splits(config.dataset, config.data).to("cuda")
    trainee = build_trainee(config, splits).to("cuda")
    images, size = splits.split("train"), config.train.batch_size
    optimizer = torch.optim.Adam(trainee.parameters(), lr=1e-3, fused=True)
    rates = []
    for epoch in range(epochs):
        torch.cuda.synchronize()
        start_time = time.perf_counter()
        total = torch.zeros((), device="cuda")
        for index in torch.randperm(len(images), device="cuda").split(size):
            loss = trainee(images.batch(index), Step(epoch + 1, epochs, len(images), 1)).total()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        assert torch.isfinite(total)
        rates.append(len(images) / (time.perf_counter() - start_time))
    return statistics.median(rates[1:])


def run_latentforge(name: str, options: dict[str, Any], train: dict[str, Any], folder: Path) -> Run:
    run = folder / f"run-{len(list(folder.iterdir()))}"
    return Forge().train(name, data="mnist", model=options, train=train, run=run, quiet=True)


def compare(case: str, epochs: int, repeats: int) -> dict[str, Any]:
    name, options, train = CASES[case]
    sides: dict[str, list[float]] = {"by_hand": [], "stepwise": [], "latentforge": []}
    graph_status = ""
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(repeats):
            sides["by_hand"].append(run_by_hand(name, options, train, epochs))
            for side, graph in (("stepwise", "off"), ("latentforge", "auto")):
                settings = {**train, "epochs": epochs, "cuda_graph": graph}
                run = run_latentforge(name, options, settings, Path(scratch))
                sides[side].append(steady_rate(run))
                graph_status = run.manifest["steps_made"]["cuda_graph"]
    results: dict[str, Any] = {side: statistics.median(rates) for side, rates in sides.items()}
    for side in ("by_hand", "stepwise"):
        pairs = zip(sides["latentforge"], sides[side], strict=True)
        results[f"over_{side}"] = statistics.median(a / b for a, b in pairs)
    return {**results, "cuda_graph": graph_status}


def measure_preset(seeds: int) -> list[dict[str, float]]:
    """Seconds of training and test accuracy of `fast-mnist-cnn` for each seed."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            run = Forge().train(
                preset="fast-mnist-cnn",
                train={"seed": seed, "device": "cuda"},
                run=Path(scratch) / str(seed),
                quiet=True,
            )
            accuracy = run.metrics["test"]["accuracy"]
            results.append({"seconds": run.manifest["seconds"], "accuracy": accuracy})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, but torch finds none")
    machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    print(f"MNIST, {machine}\n")
    print(f"{'case':26}{'by hand':>12}{'eager':>12}{'graph':>13}{'ratios':>14}  images/s")
    cases = {}
    for case in options.case or CASES:
        result = cases[case] = compare(case, options.epochs, options.repeats)
        print(
            f"{case:26}{result['by_hand']:12,.0f}{result['stepwise']:12,.0f}"
            f"{result['latentforge']:13,.0f}{result['over_by_hand']:7.2f}"
            f"{result['over_stepwise']:7.2f}  {result['cuda_graph']}",
            flush=True,
        )
    preset_results = measure_preset(options.seeds)
    for seed, result in enumerate(preset_results):
        print(f"fast-mnist-cnn, seed {seed}: {result['accuracy']:.2%} in {result['seconds']:.2f} s")
    if options.json:
        results = {"machine": machine, "cases": cases, "fast_mnist_cnn": preset_results}
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
