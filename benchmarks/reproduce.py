"""Trains every preset on MNIST, measures it, and writes docs/reproduction.md.

    python benchmarks/reproduce.py [--only NAME ...] [--seed 0] [--threads N]
        [--data digits --epochs 1] [--runs DIR] [--page FILE]

The presets are systems of five write-ups on the latent spaces of MNIST. A figure is judged by the
one that a plain, correct build of the same recipe gives, with a margin for the spread of seeds.
With --only, other data or other epochs, nothing is judged and no page is written unless --page
says where.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentforge import Forge, Run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reproduction.md"
CLASSIFIER = "diffusion-series-cnn"


@dataclass(frozen=True)
class Figure:
    """One figure of a system: its key in `split/name`, what the write-up says (or nothing), what a
    plain build gives, and the margin around that; `why` explains a known difference."""

    key: str
    said: str
    plain: float
    margin: float
    at_least: bool = False
    at_most: bool = False
    why: str = ""

    def holds(self, value: float) -> bool:
        if self.at_least:
            return value >= self.plain - self.margin
        if self.at_most:
            return value <= self.plain + self.margin
        return abs(value - self.plain) <= self.margin

    def expected(self) -> str:
        if self.at_least:
            return f"at least {self.plain:g}"
        if self.at_most:
            return f"at most {self.plain:g}"
        return f"{self.plain:g} ± {self.margin:g}"


@dataclass(frozen=True)
class System:
    """A preset, its figures, and a sentence on where ours and the write-up's differ."""

    preset: str
    what: str
    figures: Sequence[Figure] = ()
    note: str = ""
    extra: Sequence[str] = ()  # measures beside the default ones
    options: Sequence[str] = ()
    roles: dict[str, str] = field(default_factory=dict)  # role -> the preset of its run


