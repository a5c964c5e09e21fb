"""Runs with a known fault, and healthy ones: what `latentforge doctor` says about each.

    python benchmarks/diagnosis.py [--case NAME] [--page FILE] [--json FILE]

A run with a fault is diagnosed rightly if a warning or a note has the check that belongs to its
cause (and, for the learning rate, the direction), and if no warning names another cause. A healthy
run is diagnosed rightly if there is no warning. Runs are trained on digits (scikit-learn) or, where
LATENTFORGE_DATA is set, some of them on 3,000 images of MNIST. The exit code is 1 if fewer than
32 of the 36 faults are found, or if there is a false alarm.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import turns

from latentforge import Forge
from latentforge.runtime.shell import in_shell

LEAST = 32
SYMPTOMS = {"reconstructions", "dead latents", "posterior collapse", "chance", "overfitting"}
"""Checks that may accompany another cause, of which they are the consequence."""


@dataclass(frozen=True)
class Case:
    """A run, and the checks of which one is its cause; none for a healthy run."""

    name: str
    model: str
    causes: tuple[str, ...] = ()
    text: str = ""  # a part of the suggestion, for the learning rate
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    loss: Any = None
    data: Callable[[], Any] | str = "digits"


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """The digits as float (N, 1, 8, 8) and their labels, in random order."""
    data = Forge().load_data("digits", {"validation": 0.0})
    parts = [next(data.split(name).batches(2000)) for name in ("train", "test")]
    x, y = (torch.cat(values) for values in zip(*((p.x, p.y) for p in parts), strict=True))
    order = torch.randperm(len(x), generator=generator())
    return x[order], y[order]


def splits(change: Callable[..., Any]) -> dict[str, Any]:
    """Train, validation and test of the digits after `change(x, y, x_test, y_test)`."""
    x, y = images()
    x_test, y_test = x[1400:], y[1400:]
    x, y, x_test, y_test = change(x[:1400], y[:1400], x_test, y_test)
    return {"train": (x, y), "test": (x_test, y_test), "validation": 0.1}


def noisy_labels(share: float) -> Callable[[], Any]:
    def change(x: Any, y: Any, x_test: Any, y_test: Any) -> Any:
        def flip(labels: torch.Tensor) -> torch.Tensor:
            wrong = torch.rand(len(labels), generator=generator()) < share
            other = torch.randint(1, 10, (len(labels),), generator=generator())
            return torch.where(wrong, (labels + other) % 10, labels)

        return x, flip(y), x_test, flip(y_test)

    return lambda: splits(change)


def shuffled_labels() -> Any:
    def change(x: Any, y: Any, x_test: Any, y_test: Any) -> Any:
        return x, y[torch.randperm(len(y), generator=generator())], x_test, y_test

    return splits(change)


def few_of_one(share: float) -> Callable[[], Any]:
    def change(x: Any, y: Any, x_test: Any, y_test: Any) -> Any:
        def select(values: Any, labels: Any) -> Any:
            rare, common = labels == 1, labels != 1
            count = max(1, round(int(common.sum()) * share / (1 - share))) if share else 0
            keep = common.clone()
            keep[rare.nonzero().flatten()[:count]] = True
            return values[keep], (labels[keep] == 1).long()

        return *select(x, y), *select(x_test, y_test)

    return lambda: splits(change)


def copies(share: float) -> Callable[[], Any]:
    def change(x: Any, y: Any, x_test: Any, y_test: Any) -> Any:
        count = round(share * len(x_test))
        x_test, y_test = x_test.clone(), y_test.clone()
        x_test[:count], y_test[:count] = x[:count], y[:count]
        return x, y, x_test, y_test

    return lambda: splits(change)


def altered(train: Callable[[Any], Any], test: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: splits(lambda x, y, x_test, y_test: (train(x), y, test(x_test), y_test))


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def blank(share: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[: round(share * len(x))] = 0
        return x

    return change


def few(count: int) -> Callable[[], Any]:
    def change(x: Any, y: Any, x_test: Any, y_test: Any) -> Any:
        return x[:count], y[:count], x_test, y_test

    return lambda: splits(change)


def mnist(count: int = 3000) -> Any:
    data = Forge().load_data("mnist")
    train, test = data.split("train"), data.split("test")
    parts = {"train": train.batch_at(range(count)), "test": test.batch_at(range(1000))}
    return {**{name: (part.x, part.y) for name, part in parts.items()}, "validation": 0.1}


def cases() -> list[Case]:
    cnn, mlp = {"epochs": 5}, {"epochs": 10}
    rate = ("learning rate",)
    found = [
        *(
            Case(
                f"classifier at chance, lr {lr:g}",
                model,
                (*rate, "chance"),
                "rate",
                train={"epochs": 3, "lr": lr},
            )
            for model, lr in (
                ("mlp-classifier", 1e-7),
                ("mlp-classifier", 30.0),
                ("cnn-classifier", 1e-6),
                ("cnn-classifier", 3.0),
            )
        ),
        Case(
            "shuffled labels",
            "mlp-classifier",
            ("labels",),
            "shuffled",
            train=mlp,
            data=shuffled_labels,
        ),
        Case(
            "shuffled labels, CNN",
            "cnn-classifier",
            ("labels",),
            "shuffled",
            train=cnn,
            data=shuffled_labels,
        ),
        Case(
            "30 % label noise",
            "mlp-classifier",
            ("labels",),
            "wrong",
            train={"epochs": 20},
            data=noisy_labels(0.3),
        ),
        Case(
            "30 % label noise, CNN",
            "cnn-classifier",
            ("labels",),
            "wrong",
            train={"epochs": 20},
            data=noisy_labels(0.3),
        ),
        Case(
            "99:1 imbalance",
            "mlp-classifier",
            ("imbalance",),
            train={"epochs": 3},
            data=few_of_one(0.01),
        ),
        Case(
            "a single class",
            "mlp-classifier",
            ("accuracy", "imbalance"),
            train=mlp,
            data=few_of_one(0),
        ),
        *(
            Case(
                f"{share:.0%} of test copied from train",
                model,
                ("copies",),
                train=mlp,
                data=copies(share),
            )
            for model, share in (("mlp-classifier", 1.0), ("ae", 0.5), ("cnn-classifier", 0.01))
        ),
        *(
            Case(f"values 0 to {high:g}", model, ("range",), train=mlp, data=altered(scale, scale))
            for model, high in (("ae", 0.5), ("vae", 0.1))
            for scale in [lambda x, high=high: x * high]
        ),
        Case(
            "values 0.4 to 0.6",
            "ae",
            ("range",),
            train=mlp,
            data=altered(lambda x: 0.4 + 0.2 * x, lambda x: 0.4 + 0.2 * x),
        ),
        Case(
            "sigma far above the data",
            "vae",
            ("range",),
            loss={"name": "elbo", "likelihood": "gaussian", "sigma": 3.0},
            train=mlp,
        ),
        Case(
            "reconstructions are the mean, lr too high",
            "ae",
            ("reconstructions", *rate),
            train={"epochs": 10, "lr": 3.0},
        ),
        Case(
            "reconstructions are the mean, few steps",
            "ae",
            ("reconstructions", *rate),
            train={"epochs": 1, "lr": 1e-4},
        ),
        Case("lr too high, AE", "ae", rate, "too high", train={"epochs": 10, "lr": 0.3}),
        Case("lr too high, VAE", "vae", (*rate, "log-variance"), train={"epochs": 10, "lr": 0.1}),
        Case("lr too low, AE", "ae", rate, "too low", train={"epochs": 10, "lr": 1e-5}),
        Case("lr too low, VAE", "vae", rate, "too low", train={"epochs": 10, "lr": 1e-5}),
        Case(
            "lr too low, classifier",
            "mlp-classifier",
            rate,
            "too low",
            train={"epochs": 10, "lr": 3e-6},
        ),
        Case("test inverted", "ae", ("shift",), train=mlp, data=altered(same, lambda x: 1 - x)),
        Case(
            "test inverted, classifier",
            "mlp-classifier",
            ("shift",),
            train=mlp,
            data=altered(same, lambda x: 1 - x),
        ),
        Case(
            "test shifted by 2 pixels",
            "ae",
            ("shift",),
            train=mlp,
            data=altered(same, lambda x: x.roll(2, -1)),
        ),
        Case(
            "test shifted by 1 pixel",
            "cnn-classifier",
            ("shift",),
            train={"epochs": 15},
            data=altered(same, lambda x: x.roll(1, -2)),
        ),
        Case(
            "20 % blank training images",
            "ae",
            ("blank images",),
            train=mlp,
            data=altered(blank(0.2), same),
        ),
        Case(
            "2 % blank test images",
            "mlp-classifier",
            ("blank images",),
            train=mlp,
            data=altered(same, blank(0.02)),
        ),
        Case(
            "collapse, beta 50",
            "beta-vae",
            ("posterior collapse",),
            loss={"name": "beta-elbo", "beta": 50.0},
            train=mlp,
        ),
        Case(
            "collapse, many dimensions",
            "vae",
            ("posterior collapse",),
            options={"latent_dim": 64},
            loss={"name": "beta-elbo", "beta": 20.0},
            train={"epochs": 5},
        ),
        Case(
            "overfitting, AE on 60 images",
            "ae",
            ("overfitting",),
            options={"latent_dim": 32},
            train={"epochs": 1500, "lr": 3e-3},
            data=few(60),
        ),
        Case(
            "overfitting, classifier on 60 images",
            "mlp-classifier",
            ("overfitting",),
            train={"epochs": 300},
            data=few(60),
        ),
        Case(
            "overfitting, VAE on 100 images",
            "vae",
            ("overfitting",),
            options={"latent_dim": 16},
            loss={"name": "beta-elbo", "beta": 0.1},
            train={"epochs": 1000, "lr": 3e-3},
            data=few(100),
        ),
        Case(
            "dead codes",
            "ae",
            ("dead latents",),
            options={"latent_activation": "relu", "latent_dim": 16},
            train=mlp,
        ),
    ]
    healthy = [
        Case("healthy AE", "ae"),
        Case("healthy AE, 32 dimensions", "ae", options={"latent_dim": 32}, train={"epochs": 20}),
        Case("healthy VAE", "vae"),
        Case(
            "healthy VAE, 16 dimensions",
            "vae",
            options={"latent_dim": 16},
            train={"epochs": 30, "lr": 2e-3},
        ),
        Case("healthy beta-VAE", "beta-vae", train={"epochs": 20}),
        Case("healthy classifier", "mlp-classifier"),
        Case("healthy classifier, 40 epochs", "mlp-classifier", train={"epochs": 40}),
        Case("healthy CNN", "cnn-classifier", train={"epochs": 10}),
        Case(
            "healthy CNN, small rate and 40 epochs",
            "cnn-classifier",
            train={"epochs": 40, "lr": 5e-4},
        ),
    ]
    if os.environ.get("LATENTFORGE_DATA"):
        healthy += [
            Case("healthy AE, MNIST", "ae", data=mnist, train={"epochs": 5}),
            Case("healthy VAE, MNIST", "vae", data=mnist, train={"epochs": 10}),
            Case("healthy CNN, MNIST", "cnn-classifier", data=mnist, train={"epochs": 5}),
        ]
    return [*found, *healthy]


def diagnose(case: Case) -> list[Any]:
    forge = Forge()
    with tempfile.TemporaryDirectory() as folder:
        run = forge.train(
            case.model,
            model=case.options,
            loss=case.loss,
            data=case.data if isinstance(case.data, str) else case.data(),
            train={"device": "cpu", **case.train},
            run=Path(folder) / "run",
            quiet=True,
        )
        with in_shell():  # suggestions as options of the command line
            return forge.diagnose(run, device="cpu")


def judge(case: Case, findings: list[Any]) -> bool:
    warnings = [finding for finding in findings if finding.severity == "warning"]
    if not case.causes:
        return not warnings
    right = [f for f in findings if f.check in case.causes and case.text in f.attempt + f.saw]
    others = [f for f in warnings if f.check not in (*case.causes, *SYMPTOMS)]
    return bool(right) and not others


HEAD = ["| run | model | findings | right |", "|---|---|---|---|"]
PAGE = [
    "# Diagnosis",
    "",
    "`make diagnosis` writes this page. It trains runs with a known fault, and healthy ones, and",
    "asks `latentforge doctor` about each. A fault counts as found if a finding has the check that",
    "belongs to its cause and, for a learning rate, the direction, and if no warning names another",
    "cause. Consequences of the cause may be named too, such as reconstructions that do not depend",
    "on the image. A healthy run must have no warning; notes are facts, not faults.",
    "[components.md](components.md#diagnosis) describes the checks. Runs are trained on digits or,",
    "where the table says so, on 3,000 images of MNIST.",
    "",
]


def row(case: Case, findings: list[Any], is_right: bool) -> str:
    """A row of the table, with what the finding of the cause saw, or all warnings if it lacks."""
    named = [f for f in findings if f.check in case.causes] or [
        f for f in findings if f.severity == "warning"
    ]
    others = sorted({f.check for f in findings} - {f.check for f in named})
    text = "; ".join(f"**{f.check}**: {f.saw}; {f.attempt}" for f in named) or "no warning"
    text += f" (also: {', '.join(others)})" if others else ""
    text = text.replace("|", "\\|").replace("\n", " ")
    return f"| {case.name} | `{case.model}` | {text} | {'yes' if is_right else '**no**'} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", action="append", help="a part of a case's name; default: all")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table as a page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings")
    options = parser.parse_args()
    chosen = [
        c for c in cases() if not options.case or any(part in c.name for part in options.case)
    ]
    info = turns.headline("Diagnosis of runs with known faults", "digits and MNIST")
    results, right, alarms, rows = {}, 0, 0, [*HEAD]
    for case in chosen:
        findings = diagnose(case)
        is_right = judge(case, findings)
        right += bool(case.causes and is_right)
        alarms += bool(not case.causes and not is_right)
        rows.append(row(case, findings, is_right))
        print(rows[-1], flush=True)
        results[case.name] = {"right": is_right, "findings": [f.as_dict() for f in findings]}
        if not is_right:
            for finding in findings:
                print(f"    {finding}", file=sys.stderr)
    faults = sum(bool(case.causes) for case in chosen)
    healthy = len(chosen) - faults
    outcome = f"Right causes: {right} of {faults}. False alarms: {alarms} of {healthy}."
    print(f"\n{outcome}")
    if options.page:
        measured = f"Seed 0, torch {torch.__version__}, on the CPU. {outcome}"
        options.page.write_text("\n".join([*PAGE, measured, "", *rows]) + "\n", "utf-8")
    turns.finish(options.json, info, {"cases": results})
    return int(bool(alarms) or (not options.case and right < LEAST))


if __name__ == "__main__":
    sys.exit(main())
