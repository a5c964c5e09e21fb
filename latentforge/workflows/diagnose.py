"""Diagnoses a finished run: reports what looks wrong with its data, codes and curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from latentforge.config.data_command import complete_command
from latentforge.config.resolve import resolve_other_data
from latentforge.config.schema import Component, check_device
from latentforge.config.selection import select_measures
from latentforge.data.images import ImageSplit
from latentforge.engine import data_checks, diagnostics, learning_checks
from latentforge.engine.build import build_trainee
from latentforge.engine.class_balance import check_balance, is_imbalanced
from latentforge.engine.diagnostics import Diagnosis
from latentforge.engine.evaluator import BATCH
from latentforge.engine.step import Trainee
from latentforge.io.paths import quoted
from latentforge.io.text import counted
from latentforge.latent import given
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.runs.folder import RunFolder
from latentforge.seeding import callers_state_kept
from latentforge.workflows.evaluate import measure_split
from latentforge.workflows.load import LoadedRun, load_run


def diagnose(
    registry: Registry,
    run: RunFolder,
    split: str | None = None,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    data: Any = None,
    options: Sequence[str] | Mapping[str, Any] = (),
) -> list[Diagnosis]:
    """Diagnose a run; see `Forge.diagnose`."""
    check_device(device)
    config = resolve_stored_config(registry, run)
    failed = diagnose_failure(run)
    if failed and not (run.path / "checkpoints" / "LATEST").exists():
        return failed  # without a checkpoint there is nothing else to check
    loss = select_measures(registry, config, (), ["loss"])[0]
    held_out = split or ("validation" if "validation" in run.manifest["data"]["images"] else "test")
    data = resolve_other_data(registry, config, data, options)
    loaded_run = load_run(run, config, checkpoint=checkpoint, roles={}, device=device, data=data)
    found = [*failed, *diagnose_loaded(loaded_run, held_out, loss)]
    spec = loaded_run.splits.spec
    found = [finding.adapt(spec) for finding in found]
    return [replace(f, attempt=complete_command(f.attempt, config, data)) for f in found]


def diagnose_loaded(loaded_run: LoadedRun, split: str, loss: Component) -> list[Diagnosis]:
    """Diagnose a loaded run on its training images and those of `split`, with measure `loss`."""
    found = [
        *diagnose_data(loaded_run, split),
        *diagnose_model(loaded_run, split),
        *diagnose_losses(loaded_run, split, loss),
    ]
    if any(f.check == "shift" and f.saw.startswith(f"the {split} images") for f in found):
        # a shift alone also makes right labels look shuffled
        found = [postpone(f) if f.check == "labels" else f for f in found]
    checks = {finding.check for finding in found}
    return [*found, *(f for f in recorded_warnings(loaded_run.run) if f.check not in checks)]


def postpone(labels: Diagnosis) -> Diagnosis:
    """Let the advice about labels depend on the one about how the splits were prepared."""
    attempt = f"first prepare all splits in the same way; if this finding remains, {labels.attempt}"
    return replace(labels, attempt=attempt)


def diagnose_data(loaded_run: LoadedRun, split: str) -> Iterator[Diagnosis]:
    """Check the training images, and those of the other splits against them."""
    splits, provides = loaded_run.splits, loaded_run.config.model.entry.provides
    train, likelihood = splits.split("train"), getattr(loaded_run.loaded.loss, "likelihood", None)
    yield from data_checks.check_value_range(
        train, likelihood, kl="kl" in provides, levels=splits.levels
    )
    yield from data_checks.find_constant_pixels(train)
    yield from data_checks.find_blank_images(train, "training")
    for name in dict.fromkeys([split, *splits.splits]):
        held_out = splits.split(name)
        if held_out is train:  # also other data, all of which is used as each split
            continue
        yield from data_checks.find_blank_images(held_out, name)
        yield from data_checks.find_copies(train, held_out, name)
        yield from data_checks.find_shift(train, held_out, name)


def diagnose_model(loaded_run: LoadedRun, split: str) -> Iterator[Diagnosis]:
    """Check codes, reconstructions and answers on the images of `split`, and the learning rate."""
    loaded, config, splits = loaded_run.loaded, loaded_run.config, loaded_run.splits
    train, held_out = splits.split("train"), splits.split(split)
    provides = config.model.entry.provides
    has_codebook = "codebook" in provides
    if "encode" in provides:
        with callers_state_kept(loaded_run.device), torch.no_grad():
            torch.manual_seed(0)  # for a KL that is estimated from samples
            codes = diagnostics.compute_code_statistics(loaded.model, held_out, provides)
            uses = (
                diagnostics.count_entries(loaded.model, train, provides) if has_codebook else None
            )
        likelihood = getattr(loaded.loss, "likelihood", None)
        advice = diagnostics.advise_on_collapse(config.loss.options, likelihood)
        if uses is None:
            yield from diagnostics.find_dead_latents(codes, f"the {split} images", advice)
        else:  # a place that has the same entry in every image is no fault
            yield from diagnostics.find_codebook_collapse(
                uses, "the training images", config.model.options
            )
        yield from diagnostics.check_log_var(codes)
    if {"encode", "decode"} <= provides:
        yield from learning_checks.check_reconstructions(
            loaded.model, train, held_out, split, provides
        )
    faults: list[Diagnosis] = []
    if "classify" in provides and held_out.y is not None:
        counts = splits.class_counts()
        used = "test" if has_more_classes(counts.get("test", {}), counts[split]) else split
        if not is_imbalanced(counts["train"]):
            answers = learning_checks.compare_with_neighbours(loaded.model, train, held_out)
            faults = [*learning_checks.check_answers(answers, split)]
        yield from faults
        if not faults:
            accuracy, recalls = measure_recall(loaded.model, splits.split(used))
            yield from check_balance(counts["train"], counts[used], used, accuracy, recalls)
    if any(fault.check == "labels" for fault in faults):
        return  # no learning rate can learn them
    with callers_state_kept(loaded_run.device):
        initial = build_trainee(config, splits).to(loaded_run.device)
    conditional, precision = initial.conditional, config.train.precision
    trainee = Trainee(loaded.model, loaded.loss, precision, conditional=conditional)
    yield from learning_checks.check_rate(trainee, initial, train, config.train, loaded.step)


def diagnose_losses(loaded_run: LoadedRun, split: str, loss: Component) -> Iterator[Diagnosis]:
    """Compare the losses on the training images and on those of `split`."""
    train_loss = measure_split(loaded_run, "train", [loss])[0]["loss"]
    held_out_loss = measure_split(loaded_run, split, [loss])[0]["loss"]
    logged_losses = [line.get(split, {}).get("loss") for line in loaded_run.run.history()]
    epochs = [loss for loss in logged_losses if loss is not None]
    curve = [*epochs[:-1], held_out_loss] if split == "validation" else [held_out_loss]
    yield from diagnostics.check_overfitting(
        train_loss, curve, "the training images", f"the {split} images"
    )
    logged = loaded_run.run.metrics.get("train", {}).get("loss")
    if logged is not None and not loaded_run.config.train.ema and not is_loss_changing(loaded_run):
        yield from diagnostics.explain_running_average(
            logged, train_loss, held_out_loss, split, mode_layers(loaded_run.loaded.model)
        )


def recorded_warnings(run: RunFolder) -> list[Diagnosis]:
    """The warnings of the training that the run stores."""
    keys = ("check", "severity", "saw", "attempt")
    return [
        Diagnosis(**{key: str(finding[key]) for key in keys})  # type: ignore[arg-type]
        for finding in run.manifest.get("findings", [])
        if finding.get("severity") == "warning" and all(key in finding for key in keys)
    ]


def mode_layers(model: nn.Module) -> list[str]:
    """The kinds of layers of a model that act differently in training mode."""
    names = {"Dropout": "dropout", "AlphaDropout": "dropout", "BatchNorm": "batch norm"}
    found = {
        text
        for name, text in names.items()
        for module in model.modules()
        if type(module).__name__.startswith(name)
    }
    return sorted(found)


def has_more_classes(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether more classes have images in the one count than in the other."""
    return sum(map(bool, one.values())) > sum(map(bool, other.values()))


