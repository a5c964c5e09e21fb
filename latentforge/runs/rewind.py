"""Rewinds a run folder to one of its checkpoints: pointers, metrics.jsonl and TensorBoard files."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentforge.errors import MissingError, RunFailed
from latentforge.io.atomic import (
    is_outside,
    iterate_lines,
    parse_json,
    replace_lines,
    unpredictable,
)
from latentforge.io.checksum import is_edited
from latentforge.io.text import counted, were
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runs.folder import METRICS, RunFolder
from latentforge.runs.tensorboard import EVENTS

log = logging.getLogger("latentforge")


def select_checkpoint(store: CheckpointStore, saved: Checkpoint) -> None:
    """Point LATEST to the checkpoint that is resumed, and BEST to the one at the end of the best
    epoch so far. A kill between two writes may have left the pointers inconsistent."""
    store.publish("last", saved.name)
    step, epoch = saved.state["step"], saved.state["best_epoch"]
    best = [
        checkpoint.name
        for checkpoint in store.load_undamaged()
        if checkpoint.state.get("closed_step") == checkpoint.state.get("step") <= step
        and checkpoint.state.get("epoch") == epoch
    ]
    if best:
        store.publish("best", best[-1])
        return
    try:
        store.load("best")
    except MissingError:
        pass
    except RunFailed as error:
        log.warning("%s; a new best checkpoint is saved at the next improvement", error.message)
        store.publish("best", None)


def check_no_link(run: RunFolder) -> None:
    """Raise RunFailed if metrics.jsonl is a link to a place outside the run, which a resume would
    read and replace, or not a file."""
    if is_outside(path := run.path / METRICS, run.path):
        raise RunFailed(
            f"{path} is a link to a place outside its folder",
            hint="replace the link by the file itself",
        )
    if path.exists() and not path.is_file():
        raise RunFailed(f"{path} is not a file", hint="remove it, or restore the file")


def truncate_logs(run: RunFolder, state: Mapping[str, Any]) -> None:
    """Truncate metrics.jsonl and the TensorBoard files to their state at the checkpoint, because
    training writes the rest again. An incomplete last line is removed too."""
    path = run.path / METRICS
    evaluated_step, sizes = state.get("closed_step", 0), state.get("events", {})
    try:
        warn_if_edited(path)
        steps = [parse_step(line) for line in iterate_lines(path)]
        if any(math.isnan(step) for step in steps[:-1]):
            log.warning("%s: removed a damaged line before the last line", path)
        epochs = state.get("epoch", 0)
        if (recorded := sum(step <= evaluated_step for step in steps)) < epochs:
            found = counted(recorded, "epoch")
            log.warning("%s has %s, but %d %s trained", path, found, epochs, were(epochs))
        if not all(step <= evaluated_step for step in steps):
            pairs = zip(iterate_lines(path), steps, strict=True)
            kept = (line for line, step in pairs if step <= evaluated_step)
            replace_lines(path, kept, path.with_name(f".{path.name}.{unpredictable()}"))
        for name in run.manifest.get("events", []):
            file = run.path / Path(name).name
            if not file.is_file() or not name.startswith(EVENTS) or is_outside(file, run.path):
                continue
            if name not in sizes:
                file.unlink()
            elif file.stat().st_size > sizes[name]:
                os.truncate(file, sizes[name])
    except (OSError, ValueError) as error:
        raise RunFailed(
            f"cannot resume {run.path}: {error}", hint="free disk space or repair the disk"
        ) from None


def warn_if_edited(path: Path) -> None:
    edited, numbers = 0, []
    for line in iterate_lines(path):
        with suppress(ValueError, TypeError, KeyError):
            values = parse_json(line)
            edited += is_edited(values)
            numbers.append(values["epoch"])
    if edited:
        log.warning("%s: %s %s edited after training", path, counted(edited, "line"), were(edited))
    if repeated := len(numbers) - len({*map(str, numbers)}):
        verb = "repeats" if repeated == 1 else "repeat"
        log.warning("%s: %s %s an epoch", path, counted(repeated, "line"), verb)


def parse_step(line: str) -> float:
    """The step of a line of metrics.jsonl; NaN if the line is incomplete or damaged."""
    try:
        return float(parse_json(line)["step"]) if line.endswith("\n") else math.nan
    except (ValueError, KeyError, TypeError):
        return math.nan
