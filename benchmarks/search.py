"""Speed of guided search: the explorer `guided` compared with a hand-written search.

    python benchmarks/search.py [--repeats 3] [--data mnist] [--requests 100] [--json FILE]

The script first trains a `vae` and an `mlp-classifier`. A request is satisfied by an image to which
the classifier assigns a given class with p >= 0.9. It starts at the code of an image of another
class.

- alike: `guided` reduced to the hand-written search: one start, Adam with learning rate 0.1, at
  most 60 steps, no noise, no prior, no steps after a request is satisfied. The requests are one
  batch.
- by-hand: a loop over at most --most requests with the same starts and steps, because the requests
  per second do not depend on their number. `same` is the fraction of requests that both searches
  satisfied after the same number of steps, or that neither satisfied.
- default: `guided` with default settings (up to 16 starts, two solutions per request, annealed
  noise, a prior, 60 more steps per solution). It is a different search, so it has no ratio.

Requests per second cover only the search. `explore` is the whole time of the explorer without the
start of Python: reading the run, encoding the training images, fitting the mixture, rendering.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import turns
from torch import Tensor, nn

from latentforge import Forge, Run

STEPS, LR, THRESHOLD = 60, 0.1, 0.9
SAME_SETTINGS: dict[str, Any] = {"restarts": 1, "solutions": 1, "steps": STEPS}
SAME_SETTINGS |= {"threshold": THRESHOLD}
SAME_SETTINGS |= {"optimizer": "adam", "lr": LR, "unit": "one", "prior": "none"}
SAME_SETTINGS |= {"noise": 0.0, "jitter": 0.0, "settle": 0}


class Search:
    """The compared searches for one VAE, one classifier and one number of requests."""

    def __init__(self, vae: Run, classifier: Run, requests: int, max_requests: int) -> None:
        self.vae, self.classifier = vae, classifier
        self.requests, self.max_requests = requests, max_requests
        self.models = [run.load_model().requires_grad_(False) for run in (vae, classifier)]
        self.found: dict[str, Any] = {}  # of the last search; `by_hand` uses those of `alike`

    def guided(self, **options: Any) -> dict[str, Any]:
        start_time = time.perf_counter()
        answer = self.vae.explore(
            "guided", roles={"classifier": self.classifier}, quiet=True, n=self.requests, **options
        )
        seconds = time.perf_counter() - start_time
        with np.load(Path(answer["out"]) / "found.npz") as found:
            self.found = dict(found)
        metrics = {key: answer["metrics"][key] for key in ("requests_per_second", "success_share")}
        return {**metrics, "explore_seconds": seconds}

    def alike(self) -> dict[str, Any]:
        return self.guided(**SAME_SETTINGS)

    def by_hand(self) -> dict[str, Any]:
        start = torch.from_numpy(self.found["start"])[: self.max_requests]
        start_time = time.perf_counter()
        walks = [search_one(*self.models, z, request % 10) for request, z in enumerate(start)]
        seconds = time.perf_counter() - start_time
        steps, satisfied = (np.array(column) for column in zip(*walks, strict=True))
        reference = [self.found[key][: self.max_requests] for key in ("steps", "satisfied")]
        same = (satisfied == reference[1]) & (~satisfied | (steps == reference[0]))
        return {
            "requests_per_second": len(walks) / seconds,
            "success_share": float(satisfied.mean()),
            "same": float(same.mean()),
        }


def search_one(
    vae: nn.Module, classifier: nn.Module, start: Tensor, label: int
) -> tuple[int, bool]:
    """The number of steps of one request, and whether it was satisfied."""
    z = start[None].clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=LR)
    for step in range(STEPS + 1):
        log_p = classifier(vae.decode(z)).log_softmax(1)[0, label]  # type: ignore[operator]
        if log_p.item() >= math.log(THRESHOLD):
            return step, True
        if step < STEPS:
            optimizer.zero_grad()
            (-log_p).backward()
            optimizer.step()
    return STEPS, False


def measure(search: Search, repeats: int) -> dict[str, Any]:
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "alike": search.alike,
        "by-hand": search.by_hand,
        "default": search.guided,
    }
    measured = turns.take_turns(sides, repeats)
    results: dict[str, Any] = {
        side: {key: [turn[key] for turn in records] for key in records[0]}
        for side, records in measured.items()
    }
    rates = [results[side]["requests_per_second"] for side in ("alike", "by-hand")]
    return {**results, "ratio": turns.ratio(*rates)}


def show(table: turns.Table, requests: int, results: dict[str, Any]) -> None:
    for side in ("alike", "by-hand", "default"):
        medians = {key: statistics.median(values) for key, values in results[side].items()}
        explore = f"{medians['explore_seconds']:.1f}" if "explore_seconds" in medians else ""
        ratio = f"{results['ratio']:.1f}" if side == "alike" else ""
        same = f"{medians['same']:.0%}" if "same" in medians else ""
        rate = f"{medians['requests_per_second']:,.1f}"
        satisfied = f"{medians['success_share']:.0%}"
        table.row(f"{requests:,} requests, {side}", rate, ratio, satisfied, same, explore)


def train_models(options: argparse.Namespace, folder: Path) -> list[Run]:
    return [
        Forge().train(
            model,
            data=options.data,
            train={"epochs": options.epochs, "batch_size": 128, "device": "cpu"},
            run=folder / model,
            quiet=True,
        )
        for model in ("vae", "mlp-classifier")
    ]


def main() -> None:
    default = "mnist" if os.environ.get("LATENTFORGE_DATA") else "digits"
    parser = turns.make_parser(__doc__, repeats=3)
    parser.add_argument("--data", default=default, choices=["mnist", "digits"])
    parser.add_argument("--epochs", type=int, default=3, help="of both models  [default: 3]")
    sizes_help = "repeatable  [default: 10, 100, 1000]"
    parser.add_argument("--requests", type=int, action="append", help=sizes_help)
    parser.add_argument("--most", type=int, default=100, help="requests by hand  [default: 100]")
    options = parser.parse_args()
    detail = f"{options.data}, {options.epochs} epochs; medians of {options.repeats} rounds"
    info = turns.headline("Guided search", detail)
    sizes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        runs = train_models(options, Path(scratch))
        columns = ("requests/s", "/ by hand", "satisfied", "same", "explore, s")
        table = turns.Table("search", *columns, first=30)
        for requests in options.requests or (10, 100, 1000):
            results = measure(Search(*runs, requests, options.most), options.repeats)
            sizes[str(requests)] = results
            show(table, requests, results)
    turns.finish(options.json, info, {"data": options.data, "requests": sizes})


if __name__ == "__main__":
    main()
