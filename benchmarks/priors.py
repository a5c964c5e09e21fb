"""Measures learnt priors, importance-weighted bounds, class-conditional samples and codebooks.

    python benchmarks/priors.py [--only CASE ...] [--side ours|plain] [--seeds 3] [--more 5]
        [--epochs 15] [--images N] [--long 60] [--device auto] [--threads N] [--results DIR]
        [--write [FILE]]

The cases iwae, flow and vamp are compared with vae: the nll of the same test images, with the same
seed. plain_priors.py is the reference of these four. cvae and vq-vae are the other cases. The
result of each training is stored in DIR, runs/priors by default. If the script is called again, it
computes only what is missing; delete DIR after a change of the code. The exit code is 1 if a target
is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import plain_priors
import torch
from latentforge_plugins.importance_sampling.config import NllConfig
from latentforge_plugins.importance_sampling.estimate import Nll
from priors_page import PAGE, Results, missed, page
from priors_results import Result, Store

from latentforge import Forge, MeasureSpec, Run, hookimpl
from latentforge.contracts import EvaluateContext, Seen

NLL_CASES: dict[str, dict[str, Any]] = {  # arguments of Forge.train
    "vae": {},
    "iwae": {"loss": {"name": "iwae"}},
    "flow": {"model": {"prior": "flow"}},
    "vamp": {"model": {"prior": "vamp"}},
}
OTHER_CASES = ("cvae", "vq-vae")
MORE = ("vae", "vamp")  # the cases of --more
SIDES = ("ours", "plain")
CLASSIFIER = "fast-mnist-cnn"  # a preset of cnn-classifier
CLASSIFIER_SEED = 1000  # not one of the seeds of the models that it judges


@dataclass(frozen=True)
class Protocol:
    """What all trainings have in common. `images` is the number of test images of which the nll is
    computed, the first ones, or 0 for all."""

    data: str = "mnist"
    epochs: int = 15
    batch_size: int = 64
    lr: float = 2e-3
    clip: float = 100.0  # of gradient norms, about twice the usual one; only for the nll
    latent_dim: int = 16
    iwae_samples: int = 50
    nll_samples: int = 1000
    images: int = 0
    sampled: int = 1000  # images that cvae samples

    def of(self, case: str) -> dict[str, Any]:
        """The settings on which the result of a case depends."""
        unused = {"sampled"} if case in NLL_CASES else {"clip", "images", "nll_samples"}
        unused |= set() if case == "iwae" else {"iwae_samples"}
        return {name: value for name, value in asdict(self).items() if name not in unused}


class ImageNll(Nll):
    """The measure `nll` of the first images, which also keeps the value of each image."""

    def __init__(self, config: NllConfig, context: EvaluateContext, values: list[float]) -> None:
        super().__init__(NllConfig(samples=config.samples), context)
        self.selected[config.images or len(self.selected) :] = False
        self.values, self.order = values, list[torch.Tensor]()

    def update(self, seen: Seen) -> None:
        super().update(seen)
        index = seen.batch.index
        self.order.append(index[self.selected[index]].cpu())

    def compute(self) -> dict[str, float]:
        log_sums = torch.cat([log_sum for log_sum, _ in self.sums])
        nll = math.log(self.samples) - log_sums
        self.values[:] = nll[torch.cat(self.order).argsort()].tolist()
        return {"image_nll": float(nll.mean())}


class ImageNllPlugin:
    """A plugin with the measure `image_nll`. `values` are those of the latest evaluation."""

    def __init__(self) -> None:
        self.values: list[float] = []

    @hookimpl
    def latentforge_measures(self) -> Any:
        yield MeasureSpec(
            name="image_nll",
            summary="nll, which keeps the value of each image",
            build=lambda config, context: ImageNll(config, context, self.values),
            config=NllConfig,
            protocol="nats per image, as nll, of the first images of the split",
            likelihood=True,
            needs={"encode", "decode", "prior", "log_prob"},
            default=False,
        )


class Bench:
    """The trainings, each of which returns the result that is stored."""

    def __init__(self, protocol: Protocol, device: str, threads: int, scratch: Path) -> None:
        self.protocol, self.device, self.threads = protocol, pick_device(device), threads
        self.scratch = scratch  # of the runs
        self.plugin = ImageNllPlugin()
        self.forge = Forge(plugins=[self.plugin])
        self.load_classifier = cache(self.train_classifier)

    @property
    def binary_data(self) -> dict[str, str]:
        return {"name": self.protocol.data, "binarize": "fixed"}

    def result(self, case: str, side: str, seed: int) -> Result:
        if case in OTHER_CASES:
            result = self.cvae(seed) if case == "cvae" else self.vq_vae(seed)
        else:
            result = self.ours(case, seed) if side == "ours" else self.plain(case, seed)
        return {**result, "device": device_name(self.device)}

    def train(self, model: str, seed: int, /, **options: Any) -> Run:
        """Train a model on the data, or on that of `options`, and return its run."""
        p = self.protocol
        train = {"epochs": p.epochs, "batch_size": p.batch_size, "lr": p.lr, "seed": seed}
        train |= {"device": self.device, "threads": self.threads} | options.pop("train", {})
        folder = Path(tempfile.mkdtemp(dir=self.scratch)) / model
        options.setdefault("data", p.data)
        return self.forge.train(model, train=train, run=folder, quiet=True, **options)

    def ours(self, case: str, seed: int) -> Result:
        p, options = self.protocol, dict(NLL_CASES[case])
        options["model"] = {"latent_dim": p.latent_dim, **options.get("model", {})}
        if case == "iwae":
            options["loss"] = {**options["loss"], "samples": p.iwae_samples}
        options["train"] = {"clip_grad_norm": p.clip}
        run = self.train("vae", seed, data=self.binary_data, **options)
        numbers = {"samples": p.nll_samples, "images": p.images}
        self.forge.evaluate(
            run,
            measures=["image_nll"],
            options=[f"image_nll.{name}={number}" for name, number in numbers.items()],
            device=self.device,
        )
        losses = [line["train"]["loss"] for line in run.history()]
        nll = [round(value, 5) for value in self.plugin.values]
        return {"nll": nll, "losses": losses, "seconds": run.manifest["seconds"]}

    def plain(self, case: str, seed: int) -> Result:
        p = self.protocol
        splits = self.forge.load_data(p.data, {"binarize": "fixed"}).to(self.device)
        images = {
            name: torch.cat([batch.x.flatten(1) for batch in splits.split(name).batches(10_000)])
            for name in ("train", "test")
        }
        result = plain_priors.run(
            case,
            seed,
            images["train"],
            images["test"][: p.images or None],
            epochs=p.epochs,
            batch_size=p.batch_size,
            lr=p.lr,
            clip=p.clip,
            iwae_samples=p.iwae_samples,
            nll_samples=p.nll_samples,
        )
        nll = [round(value, 5) for value in result.nll.tolist()]
        return {"nll": nll, "losses": result.losses, "seconds": result.seconds}

    def train_classifier(self) -> Run:
        train = {"seed": CLASSIFIER_SEED, "device": self.device, "threads": self.threads}
        return self.forge.train(
            preset=CLASSIFIER,
            data=self.protocol.data,
            train={**train, "precision": "float32"},
            run=Path(tempfile.mkdtemp(dir=self.scratch)) / "classifier",
            quiet=True,
        )

    def cvae(self, seed: int) -> Result:
        """The fraction of sampled images that a classifier assigns to the class under which they
        were sampled, as many of each class."""
        run, classifier = self.train("cvae", seed), self.load_classifier()
        findings = self.forge.explore(
            "sample",
            run,
            roles={"classifier": classifier},
            sources=["prior"],
            n=self.protocol.sampled,
            device=self.device,
            quiet=True,
        )
        return {
            "agreement": findings["metrics"]["class_agreement_prior"],
            "classifier_accuracy": classifier.metrics["test"]["accuracy"],
            "seconds": run.manifest["seconds"],
        }

    def vq_vae(self, seed: int) -> Result:
        """Perplexity and MSE of vq-vae, and the MSE of autoencoders with both likelihoods."""
        small = {"latent_dim": self.protocol.latent_dim}
        run = self.train("vq-vae", seed)
        result: Result = {"seconds": run.manifest["seconds"]}
        for name in ("perplexity", "codebook_usage"):
            result[name] = run.metrics["test"][name]
        gaussian = {"name": "reconstruction", "likelihood": "gaussian"}
        others = {
            "ae": self.train("ae", seed, model=small),
            "ae_gaussian": self.train("ae", seed, model=small, loss=gaussian),
        }
        for name, other in {"vq_vae": run, **others}.items():
            measured = other.evaluate(measures=["mse_per_pixel"], device=self.device)
            result[f"mse_{name}"] = measured["mse_per_pixel"]
        return result


def pick_device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def main() -> int:
    options = parse_arguments()
    cases = [c for c in (*NLL_CASES, *OTHER_CASES) if not options.only or c in options.only]
    torch.set_num_threads(options.threads)
    given = {"data", "epochs", "images", "nll_samples", "iwae_samples"}
    protocol = Protocol(**{name: getattr(options, name) for name in given})
    sides = [side for side in SIDES if options.side in (None, side)]
    seeds = range(options.seeds)
    store = Store(options.results)
    with tempfile.TemporaryDirectory() as scratch:
        results = collect(protocol, store, cases, sides, seeds, options, Path(scratch))
        long, more = Results(), Results()
        if options.more:
            only = [case for case in cases if case in MORE]
            seeds = range(options.more)
            more = collect(protocol, store, only, sides, seeds, options, Path(scratch))
        if options.long:
            longer = Protocol(**{**asdict(protocol), "epochs": options.long})
            only = [case for case in cases if case in NLL_CASES]
            long = collect(longer, store, only, ["ours"], range(1), options, Path(scratch))
    text = page(asdict(protocol), results, options.long, long, more)
    print(f"\n{text}")
    if options.write:
        options.write.write_text(text, "utf-8")
        print(f"wrote {options.write}")
    misses = missed(results, more)
    if misses:
        print("missed:", *misses, sep="\n  ")
    return int(bool(misses) and protocol.data == "mnist")


def collect(
    protocol: Protocol,
    store: Store,
    cases: list[str],
    sides: list[str],
    seeds: range,
    options: argparse.Namespace,
    scratch: Path,
) -> Results:
    """Compute or read the results by (case, side), one for each seed."""
    bench = Bench(protocol, options.device, options.threads, scratch)
    results: Results = {}
    for seed in seeds:
        for case in cases:
            for side in sides if case in NLL_CASES else {"ours"} & {*sides}:
                key = {"case": case, "side": side, "seed": seed, **protocol.of(case)}
                result = store.get(key, partial(bench.result, case, side, seed))
                results.setdefault((case, side), []).append(result)
    return results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    cases = (*NLL_CASES, *OTHER_CASES)
    default = Protocol()
    add = parser.add_argument
    add("--only", action="append", default=[], choices=cases, help="may be repeated")
    add("--side", choices=SIDES, help="LatentForge or the plain implementation; both by default")
    add("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1")
    add("--more", type=int, default=0, metavar="N", help=f"also N seeds of {' and '.join(MORE)}")
    add("--epochs", type=int, default=default.epochs, metavar="N")
    add("--images", type=int, default=0, metavar="N", help="the first N test images; 0: all")
    add("--long", type=int, default=0, metavar="N", help="also N epochs of LatentForge, seed 0")
    add("--device", default="auto")
    add("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    add("--data", default=default.data, metavar="NAME")
    add("--nll-samples", type=int, default=default.nll_samples, metavar="K")
    add("--iwae-samples", type=int, default=default.iwae_samples, metavar="K")
    add("--results", type=Path, default=Path("runs/priors"), metavar="DIR")
    add("--write", type=Path, nargs="?", const=PAGE, metavar="FILE", help=f"write {PAGE.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
