"""Diagnoses a finished run: reports what looks wrong with its data, codes and curves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from latentforge.config.schema import Component, check_device
from latentforge.config.selection import choose_measures
from latentforge.engine import diagnostics
from latentforge.engine.diagnostics import Diagnosis
from latentforge.engine.evaluator import BATCH
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import resolve_stored_config
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
    config = resolve_stored_config(registry, run)
    failed = failure(run)
    if failed and not (run.path / "checkpoints" / "LATEST").exists():
        return failed  # without a checkpoint there is nothing else to check
    loss = choose_measures(registry, config, (), ["loss"])[0]
    held = split or ("validation" if "validation" in run.manifest["data"]["images"] else "test")
    opened = open_up(run, config, checkpoint=checkpoint, roles={}, device=device, data=data)
    return [*failed, *diagnose_opened(opened, held, loss)]


def diagnose_opened(opened: Opened, split: str, loss: Component) -> list[Diagnosis]:
    """Diagnose a loaded run with its training images and those of `split`; `loss` is the measure
    named loss."""
    loaded, provides = opened.loaded, opened.config.model.entry.spec.provides
    train, held = opened.splits.split("train"), opened.splits.split(split)
    found = [
        *diagnostics.check_value_range(
            train, getattr(loaded.loss, "likelihood", None), kl="kl" in provides
        ),
        *diagnostics.find_constant_pixels(train),
    ]
    if "encode" in provides:
        with torch.no_grad():
            codes = diagnostics.compute_code_statistics(loaded.model, held, kl="kl" in provides)
        found += [
            *diagnostics.find_dead_latents(codes, f"the {split} images"),
            *diagnostics.check_log_var(codes),
        ]
    of_train = measured(opened, "train", [loss])[0]["loss"]
    of_held = measured(opened, split, [loss])[0]["loss"]
    epochs = [line[split]["loss"] for line in opened.run.history() if split in line]
    curve = [*epochs[:-1], of_held] if split == "validation" else [of_held]
    found += diagnostics.check_overfitting(
        of_train, curve, "the training images", f"the {split} images"
    )
    recorded = opened.run.metrics.get("train", {}).get("loss")
    if recorded is not None and not opened.config.train.ema and not still_moving(opened):
        found += diagnostics.explain_running_average(recorded, of_train, of_held, split)
    return found


def still_moving(opened: Opened) -> bool:
    """Whether the loss's schedule changed in the last epoch, so that its values do not compare."""
    model, loss, end = opened.loaded.model, opened.loaded.loss, opened.loaded.step
    train = opened.splits.split("train")
    batch = train.batch_at(range(min(BATCH, len(train))))
    before = replace(end, index=max(0, end.total - end.epoch_length))
    totals = []
    with callers_state_kept(opened.device), torch.no_grad():
        for step in (before, end):
            torch.manual_seed(0)
            totals.append(float(loss(model, batch, step).total()))
    return not math.isclose(*totals, rel_tol=1e-5)


def failure(run: RunFolder) -> list[Diagnosis]:
    """Why a run ended early: killed, interrupted or failed. Empty if it did not."""
    after = f"after {run.manifest['steps']} steps"
    if run.status in ("killed", "interrupted"):
        attempt = f"latentforge train --resume {run.path}"
        return [Diagnosis(run.status, "warning", f"{after} or a few more", attempt)]
    if run.status != "failed":
        return []
    why = (run.manifest.get("error") or "no reason recorded").partition("\n  try: ")[0]
    attempt = "fix the error and train again; if the loss is not finite, lower train.lr"
    return [Diagnosis("failed", "warning", f"{after}: {why}", attempt)]
