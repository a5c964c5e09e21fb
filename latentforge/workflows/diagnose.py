"""Diagnoses a finished run: reports what looks wrong with its data, codes and curves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from latentforge.config.schema import Component, check_device
from latentforge.config.selection import select_measures
from latentforge.engine import diagnostics
from latentforge.engine.diagnostics import Diagnosis
from latentforge.engine.evaluator import BATCH
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import config_of
from latentforge.runs.folder import RunFolder
from latentforge.seeding import callers_state_kept
from latentforge.workflows.evaluate import measured
from latentforge.workflows.load import Opened, open_up


def diagnose(
    registry: Registry,
    run: RunFolder,
    split: str | None = None,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    data: Any = None,
) -> list[Diagnosis]:
    """Diagnose a run, as `Forge.diagnose` describes it."""
    check_device(device)
    config = config_of(registry, run)
    failed = failure(run)
    if failed and not (run.path / "checkpoints" / "LATEST").exists():
        return failed  # without a checkpoint there is nothing else to check
    loss = select_measures(registry, config, (), ["loss"])[0]
    held_out = split or ("validation" if "validation" in run.manifest["data"]["images"] else "test")
    opened = open_up(run, config, checkpoint=checkpoint, roles={}, device=device, data=data)
    return [*failed, *diagnose_opened(opened, held_out, loss)]


def diagnose_opened(opened: Opened, split: str, loss: Component) -> list[Diagnosis]:
    """Diagnose a loaded run with its training images and those of `split`; `loss` is the measure
    named loss."""
    loaded, provides = opened.loaded, opened.config.model.entry.spec.provides
    train, held_out = opened.splits.split("train"), opened.splits.split(split)
    diagnoses = [
        *diagnostics.value_range(
            train, getattr(loaded.loss, "likelihood", None), kl="kl" in provides
        ),
        *diagnostics.constant_pixels(train),
    ]
    if "encode" in provides:
        with torch.no_grad():
            codes = diagnostics.look_at_codes(loaded.model, held_out, kl="kl" in provides)
        diagnoses += [
            *diagnostics.dead_latents(codes, f"the {split} images"),
            *diagnostics.exploding_log_var(codes),
        ]
    train_loss = measured(opened, "train", [loss])[0]["loss"]
    held_out_loss = measured(opened, split, [loss])[0]["loss"]
    epochs = [line[split]["loss"] for line in opened.run.history() if split in line]
    curve = [*epochs[:-1], held_out_loss] if split == "validation" else [held_out_loss]
    diagnoses += diagnostics.overfitting(
        train_loss, curve, "the training images", f"the {split} images"
    )
    recorded = opened.run.metrics.get("train", {}).get("loss")
    if recorded is not None and not opened.config.train.ema and not still_moving(opened):
        diagnoses += diagnostics.running_average(recorded, train_loss, held_out_loss, split)
    return diagnoses


def still_moving(opened: Opened) -> bool:
    """Whether the loss's schedule changed in the last epoch, so that its values do not compare."""
    model, loss, end = opened.loaded.model, opened.loaded.loss, opened.loaded.step
    train = opened.splits.split("train")
    batch = train.batch_at(range(min(BATCH, len(train))))
    earlier = replace(end, index=max(0, end.total - end.epoch_length))
    totals = []
    with callers_state_kept(opened.device), torch.no_grad():
        for step in (earlier, end):
            torch.manual_seed(0)
            totals.append(float(loss(model, batch, step).total()))
    return not math.isclose(*totals, rel_tol=1e-5)


def failure(run: RunFolder) -> list[Diagnosis]:
    """Why a run ended early: killed, interrupted or failed. Empty if it did not."""
    position = f"after {run.manifest['steps']} steps"
    if run.status in ("killed", "interrupted"):
        attempt = f"latentforge train --resume {run.path}"
        return [Diagnosis(run.status, "warning", f"{position} or a few more", attempt)]
    if run.status != "failed":
        return []
    reason = (run.manifest.get("error") or "no reason recorded").partition("\n  try: ")[0]
    attempt = "fix the error and train again; if the loss is not finite, lower train.lr"
    return [Diagnosis("failed", "warning", f"{position}: {reason}", attempt)]