SYSTEMS = (
    System(
        "latent-differentiation-classifier",
        "MLP classifier, 5 epochs",
        [Figure("test/accuracy", "", 0.965, 0.0, at_least=True)],
        "The write-up gives no accuracy.",
    ),
    System(
        "latent-differentiation-ae",
        "784-512-128-2 autoencoder, squared error, 10 epochs",
        [Figure("test/mse_per_pixel", "", 0.0375, 0.0, at_most=True)],
        "The write-up shows the latent map and gives no error.",
    ),
    System(
        "grad-ae",
        "784-400-2 autoencoder with a ReLU at the code, 20 epochs",
        note="The write-up shows pictures only; a ReLU at a two-dimensional code may switch one "
        "dimension off for good.",
    ),
    System(
        "grad-vae-beta0",
        "784-400-2 VAE, beta 0, 20 epochs",
        [Figure("test/recon", "", 144.1, 2.0)],
        "The KL of beta 0 is not trained on and left out of the comparison.",
    ),
    System(
        "grad-vae-beta1",
        "784-400-2 VAE, beta 1, 20 epochs",
        [
            Figure(
                "test/recon",
                "",
                146.3,
                1.5,
                why="seeds 0 to 3 give 144.8, 146.0, 147.5 and 147.4, and a plain loop in PyTorch "
                "144.7, 145.9 and 144.7 for its seeds 0 to 2",
            ),
            Figure("test/kl", "", 6.1, 0.3),
        ],
        "The write-up gives pictures and no figures.",
    ),
    System(
        "grad-vae-beta4",
        "784-400-2 VAE, beta 4, 20 epochs",
        [Figure("test/recon", "", 151.1, 2.0), Figure("test/kl", "", 4.0, 0.3)],
        "The write-up gives pictures and no figures.",
    ),
    System(
        "grad-vae-z10-beta1",
        "784-400-10 VAE, beta 1, 20 epochs",
        [Figure("test/recon", "", 88.7, 1.0), Figure("test/kl", "", 19.1, 0.5)],
        "The write-up gives pictures and no figures.",
    ),
    System(
        "grad-vae-z10-beta4",
        "784-400-10 VAE, beta 4, 20 epochs",
        [Figure("test/recon", "", 110.3, 1.5), Figure("test/kl", "", 9.3, 0.4)],
        "The write-up gives pictures and no figures.",
    ),
    System(
        "grad-deconv-vae",
        "Strided and transposed convolutions, z=2, 3 epochs",
        note="20 epochs in the write-up, which gives no figure; 3 here, to fit a CPU.",
    ),
    System(
        CLASSIFIER,
        "CNN classifier, 100 epochs",
        [Figure("test/accuracy", "0.991", 0.991, 0.0, at_least=True)],
        "The write-up counts 16,554 parameters; the network that it prints has 7,178, as ours.",
    ),
    System(
        "tsne-conv-vae",
        "Batch norm, pooling, upsampling, z=20, 5 epochs",
        [Figure("epoch 1/loss", "", 158.8, 5.0)],
        "The write-up gives neither epochs nor figures; 5 epochs fit a CPU. The figure is the "
        "training loss of the first epoch.",
    ),
    System(
        "vanilla-ae",
        "784-128-16 autoencoder, 10 epochs",
        [Figure("test/bce_per_pixel", "0.1145", 0.099, 0.002)],
        "Below the write-up's: its log fits an encoder that ends in a ReLU, as its text's latent "
        "space [0, inf)^16 suggests; see the next row.",
    ),
    System(
        "vanilla-ae-relu",
        "784-128-16 autoencoder with a ReLU at the code, 10 epochs",
        [Figure("test/bce_per_pixel", "0.1145", 0.115, 0.008)],
        "How many of the 16 dimensions a ReLU leaves alive depends on the seed.",
    ),
    System(
        "vanilla-vae",
        "784-256-128-16 VAE, 15 epochs",
        [
            Figure("epoch 1/loss", "187.78", 183.3, 5.0),
            Figure("train/loss", "104.99", 105.0, 0.7),
            Figure("test/elbo", "", -104.4, 0.7),
            Figure("test/elbo_mean", "", -97.7, 0.7),
        ],
        "The likelihood is by 1,000 importance samples an image, and must lie below -ELBO; the "
        f"Fréchet distances are of the 128 features of {CLASSIFIER}.",
        extra=("nll", "fid"),
        options=("nll.samples=1000",),
        roles={"classifier": CLASSIFIER},
    ),
)


@dataclass
class Result:
    """What came of one system: figures by key, and how long training and all took."""

    system: System
    figures: dict[str, float]
    protocol: dict[str, str]
    train_seconds: float
    seconds: float
    command: str

    def misses(self) -> list[str]:
        """The figures that differ, and nobody knows why."""
        missed = [f for f in self.system.figures if not f.holds(self.figures[f.key])]
        return [figure.key for figure in missed if not figure.why]


def main() -> int:
    options = arguments()
    systems = [s for s in SYSTEMS if not options.only or s.preset in options.only]
    if unknown := set(options.only) - {system.preset for system in SYSTEMS}:
        print(f"no preset {', '.join(unknown)}; there are", *(s.preset for s in SYSTEMS))
        return 2
    if options.only:  # what a role needs is trained too
        wanted = {preset for system in systems for preset in system.roles.values()}
        systems = [s for s in SYSTEMS if s in systems or s.preset in wanted]
    as_published = options.data == "mnist" and not options.epochs
    page = options.page or (PAGE if as_published and not options.only else None)
    forge, runs, results = Forge(), {}, []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.runs or Path(scratch)
        for system in systems:
            print(f"{system.preset}: {system.what}", flush=True)
            result, runs[system.preset] = reproduce(forge, system, folder, runs, options)
            results.append(result)
            for key, value in result.figures.items():
                print(f"  {key} {value:.5g}", flush=True)
            if as_published and result.misses():
                print(f"  NOT as expected: {', '.join(result.misses())}", flush=True)
    if page:
        page.write_text(markdown(results, time.monotonic() - began, options, as_published), "utf-8")
        print(f"wrote {page}")
    return int(as_published and any(result.misses() for result in results))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--data", default="mnist", metavar="NAME")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the runs there")
    parser.add_argument("--page", type=Path, metavar="FILE")
    return parser.parse_args()


