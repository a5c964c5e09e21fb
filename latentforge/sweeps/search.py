"""Runs an Optuna search: each member depends on the results of earlier ones."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from latentforge.config.capabilities import describe_missing
from latentforge.config.changes import CHANGEABLE, flatten
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.config.schema import RunConfig
from latentforge.config.selection import training_measures
from latentforge.data.splits import DataSplits
from latentforge.errors import LatentForgeError, UsageError, did_you_mean
from latentforge.plugins.registry import Registry
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.grid import Member, draft_member, find_loss_changes
from latentforge.sweeps.job import Job
from latentforge.sweeps.optuna_study import Study, check_optuna
from latentforge.sweeps.record import member_record, path_keys, trial_name
from latentforge.sweeps.runner import Sweeper
from latentforge.sweeps.search_space import Space, check_space
from latentforge.workflows.train import load_inputs

log = logging.getLogger("latentforge")
SPLIT = "validation"  # the only split whose metrics a search may use
# settings of how and where a run is trained, not of its model, loss or data
EXECUTION_SETTINGS = CHANGEABLE | {"train.device"}


def describe_search(
    registry: Registry, draft: Draft, space: Space, objective: str | None, data: Any
) -> tuple[RunConfig, dict[str, Any]]:
    """Return a configuration from the space, and the section of sweep.json about the search. The
    section contains the space, the objective and the name of the study, which is the same in all
    sweeps that run the same search."""
    loss_changes = find_loss_changes(space, draft.values)
    metric = check_objective(objective, loss_changes) if objective else ""
    config = check_space(draft, space, registry, in_memory=data is not None)
    metric = metric or check_objective(config.train.monitor, loss_changes)
    check_optuna()
    _, splits = load_inputs(registry, config, torch.device("cpu"), data)
    objective_metric, better = find_objective(registry, config, splits, metric)
    seed = draft.values.get("train", {}).get("seed", 0)
    section: dict[str, Any] = {
        "space": {key: part.as_json() for key, part in space.items()},
        "objective": objective_metric,
        "better": better,
        "seed": seed if isinstance(seed, int) else 0,  # otherwise the space contains the seed
    }
    return config, {**section, "study": study_name(config, section, splits.sample)}


def study_name(config: RunConfig, section: Mapping[str, Any], sample: str) -> str:
    """Compute a study name that is the same for equal searches on every machine. Paths are not part
    of the name: images, also streamed ones, are identified by the fingerprint `sample`."""
    data_paths = {key for key in path_keys(config) if key.startswith("data.")}
    settings = {
        key: value
        for key, value in flatten(config.as_dict()).items()
        if value is not None and key not in EXECUTION_SETTINGS | data_paths  # None: no path given
    }
    text = json.dumps([settings, dict(section), sample], sort_keys=True)
    return f"latentforge-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def check_objective(requested: str, loss_changes: Sequence[str]) -> str:
    """Return the name of the requested metric, given as `elbo` or `validation/elbo`. Raises
    UsageError for metrics that a search must not optimize, such as the loss if there are
    `loss_changes`."""
    split, slash, name = requested.partition("/")
    reasons = {
        "test": "test images that select the model are no longer unseen",
        "train": "metrics of training images do not measure generalization",
    }
    if slash and (reason := reasons.get(split)):
        raise UsageError(f"objective {requested}: {reason}", hint=f"--objective {SPLIT}/{name}")
    name = requested.removeprefix(f"{SPLIT}/").rpartition("/")[2].replace("-", "_")
    if name == "loss" and loss_changes:
        raise UsageError(
            f"objective loss: the space changes {', '.join(loss_changes)}, "
            "and values of different losses are not comparable",
            hint="--objective elbo, or another metric that does not depend on the loss",
        )
    return name


def find_objective(
    registry: Registry, config: RunConfig, splits: DataSplits, name: str
) -> tuple[str, str]:
    """Return the objective as `validation/<metric>`, and the better direction. Raises UsageError if
    there is no validation split, or if training does not compute the metric."""
    monitor, measures = training_measures(registry, config, splits.spec, splits.splits)
    if SPLIT not in splits.splits:
        raise UsageError(
            "a search needs a validation split; the data has none", hint="--set data.validation=0.1"
        )
    directions = {m.name.replace("-", "_"): m.entry.spec.better for m in (monitor, *measures)}
    if name in directions:
        return f"{SPLIT}/{name}", directions[name]
    others = {entry.name.replace("-", "_"): entry for entry in registry.entries("measures")}
    reason, model = "no such metric", config.model.entry.spec
    if other := others.get(name):
        reason = describe_missing(f"measure {other.name!r}", other.spec.needs, model)
    if other and not reason:
        raise UsageError(
            f"objective {name}: not computed during training",
            hint=f"--set train.monitor={other.name}",
        )
    raise UsageError(
        f"objective {name}: {reason}",
        hint=did_you_mean(name, list(directions)) or f"choose from {', '.join(directions)}",
    )


class Searcher(Sweeper):
    """Trains a member for each trial of a study, and reports the results to the study."""

    def __init__(
        self, sweep: Sweep, draft: Draft, study: Study, data: Any, *, jobs: int, quiet: bool
    ) -> None:
        super().__init__(sweep, data, jobs=jobs, quiet=quiet)
        self.draft, self.study = draft, study
        self.exhausted = False  # whether the study has no more trials

    def resume(self, members: Sequence[Member]) -> None:
        """Report results that are not reported yet, then train `members`, then new members."""
        names = {member.name for member in members}
        for record in self.sweep.members:
            if record["name"] not in names:
                self.study.report_result(record)
        known = {record["trial"] for record in self.sweep.members}
        recovered = [self.create_member(*trial) for trial in self.study.recover_trials(known)]
        for member in [*members, *recovered]:
            self.enqueue(member)
        self.run()

    def create_member(self, number: int, values: Mapping[str, Any]) -> Member:
        """Create a member from a trial and record it."""
        member = Member(trial_name(number, values), values)
        self.sweep.members.append(member_record(member, trial=number))
        self.sweep.write()
        return member

    def enqueue(self, member: Member) -> None:
        """Queue a member. If its configuration is invalid, only this member fails."""
        draft = draft_member(self.draft, member, "the search")
        try:
            config = resolve(draft, self.sweep.registry, in_memory=self.data is not None)
        except LatentForgeError as error:
            self.record_status(member.name, "failed", str(error))
        else:
            self.configs[member.name] = config
            self.queue.append(Job((member,)))

    def next_job(self) -> Job | None:
        while not self.queue and not self.exhausted:
            trial = self.study.ask()
            self.exhausted = trial is None
            if trial is not None:
                self.enqueue(self.create_member(*trial))
        return super().next_job()

    def count_remaining(self) -> int:
        return super().count_remaining() + max(0, self.study.count_remaining())

    def count_members(self) -> int:
        return int(self.sweep.search["trials"])

    def record_status(self, name: str, status: str, error: str) -> None:
        super().record_status(name, status, error)
        member = next(member for member in self.sweep.members if member["name"] == name)
        if status in ("done", "failed", "killed"):
            self.study.report_result(member)
        objective = str(self.sweep.search["objective"])
        split, _, metric = objective.partition("/")
        if status == "done" and metric not in member["metrics"].get(split, {}):
            log.warning("%s has no metric %s; nothing is reported to the search", name, objective)

    def report(self) -> None:
        self.sweep.write(best_of_all=self.study.best())
        super().report()
