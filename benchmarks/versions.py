"""Speed of two checkouts of LatentForge: detects cases in which the newer one is slower.

    python benchmarks/versions.py BASE NEW [--pairs 15] [--case NAME] [--threads 2] [--json FILE]

A sample measures a case in processes that import one checkout. A pair is one sample of each, and
every second pair starts with NEW. The result of a case is the median over the pairs of
rate(NEW) / rate(BASE), with the exact binomial interval of a median: of 15 sorted ratios, from the
4th to the 12th. The exit code is 1 if an interval is entirely below 0.98.

- The networks of networks.py: images per second of the training epochs after the first.
- evaluate-vae: images per second of `Forge.evaluate`, after a first call.
- help, plugins-list: starts of the command per second, from the wall time of whole processes.

Samples use only the public API, because internal modules differ between checkouts. Both sides read
entry points from the installed distribution, so a plugin that it does not list is not loaded.
The script uses MNIST from LATENTFORGE_DATA. Without it, the script uses the digits of scikit-learn,
repeated to the same number of images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import turns

HERE = Path(__file__).resolve().parent
PAIRS, LIMIT = 15, 0.98
EPOCHS = 3
# Training steps per epoch, by the names of networks.CASES: about 0.8 s on two cores.
STEPS = {
    "mlp-classifier": 800,
    "ae": 480,
    "vae": 200,
    "ae-z2": 200,
    "cnn-classifier": 24,
    "conv-vae": 8,
}
EVALUATIONS, EVALUATED = 3, 10_000  # calls, and images of each
STARTS = {"help": ["--help"], "plugins-list": ["plugins", "list"]}
STARTED = 5  # processes in a sample
CASES = (*STEPS, "evaluate-vae", *STARTS)


# ---------------------------------------------------------------- in the process of a sample


def images(split: str, count: int) -> tuple[Any, Any]:
    """The first `count` images and labels of a split, which is repeated if it has fewer."""
    import torch

    from latentforge import Forge

    name = "mnist" if os.environ.get("LATENTFORGE_DATA") else "digits"
    data = Forge().load_data(name).split(split)
    index = torch.arange(count) % len(data.x)
    return data.x[index], data.y[index]


def train(name: str, steps: int) -> float:
    """Images per second of the training epochs after the first, including their checkpoints."""
    from networks import CASES as NETWORKS

    from latentforge import Forge

    case = NETWORKS[name]
    with tempfile.TemporaryDirectory() as scratch:
        run = Forge().train(
            case.model,
            model=case.options,
            data={"train": images("train", steps * case.batch_size), "test": images("test", 100)},
            train={"epochs": EPOCHS, "batch_size": case.batch_size, "device": "cpu"},
            run=Path(scratch) / "run",
            quiet=True,
        )
        return turns.steady_rate(run)


def evaluate() -> float:
    """Images per second of the evaluation of a `vae` with its default measures."""
    from latentforge import Forge

    forge = Forge()
    data = {"train": images("train", 128), "test": images("test", EVALUATED)}
    with tempfile.TemporaryDirectory() as scratch:
        train = {"epochs": 1, "batch_size": 128, "device": "cpu"}
        run = forge.train("vae", data=data, train=train, run=Path(scratch) / "run", quiet=True)
        forge.evaluate(run, data=data, device="cpu")  # imports and first kernels
        start_time = time.perf_counter()
        for _ in range(EVALUATIONS):
            forge.evaluate(run, data=data, device="cpu")
        return EVALUATIONS * EVALUATED / (time.perf_counter() - start_time)


# ---------------------------------------------------------------- samples and pairs


def environment(checkout: Path) -> dict[str, str]:
    """Variables with which a process imports the checkout and nothing from the current folder."""
    folders = (checkout, checkout / "plugins", HERE)
    return {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONSAFEPATH": "1"}


def sample(case: str, steps: int | None, checkout: Path) -> float:
    """The rate of a case, measured in processes of one checkout."""
    variables = environment(checkout)
    if case in STARTS:
        command = [sys.executable, "-m", "latentforge", *STARTS[case]]
        return STARTED / sum(turns.run(command, **variables).seconds for _ in range(STARTED))
    call = f"train({case!r}, {steps or STEPS[case]})" if case in STEPS else "evaluate()"
    code = f"import versions; print(versions.{call})"
    return float(turns.run([sys.executable, "-c", code], **variables).out.split()[-1])


def prepare(checkout: Path) -> None:
    """Exit unless processes import this checkout. Then run each command once, so that no sample
    compiles bytecode."""
    code = "import latentforge, latentforge_plugins as p; print(latentforge.__path__ + p.__path__)"
    imported = turns.run([sys.executable, "-c", code], **environment(checkout)).out.strip()
    packages = [checkout / "latentforge", checkout / "plugins" / "latentforge_plugins"]
    if imported != str([str(package) for package in packages]):
        hint = "try: git worktree add FOLDER COMMIT"
        sys.exit(f"{checkout} is not a checkout of LatentForge: Python imports {imported}\n{hint}")
    for arguments in STARTS.values():
        turns.run([sys.executable, "-m", "latentforge", *arguments], **environment(checkout))


def compare_rates(rates: dict[str, list[float]]) -> dict[str, Any]:
    """The median ratio of the pairs, its interval, and whether NEW is slower."""
    ratios = [new / base for base, new in zip(rates["base"], rates["new"], strict=True)]
    interval = turns.median_interval(ratios)
    slower = interval is not None and interval[1] < LIMIT
    return {"ratio": statistics.median(ratios), "interval": interval, "slower": slower}


# ---------------------------------------------------------------- output


def show(table: turns.Table, case: str, results: dict[str, Any]) -> None:
    start = case in STARTS
    medians = [statistics.median(rates) for rates in results["rates"].values()]
    cells = [f"{1000 / rate if start else rate:,.0f}" for rate in medians]
    interval = " to ".join(f"{end:.3f}" for end in results["interval"] or ()) or "none"
    unit = "ms" if start else "images/s"
    table.row(f"{case}, {unit}", *cells, f"{results['ratio']:.3f}", interval)


def verdict(cases: dict[str, Any], pairs: int) -> int:
    """Print the cases in which NEW is slower. Returns the exit code."""
    if pairs < PAIRS:
        note = " Fewer than 6 give no interval and no verdict." if pairs < 6 else ""
        print(f"\nNote: fewer than {PAIRS} pairs were used: {pairs}.{note}")
    slower = [case for case, results in cases.items() if results["slower"]]
    print(f"\nInterval entirely below {LIMIT}: {', '.join(slower) or 'no case'}.")
    return 1 if slower else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", type=Path, metavar="BASE", help="the checkout to compare with")
    parser.add_argument("new", type=Path, metavar="NEW", help="the checkout to test")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"[default: {PAIRS}]")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=2, help="[default: 2]")
    parser.add_argument("--steps", type=int, help="of a training epoch; default: per case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measured values")
    options = parser.parse_args()
    for name in ("pairs", "threads", "steps"):
        if (count := getattr(options, name)) is not None and count < 1:
            parser.error(f"--{name} {count}: at least 1")
    base, new = options.base.resolve(), options.new.resolve()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # torch loads in other processes only
    prepare(base)
    prepare(new)
    data = "MNIST" if os.environ.get("LATENTFORGE_DATA") else "digits"
    detail = f"{data}; BASE {base}, NEW {new}; medians, and ratios of rates, pairs: {options.pairs}"
    info = turns.headline("Speed of two checkouts", detail)
    table = turns.Table("case", "BASE", "NEW", "NEW / BASE", "interval, 95 %")
    cases = {}
    for case in dict.fromkeys(options.case or CASES):
        sides = {"base": partial(sample, case, options.steps, base)}
        sides["new"] = partial(sample, case, options.steps, new)
        rates = turns.take_turns(sides, options.pairs, swap=True)
        cases[case] = {"rates": rates, **compare_rates(rates)}
        show(table, case, cases[case])
    status = verdict(cases, options.pairs)
    summary = {"data": data, "base": str(base), "new": str(new), "pairs": options.pairs}
    turns.finish(options.json, info, {**summary, "limit": LIMIT, "cases": cases})
    return status


if __name__ == "__main__":
    sys.exit(main())
