"""Time of a sweep of beta-VAEs that are trained together, or one after another, in one process.

    python benchmarks/together.py [--members 16] [--epochs 1] [--repeats 3] [--data mnist]
        [--hidden 128] [--batch-size 64] [--device cuda] [--json FILE]

The two variants run alternately. The result is the median of the ratios within the rounds, because
the speed of a shared machine changes over time. `steps` is the time of the optimizer steps. `whole`
is the time of the whole sweep with evaluation, checkpoints and report. The last line compares the
steps of all members together with the steps of one member.

The script uses MNIST from LATENTFORGE_DATA. Without it, the script uses digits.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import turns

from latentforge import Forge


def sweep(
    options: argparse.Namespace, together: bool, scratch: Path, number: Iterator[int]
) -> tuple[float, float]:
    """Seconds of the steps of all members, and seconds of the whole sweep."""
    start_time = time.perf_counter()
    result = Forge().sweep(
        "vae",
        loss="beta-elbo",
        data=options.data,
        model={"encoder": [options.hidden], "decoder": [options.hidden], "latent_dim": 16},
        train={
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "device": options.device,
        },
        grid={"loss.beta": [0.5 * (1 + member) for member in range(options.members)]},
        together=together,
        out=scratch / f"sweep-{next(number)}",
        quiet=True,
    )
    total = time.perf_counter() - start_time
    if any(member["alone_because"] for member in result.members) or result.status != "done":
        raise SystemExit(f"the sweep did not run as requested: {result.members[0]}")
    seconds = [run.manifest["seconds"] for run in result.runs()]
    return (max(seconds) if together else sum(seconds)), total


def main() -> None:
    parser = turns.make_parser(__doc__, repeats=3)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    default = "mnist" if os.environ.get("LATENTFORGE_DATA") else "digits"
    parser.add_argument("--data", default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    info = turns.headline(
        f"{options.members} models trained together",
        f"beta-VAEs on {options.data}, hidden {options.hidden}, batch {options.batch_size}, "
        f"{options.device}, epochs: {options.epochs}; medians of {options.repeats} rounds",
    )
    with tempfile.TemporaryDirectory() as folder:
        number = itertools.count()
        sides = {
            side: partial(sweep, options, side == "together", Path(folder), number)
            for side in ("one by one", "together")
        }
        times = turns.take_turns(sides, options.repeats)
    table = turns.Table("seconds", *sides, "times as fast")
    ratios = {}
    for index, part in enumerate(("steps", "whole")):
        one_by_one, together = (
            [times_of_run[index] for times_of_run in times[side]] for side in sides
        )
        ratios[part] = turns.ratio(one_by_one, together)
        medians = [f"{statistics.median(seconds):.1f}" for seconds in (one_by_one, together)]
        table.row(part, *medians, f"{ratios[part]:.2f}")
    steps_of_one = options.members / ratios["steps"]
    print(f"\nThe steps of all models take {steps_of_one:.2f} times as long as the steps of one.")
    results = {"members": options.members, "data": options.data, "epochs": options.epochs}
    turns.finish(
        options.json,
        info,
        {**results, "seconds": times, "ratios": ratios, "steps_of_one": steps_of_one},
    )


if __name__ == "__main__":
    main()
