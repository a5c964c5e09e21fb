"""A sweep of beta-VAEs trained together against the same sweep one by one, in one process.

The two sides take turns; what counts is the median of the ratios of neighbouring turns, for a
shared machine is never equally fast for long. `steps`: the seconds of the optimizer steps alone;
`whole`: of the sweep as a user waits for it, with evaluation, checkpoints and report. Last it says
how many times the steps of one member all of them together take.

    python benchmarks/together.py [--members 16] [--epochs 2] [--repeats 5] [--data mnist]
        [--hidden 128] [--batch-size 64] [--device cuda]

Real MNIST through LATENTFORGE_DATA.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from latentforge import Forge


def sweep(options: argparse.Namespace, together: bool, folder: Path) -> tuple[float, float]:
    """Seconds of the steps of all members, and of the whole sweep."""
    began = time.perf_counter()
    made = Forge().sweep(
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
        out=folder,
        quiet=True,
    )
    whole = time.perf_counter() - began
    if any(member["alone_because"] for member in made.members) or made.status != "done":
        raise SystemExit(f"not what was to be measured: {made.members[0]}")
    seconds = [run.manifest["seconds"] for run in made.runs()]
    return (max(seconds) if together else sum(seconds)), whole


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    ratios: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.repeats):
            alone = sweep(options, False, Path(folder) / f"{turn}-alone")
            together = sweep(options, True, Path(folder) / f"{turn}-together")
            ratios.append((alone[0] / together[0], alone[1] / together[1]))
            print(
                f"turn {turn + 1}: steps {alone[0]:.1f} s and {together[0]:.1f} s, "
                f"whole {alone[1]:.1f} s and {together[1]:.1f} s"
            )
    steps, whole = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"{options.members} beta-VAEs on {options.data}, hidden {options.hidden}, batch "
        f"{options.batch_size}, {options.device}, {torch.get_num_threads()} threads: together "
        f"{steps:.2f} times as fast in steps, {whole:.2f} times as a whole; all together take "
        f"{options.members / steps:.2f} times the steps of one"
    )


if __name__ == "__main__":
    main()
