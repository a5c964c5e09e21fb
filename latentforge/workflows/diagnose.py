"""Diagnoses a finished run: reports what looks wrong with its data, codes and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from latentforge.config.resolve import resolve_other_data
from latentforge.config.schema import Component, check_device
from latentforge.config.selection import select_measures
from latentforge.data.images import ImageSplit
from latentforge.engine import diagnostics
from latentforge.engine.class_balance import check_balance
from latentforge.engine.diagnostics import Diagnosis
from latentforge.engine.evaluator import BATCH
from latentforge.io.paths import quoted
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
    return [*failed, *diagnose_loaded(loaded_run, held_out, loss)]


def diagnose_loaded(loaded_run: LoadedRun, split: str, loss: Component) -> list[Diagnosis]:
    """Diagnose a loaded run on its training images and those of `split`, with measure `loss`."""
    loaded, provides = loaded_run.loaded, loaded_run.config.model.entry.spec.provides
    train, held_out = loaded_run.splits.split("train"), loaded_run.splits.split(split)
    likelihood, kl = getattr(loaded.loss, "likelihood", None), "kl" in provides
    levels = loaded_run.splits.levels
    diagnoses = [*diagnostics.check_value_range(train, likelihood, kl=kl, levels=levels)]
    diagnoses += diagnostics.find_constant_pixels(train)
    if "encode" in provides:
        with torch.no_grad():
            codes = diagnostics.compute_code_statistics(loaded.model, held_out, kl=kl)
        diagnoses += diagnostics.find_dead_latents(codes, f"the {split} images")
        diagnoses += diagnostics.check_log_var(codes)
    if "classify" in provides and held_out.y is not None:
        counts = loaded_run.splits.class_counts()
        used = "test" if has_more_classes(counts.get("test", {}), counts[split]) else split
        accuracy, recalls = measure_recall(loaded.model, loaded_run.splits.split(used))
        diagnoses += check_balance(counts["train"], counts[used], used, accuracy, recalls)
    train_loss = measure_split(loaded_run, "train", [loss])[0]["loss"]
    held_out_loss = measure_split(loaded_run, split, [loss])[0]["loss"]
    logged_losses = [line.get(split, {}).get("loss") for line in loaded_run.run.history()]
    epochs = [loss for loss in logged_losses if loss is not None]
    curve = [*epochs[:-1], held_out_loss] if split == "validation" else [held_out_loss]
    diagnoses += diagnostics.check_overfitting(
        train_loss, curve, "the training images", f"the {split} images"
    )
    logged = loaded_run.run.metrics.get("train", {}).get("loss")
    if logged is not None and not loaded_run.config.train.ema and not is_loss_changing(loaded_run):
        diagnoses += diagnostics.explain_running_average(logged, train_loss, held_out_loss, split)
    return diagnoses


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
    model, loss, end = loaded_run.loaded.model, loaded_run.loaded.loss, loaded_run.loaded.step
    train = loaded_run.splits.split("train")
    batch = train.batch_at(range(min(BATCH, len(train))))
    earlier = replace(end, index=max(0, end.total - end.epoch_length))
    totals = []
    with callers_state_kept(loaded_run.device), torch.no_grad():
        for step in (earlier, end):
            torch.manual_seed(0)
            totals.append(float(loss(model, batch, step).total()))
    return not math.isclose(*totals, rel_tol=1e-5)


def diagnose_failure(run: RunFolder) -> list[Diagnosis]:
    """Diagnose why a run was killed, interrupted or failed. Empty if it did not end early."""
    position = f"after {run.manifest['steps']} steps"
    if run.status in ("killed", "interrupted"):
        attempt = f"latentforge train --resume {quoted(run.path)}"
        return [Diagnosis(run.status, "warning", f"{position} or a few more", attempt)]
    if run.status != "failed":
        return []
    reason = (run.manifest.get("error") or "no reason recorded").partition("\n  try: ")[0]
    attempt = "fix the error and train again; if the loss is not finite, lower train.lr"
    return [Diagnosis("failed", "warning", f"{position}: {reason}", attempt)]
