"""Evaluates a run on a split. The request is checked before torch loads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.config.condition import check_unconditional
from latentforge.config.data_command import complete_command
from latentforge.config.inference import SAMPLER, describe_sampler, override_sampler
from latentforge.config.request import separate_assignments
from latentforge.config.resolve import resolve_other_data
from latentforge.config.schema import PROTOCOL, Component, RunConfig, check_device, describe_weights
from latentforge.config.selection import (
    check_factor_names,
    find_lacking,
    fit_to_data,
    fit_to_loss,
    merge_roles,
    select_measures,
)
from latentforge.errors import LatentForgeError, RunFailed, UsageError
from latentforge.io.checksum import add_checksum
from latentforge.io.paths import append_json_line
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import note_own_roles, open_roles, resolve_stored_config
from latentforge.runs.data_description import read_spec
from latentforge.runs.folder import RunFolder
from latentforge.runs.manifest import now

if TYPE_CHECKING:
    from latentforge.contracts import DataSpec
    from latentforge.workflows.load import LoadedRun

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
    sampler: Sequence[str] | Mapping[str, Any] = (),
    protocol: int = PROTOCOL,
) -> dict[str, Any]:
    """Compute the metrics of a run on a split; see `Forge.evaluate`."""
    check_device(device)
    if not 1 <= protocol <= PROTOCOL:
        raise UsageError(
            f"no evaluation protocol {protocol}: they are 1 to {PROTOCOL}",
            hint=f"--protocol {PROTOCOL}",
        )
    config = resolve_stored_config(registry, run)
    sampler_options, options = separate_section(options, SAMPLER)
    config = override_sampler(config, sampler_options, sampler)
    data_options, options = separate_section(options, "data")
    data = resolve_other_data(registry, config, data, data_options)
    spec = read_spec(run.manifest["data"])
    # requested measures are checked again when other data is loaded
    factors = None if measures and data is not None else spec.factors
    selected = select_measures(
        *(registry, config, spec.classes, measures, options, factors, spec.range_name)
    )
    others = open_roles(registry, roles, [measure.entry for measure in selected], config)
    models = {role: other.model.entry for role, (_, other) in others.items()}
    check_unconditional(models, merge_roles(measure.entry for measure in selected))
    from latentforge.workflows.load import load_run

    loaded = load_run(run, config, checkpoint=checkpoint, roles=others, device=device, data=data)
    return record_metrics(loaded, split, selected, protocol, data)


def separate_section(
    options: Sequence[str] | Mapping[str, Any], section: str
) -> tuple[Sequence[str] | Mapping[str, Any], Sequence[str] | Mapping[str, Any]]:
    """Return the options of a section, `SECTION.KEY=VALUE`, and the others."""
    if isinstance(options, Mapping):
        return options.get(section, {}), {k: v for k, v in options.items() if k != section}
    return separate_assignments(options, section)


def record_metrics(
    loaded_run: LoadedRun, split: str, measures: Sequence[Component], version: int, data: Any
) -> dict[str, Any]:
    """Compute the metrics of `measures` on a split under a version of the evaluation protocol, and
    append them to evaluations.jsonl. `data` is what replaces the run's own data, or None. If a
    measure fails during the evaluation, its error is raised after the metrics of the others are
    stored; `result` of the error contains them."""
    run, splits = loaded_run.run, loaded_run.splits
    images = len(splits.split(split))
    measures, notice = fit_to_data(measures, splits.spec)
    failures: list[LatentForgeError] = []
    metrics, protocol = measure_split(loaded_run, split, measures, version, failures)
    if notice:
        log.warning("%s", notice)
    roles = {role: other.run for role, other in loaded_run.roles.items()}
    notes = note_own_roles(loaded_run.config, roles)
    result = {
        "run": str(run.path),
        "split": split,
        "checkpoint": loaded_run.loaded.checkpoint,
        "weights": describe_weights(loaded_run.config.train),
        **describe_sampler(loaded_run.config),
        "metrics": metrics,
        "protocol": protocol,
        **({"notes": notes} if notes else {}),
        "evaluation_protocol": version,
        "images": images,
        "fingerprint": splits.fingerprint,  # of the evaluated data, which may not be the run's
    }
    warn_if_baseline(metrics, splits.class_counts().get(split, {}), split, loaded_run.config, data)
    try:
        append_json_line(run.path / "evaluations.jsonl", add_checksum({"at": now(), **result}))
    except RunFailed as error:  # a read-only run can still be evaluated
        log.warning("the metrics cannot be saved: %s", error.message)
    if failures:
        first, *others = failures
        for other in others:
            log.warning("%s", other.message)
        first.result = result
        raise first
    return result


def warn_if_baseline(
    metrics: Mapping[str, float],
    counts: Mapping[str, int],
    split: str,
    config: RunConfig,
    data: Any = None,
) -> None:
    """Warn about an accuracy that is not above that of the most frequent class of a split of the
    run's data, or of `data`, which replaces it."""
    from latentforge.engine.class_balance import check_majority

    if "accuracy" in metrics and counts and "balanced_accuracy" not in metrics:
        for finding in check_majority(counts, split, metrics["accuracy"]):
            log.warning("%s; %s", finding.saw, complete_command(finding.attempt, config, data))


def check_loss(loss: Component, data: DataSpec, trained_on: DataSpec) -> None:
    """Raise UsageError if the loss reads labels or factors that other data does not have."""
    if lacking := find_lacking(loss.entry.spec, data.classes, data.factors):
        raise UsageError(
            f"loss {loss.name!r} needs {lacking}; the data has none",
            hint=f"give data with {lacking}",
        )
    check_factor_names(loss, data.factors)
    here = {factor.name for factor in data.factors}
    missing = [repr(f.name) for f in trained_on.factors if f.name not in here]
    if loss.entry.spec.factors and missing:
        raise UsageError(
            f"loss {loss.name!r} reads factors, and the data has no factor {', '.join(missing)}",
            hint="give data with the factors of the run, or choose other measures",
        )


def measure_split(
    loaded_run: LoadedRun,
    split: str,
    measures: Sequence[Component],
    version: int = PROTOCOL,
    failures: list[LatentForgeError] | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Compute the metrics of a split. Also returns the protocol of each metric. With `failures`,
    the errors of measures that fail during the evaluation are added to the list."""
    loss, spec = loaded_run.config.loss, loaded_run.splits.spec
    if "loss" in {m.name for m in measures}:
        check_loss(loss, spec, loaded_run.loaded.data)
    from latentforge.engine.evaluator import Evaluator
    from latentforge.runtime.threads import use_threads
    from latentforge.seeding import callers_state_kept

    loaded, splits, train = loaded_run.loaded, loaded_run.splits, loaded_run.config.train
    device, roles = loaded_run.device, loaded_run.roles
    measures, notice = fit_to_loss(measures, loss, loaded.loss)
    if notice:
        log.warning("%s", notice)
    evaluator = Evaluator(
        loaded.model,
        loaded.loss,
        splits,
        measures,
        seed=train.seed,
        device=device,
        roles=roles,
        version=version,
        provides=loaded_run.config.model.entry.provides,
        failures=failures,
    )
    with callers_state_kept(device), use_threads(train.threads):
        return evaluator.run(split, loaded.step), evaluator.protocol