def measure_recall(model: Any, images: ImageSplit) -> tuple[float, list[float]]:
    """Return the accuracy of a classifier, and its accuracy on each class that has images."""
    with torch.no_grad():
        right = torch.cat([model(b.x).argmax(1) == b.y for b in images.batches(BATCH)])
    assert images.y is not None
    right, labels = right.cpu().double(), images.y.cpu()
    recalls = [float(right[labels == label].mean()) for label in labels.unique()]  # type: ignore[no-untyped-call]
    return float(right.mean()), recalls


def is_loss_changing(loaded_run: LoadedRun) -> bool:
    """Whether a schedule changed the loss in the last epoch, which makes values incomparable."""
    loaded, end = loaded_run.loaded, loaded_run.loaded.step
    train = loaded_run.splits.split("train")
    batch = train.batch_at(range(min(BATCH, len(train))))
    model = given(loaded.model, batch.y, loaded_run.config.model.entry.provides)
    earlier = replace(end, index=max(0, end.total - end.epoch_length))
    totals = []
    with callers_state_kept(loaded_run.device), torch.no_grad():
        for step in (earlier, end):
            torch.manual_seed(0)
            totals.append(float(loaded.loss(model, batch, step).total()))
    return not math.isclose(*totals, rel_tol=1e-5)


def diagnose_failure(run: RunFolder) -> list[Diagnosis]:
    """Diagnose why a run was killed, interrupted or failed. Empty if it did not end early."""
    position = f"after {counted(run.manifest['steps'], 'step')}"
    if run.status in ("killed", "interrupted"):
        attempt = f"latentforge train --resume {quoted(run.path)}"
        return [Diagnosis(run.status, "warning", f"{position} or a few more", attempt)]
    if run.status != "failed":
        return []
    reason = (run.manifest.get("error") or "no reason recorded").partition("\n  try: ")[0]
    attempt = "fix the error and train again; if the loss is not finite, lower train.lr"
    return [Diagnosis("failed", "warning", f"{position}: {reason}", attempt)]
