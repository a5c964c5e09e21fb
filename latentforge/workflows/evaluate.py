"""Evaluates a run on a split. The request is checked before torch loads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.config.schema import Component, check_device, weights_of
from latentforge.config.selection import choose_measures
from latentforge.errors import RunFailed, UsageError
from latentforge.io.paths import append_json_line
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import open_roles, resolve_stored_config
from latentforge.runs.folder import RunFolder
from latentforge.runs.manifest import now

if TYPE_CHECKING:
    from latentforge.workflows.load import Opened

log = logging.getLogger("latentforge")


def evaluate(
    registry: Registry,
    run: RunFolder,
    split: str = "test",
    *,
    checkpoint: str = "last",
    measures: Sequence[str] = (),
    roles: Mapping[str, RunFolder | str | Path] | None = None,
    options: Sequence[str] | Mapping[str, Any] = (),
    device: str = "auto",
    data: Any = None,
) -> dict[str, Any]:
    """Metrics of a run on a split, as `Forge.evaluate` describes them."""
    check_device(device)
    config = resolve_stored_config(registry, run)
    chosen = choose_measures(registry, config, run.manifest["data"]["classes"], measures, options)
    others = open_roles(registry, roles, [measure.entry for measure in chosen])
    from latentforge.workflows.load import open_up

    opened = open_up(run, config, checkpoint=checkpoint, roles=others, device=device, data=data)
    return record_metrics(opened, split, chosen)


def record_metrics(opened: Opened, split: str, measures: Sequence[Component]) -> dict[str, Any]:
    """The metrics of `measures` on a split; they are also appended to evaluations.jsonl."""
    run, splits = opened.run, opened.splits
    images = len(splits.split(split))
    for measure in measures:
        if measure.entry.spec.labels and not splits.spec.classes:
            raise UsageError(
                f"measure {measure.name!r} needs labels; the data has none",
                remedy="data=(x, y), or choose other measures",
            )
    figures, protocol = measured(opened, split, measures)
    result = {
        "run": str(run.path),
        "split": split,
        "checkpoint": opened.loaded.checkpoint,
        "weights": weights_of(opened.config.train),
        "metrics": figures,
        "protocol": protocol,
        "images": images,
        "fingerprint": splits.fingerprint,  # of the evaluated data, which may not be the run's
    }
    try:
        append_json_line(run.path / "evaluations.jsonl", {"at": now(), **result})
    except RunFailed as error:  # a read-only run can still be evaluated
        log.warning("the metrics cannot be saved: %s", error.message)
    return result


def measured(
    opened: Opened, split: str, measures: Sequence[Component]
) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics of a split, and the protocol of each metric."""
    loss, labelled = opened.config.loss, opened.splits.spec.classes
    if loss.entry.spec.labels and not labelled and "loss" in {m.name for m in measures}:
        raise UsageError(
            f"loss {loss.name!r} needs labels; the data has none", remedy="data=(x, y)"
        )
    from latentforge.engine.evaluator import Evaluator
    from latentforge.runtime.threads import use_threads
    from latentforge.seeding import callers_state_kept

    evaluator = Evaluator(
        opened.loaded.model,
        opened.loaded.loss,
        opened.splits,
        measures,
        seed=opened.config.train.seed,
        device=opened.device,
        roles=opened.roles,
    )
    with callers_state_kept(opened.device), use_threads(opened.config.train.threads):
        return evaluator.run(split, opened.loaded.step), evaluator.protocol
