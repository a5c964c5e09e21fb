"""Trains a model from a resolved configuration in a new run folder."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.config.condition import check_labels
from latentforge.config.data_range import check_range, list_range_options
from latentforge.config.schema import RunConfig
from latentforge.config.selection import (
    check_factor_names,
    find_lacking,
    fit_to_loss,
    training_measures,
)
from latentforge.data.loading import load_splits
from latentforge.data.splits import DataSplits
from latentforge.engine.build import build_trainee
from latentforge.engine.distributed import create_shared_folder, join_processes
from latentforge.engine.optimizer import build_optimizer
from latentforge.engine.step import Trainee
from latentforge.errors import UsageError
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import (
    check_same_images,
    open_training_roles,
    warn_if_split_differently,
)
from latentforge.runs.data_description import describe_data
from latentforge.runs.folder import check_no_run, lock_run, remove_temporary_files
from latentforge.runs.manifest import RUNS, build_manifest
from latentforge.runtime import torchrun
from latentforge.runtime.device import select_training_device
from latentforge.runtime.threads import use_threads
from latentforge.seeding import callers_state_kept
from latentforge.workflows.load import load_roles
from latentforge.workflows.roles import store_roles
from latentforge.workflows.run import Run
from latentforge.workflows.session import TrainingSession

if TYPE_CHECKING:
    import torch


def train(
    registry: Registry,
    config: RunConfig,
    *,
    run: Path | None,
    quiet: bool,
    verbose: bool = False,
    data: Any = None,
) -> Run:
    """Train a model in a new run folder. `data` is in-memory data or None. `verbose`: also print
    the facts of the loss, such as its beta in other conventions.

    Faults of the request (device, data, network, optimizer) are found before the folder is created.
    """
    device = select_training_device(config.train.device)
    config, splits = load_inputs(registry, config, device, data)
    spec = splits.spec
    if lacking := find_lacking(config.loss.entry.spec, spec.classes, spec.factors):
        raise UsageError(
            f"loss {config.loss.name!r} needs {lacking}; {config.data_name} has none",
            hint=f"give data with {lacking}, or train a model that needs none, such as ae",
        )
    check_factor_names(config.loss, spec.factors)
    check_labels(config.model.entry, spec.classes, config.data_name)
    check_range(registry, [config.model, config.loss], spec.range_name)
    monitor, _ = training_measures(registry, config, spec, splits.splits)
    if config.train.cuda_graph == "on" and device.type != "cuda":
        raise UsageError(
            f"train.cuda_graph is on, but {device} has no CUDA graphs",
            hint="--set train.cuda_graph=auto",
        )
    with use_threads(config.train.threads), callers_state_kept(device):
        trainee = build_trainee(config, splits).to(device)
        fit_to_loss([monitor], config.loss, trainee.loss)
        facts = compute_facts(trainee, config, splits)
        build_optimizer(trainee, config.train)  # raises before the folder exists
        processes = join_processes(config, device, splits) if torchrun.is_distributed() else None
        folder = create_shared_folder(
            run, RUNS, f"{config.model.name}-{config.data_name}", processes
        )
        manifest = {**build_manifest(config, splits, device), "facts": facts}
        new_run = Run(folder, manifest, registry)
        new_run.writes = not torchrun.rank()
        if data is not None:
            new_run.in_memory = splits
        with lock_run(folder) if new_run.writes else nullcontext():
            if new_run.writes:
                check_no_run(folder)  # another process may have been faster
                if roles := config.loaded_roles:
                    manifest["roles"] = store_roles(roles, folder)
                new_run.write_first()
                remove_temporary_files(folder)
            new_run.training = True
            parts = (new_run, config, splits, trainee, device)
            with TrainingSession(
                *parts, quiet=quiet, verbose=verbose, processes=processes
            ) as session:
                session.fit()
    return new_run


def load_inputs(
    registry: Registry, config: RunConfig, device: torch.device, data: Any
) -> tuple[RunConfig, DataSplits]:
    """Load the runs in the roles of a new run, and its data on the CPU. Returns the configuration
    with the loaded runs. Raises UsageError if a run that must have been trained on the same kind of
    data was not."""
    if not config.role_runs:  # a member of a sweep
        config = open_training_roles(registry, config)
    config = load_roles(config, device, stored=False)
    ranges = list_range_options(config.data, [config.model, config.loss])
    splits = load_splits(config.dataset, config.data, data, ranges=ranges)
    if roles := config.loaded_roles:
        about = describe_data(config.data_name, splits)
        for name, role in roles.items():
            if role.role.same_data:
                check_same_images(about, name, role.run, "the new run")
                warn_if_split_differently(about, config.data, splits.drawn, name, role.run)
            role.use(splits)
    return config, splits


def compute_facts(trainee: Trainee, config: RunConfig, splits: Any) -> dict[str, Any]:
    """Compute the facts that the loss reports at the start of a run, as JSON values."""
    get_facts = getattr(trainee.loss, "facts", None)
    if get_facts is None:
        return {}
    doing = f"the facts of loss {config.loss.name!r}"
    return config.loss.call(
        doing, lambda: json.loads(json.dumps(dict(get_facts(trainee.model, splits.spec))))
    )