def reproduce(
    forge: Forge, system: System, folder: Path, runs: dict[str, Run], options: argparse.Namespace
) -> tuple[Result, Run]:
    """Train one preset and measure it."""
    began = time.monotonic()
    train: dict[str, Any] = {"seed": options.seed, "threads": options.threads}
    if options.epochs:
        train["epochs"] = options.epochs
    run = forge.train(
        preset=system.preset,
        data=options.data,
        train=train,
        run=folder / system.preset,
        quiet=True,
    )
    figures = {
        f"{split}/{name}": value
        for split in ("train", "test")
        for name, value in run.metrics[split].items()
    }
    figures["epoch 1/loss"] = run.history()[0]["train"]["loss"]
    protocol = dict(run.manifest["protocol"])
    for measure in system.extra if options.data == "mnist" else ():
        roles = {role: runs[preset] for role, preset in system.roles.items()}
        answer = forge.evaluate(
            run,
            measures=[measure],
            options=[text for text in system.options if text.startswith(f"{measure}.")],
            roles=roles if measure == "fid" else {},
        )
        figures |= {f"test/{name}": value for name, value in answer["metrics"].items()}
        protocol |= answer["protocol"]
    command = f"latentforge train --preset {system.preset}"
    seconds = time.monotonic() - began
    return Result(system, figures, protocol, run.manifest["seconds"], seconds, command), run


def markdown(
    results: Sequence[Result], seconds: float, options: argparse.Namespace, judged: bool
) -> str:
    """The page: judged figures first, all figures after, protocols last."""
    import torch

    lines = [
        "# Reproduction",
        "",
        "`make reproduce` writes this page. It trains every preset, a system of one of five",
        "write-ups on the latent spaces of MNIST, on all 60,000 images, and measures it on the",
        "10,000 test images; nothing is selected by score. Losses are nats per image, summed over",
        "pixels.",
        "",
        f"Seed {options.seed}, data {options.data}, {processor()}, "
        f"{options.threads or torch.get_num_threads()} threads, torch {torch.__version__}, Python "
        f"{platform.python_version()}; {seconds / 60:.0f} minutes in all.",
        "",
        '"Expected" is what a plain, correct build of the same recipe gives, with a margin for the',
        "spread of seeds.",
        "",
        "| preset | figure | write-up | expected | ours | | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        took = f"{result.train_seconds:.0f} s"
        name = f"`{result.system.preset}`"
        for figure in result.system.figures:
            value = result.figures[figure.key]
            verdict = "" if not judged else "ok" if figure.holds(value) else "**differs**"
            if verdict == "**differs**" and figure.why:
                verdict = f"differs: {figure.why}"
            cells = [name, figure.key, figure.said or "-", figure.expected(), f"{value:.5g}"]
            lines.append(f"| {' | '.join([*cells, verdict, took])} |")
        if not result.system.figures:
            shown = "test/recon"
            cells = [name, shown, "-", "-", f"{result.figures[shown]:.5g}", "", took]
            lines.append(f"| {' | '.join(cells)} |")
    for result in results:
        lines += [
            "",
            f"## {result.system.preset}",
            "",
            f"{result.system.what}. {result.system.note}",
        ]
        lines += ["", f"    {result.command}", "", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {value:.6g} |" for key, value in result.figures.items()]
        lines += ["", f"{result.train_seconds:.1f} s of training, {result.seconds:.1f} s in all."]
    protocols = {k: v for result in results for k, v in result.protocol.items()}
    lines += ["", "## What the figures are", "", "| figure | protocol |", "|---|---|"]
    lines += [
        f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in protocols.items()
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = next(line.split(":", 1)[1] for line in text.splitlines() if "model name" in line)
        return f"{name.strip()} ({os.cpu_count()} cores)"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
