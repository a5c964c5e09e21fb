"""Loads a run: its model and loss with verified weights, its data, and the runs in its roles."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from latentforge.config.changes import find_data_edits, find_edits
from latentforge.config.condition import check_labels
from latentforge.config.schema import (
    IN_MEMORY,
    Component,
    DataConfig,
    OtherData,
    RunConfig,
    find_range_fault,
)
from latentforge.config.selection import merge_roles
from latentforge.contracts import Step, at_once
from latentforge.data.arrays import data_option, suggestions_for
from latentforge.data.labels import some
from latentforge.data.layout import SIGNAL
from latentforge.data.levels import find_levels
from latentforge.data.loading import load_splits, load_whole
from latentforge.data.splits import DataSplits
from latentforge.engine.build import build_modules, move_to_device
from latentforge.engine.checkpoint_state import HEADER, check_size, mismatch_error, module_bytes
from latentforge.engine.memory_format import set_memory_format
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.data_description import read_spec
from latentforge.runs.folder import MANIFEST, RunFolder
from latentforge.runs.roles import weights_digest
from latentforge.runtime.device import resolve_device
from latentforge.seeding import callers_state_kept
from latentforge.specs import Role
from latentforge.workflows.roles import LoadedModel, LoadedRole

log = logging.getLogger("latentforge")

RANGE_SAMPLE = 256  # images of other data whose range is checked
BRIGHT = 0.45  # 0 is there, if black is -1
SPANS = 5.0  # ratio of the ranges of two sets of values from which their scales probably differ
DARK = 0.02  # images whose values are all smaller have probably been scaled twice


def load(run: RunFolder, config: RunConfig, checkpoint: str, device: torch.device) -> LoadedModel:
    """Build the run's model and loss, and load the verified weights of a checkpoint."""
    config = load_roles(config, device, stored=True)
    about = run.manifest["data"]
    spec = read_spec(about)
    store = CheckpointStore(run.path / "checkpoints")
    saved = store.load_newest() if checkpoint == "last" else store.load(checkpoint)
    check_size(run.manifest, saved, config, spec)
    edits = find_edits(config, saved.state.get("config"))
    if edits := [*edits, *find_data_edits(about, saved.state.get("data"))]:
        message = "%s was edited after checkpoint %s was written; the results may be wrong: %s"
        log.warning(message, run.path / MANIFEST, saved.name, "; ".join(edits))
    with callers_state_kept(torch.device("cpu")):  # building a model samples initial weights
        model, loss = build_modules(config, spec)
    prefix = "ema-" if config.train.ema else ""
    for module, part in ((model, config.model), (loss, config.loss)):
        group = prefix + part.entry.kind.singular
        try:
            limit = 2 * module_bytes(module) + HEADER
            stored = saved.tensors(group, limit=limit) if group in saved.groups else {}
            module.load_state_dict(stored)
        except RuntimeError as error:
            raise mismatch_error(run.manifest, saved, part, str(error).splitlines()[1:5]) from None
        set_memory_format(module, config.train)  # as in training
        module.to(device)
        module.eval()
        module.requires_grad_(False)
    images = about["images"]["train"]
    # the end of training: evaluations use the weights of the loss terms at this step
    total = saved.state["total_steps"]
    step = Step(total, total, images, math.ceil(images / config.train.batch_size))
    digest, provides = weights_digest(saved.files), config.model.entry.provides
    return LoadedModel(run, model, loss, spec, saved.name, step, digest, provides)


def load_roles(config: RunConfig, device: torch.device, *, stored: bool) -> RunConfig:
    """Return the configuration with the loaded runs of its roles. `stored` is whether they are the
    copies in the folder of a run, which contain the scale of their codes."""
    if not config.role_runs or config.loaded_roles:
        return config
    components = [part for part in (config.model, config.loss, config.dataset) if part]
    loaded = {
        name: open_role(role, *config.role_runs[name], device, config.train.seed)
        for name, role in merge_roles(part.entry for part in components).items()
    }
    for role in loaded.values():
        if stored and role.role.standardize:
            role.read_scale(role.run.path)
    return replace(
        config,
        model=config.model.with_roles(loaded),
        loss=config.loss.with_roles(loaded),
        dataset=config.dataset and config.dataset.with_roles(loaded),
    )


def open_role(
    role: Role, run: RunFolder, config: RunConfig, device: torch.device, seed: int
) -> LoadedRole:
    """Load the run in a role. Its own data is loaded when it is first used."""
    config = load_roles(config, device, stored=True)

    def load_own() -> DataSplits:
        return move_to_device(load_data(run, config, None), device)

    return LoadedRole(role, load(run, config, "last", device), device, load_own, seed)


def load_data(run: RunFolder, config: RunConfig, data: Any) -> DataSplits:
    """Load the run's images: its dataset, its training data given in Python, or `data`, which is
    given in Python or a dataset (OtherData).

    If the run was trained on `data`, the data is split as in training. Other data is not split
    without a request: if it has no splits, all of it is used as each of the run's splits. Labels
    are matched to the run's classes by name.
    """
    if data is None and run.in_memory is not None:
        splits: DataSplits = run.in_memory
        return splits
    about = run.manifest["data"]
    spec = read_spec(about)
    values, scaling, other = spec.range_name, spec.scaling, None
    if data is None:
        options = replace(limit_workers(config.data), range=values)
        splits = load_splits(config.dataset, options, scaling=scaling)
    else:
        other = data if isinstance(data, OtherData) else OtherData(None, config.data, data=data)
        if other.dataset and is_same_dataset(other.dataset, config) and config.dataset:
            other = replace(other, dataset=replace(other.dataset, roles=config.dataset.roles))
        own, options = config.data, limit_workers(other.config)
        if fault := find_range_fault(options, options.range or values):
            raise UsageError(f"{run.path} was trained on data of the range {values}: {fault}")
        options = replace(options, range=options.range or values)
        if about["kind"] == SIGNAL and options.layout == "auto":
            options = replace(options, layout=SIGNAL)
        if not other.split:
            splits, has_splits = load_whole(replace(other, config=options), scaling)
            if not splits.matches(about):
                if not other.scaled:
                    with suggestions_for(other.data, other.config):
                        check_levels(run, own, splits, "" if other.dataset else IN_MEMORY)
                if not has_splits and other.dataset and is_same_dataset(other.dataset, config):
                    count = len(splits.split("train"))
                    message = (
                        "this is not the data of %s: all %d images are used, and none split off"
                    )
                    log.warning(message, run.path, count)
                if not has_splits:
                    whole = splits.split("train")
                    splits = replace(splits, splits=dict.fromkeys(about["images"], whole))
                limits = splits.spec.limits  # `match_run` replaces them with those of the run
                splits = match_run(run, config, splits, other)
                warn_if_unlike(run, splits, limits)
                return splits
            options = replace(  # as in training
                options, validation=own.validation, test=own.test, split_seed=own.split_seed
            )
        splits = load_splits(other.dataset, options, other.data, scaling)
    splits = match_run(run, config, splits, other)
    if data is None and not splits.matches(about):
        message = "the dataset %s has changed since %s was trained: metrics are not comparable"
        log.warning(message, config.data_name, run.path)
    return splits


def is_same_dataset(dataset: Component, config: RunConfig) -> bool:
    return config.dataset is not None and dataset.entry == config.dataset.entry


def limit_workers(config: DataConfig) -> DataConfig:
    """run.json may come from somebody else: it must not start 256 processes here."""
    return replace(config, workers=min(config.workers, os.cpu_count() or 1))


def check_levels(run: RunFolder, own: DataConfig, splits: DataSplits, where: str) -> None:
    """Raise UsageError if the levels that were chosen for the values of the run's data are applied
    to values of another type. `where` is that of `data_option`."""
    stored, here = (
        steps.get("stored")
        for steps in (run.manifest["data"].get("preprocessing", {}), splits.preprocessing)
    )
    levels = own.black or 0.0, own.white
    if stored == here or (own.black, own.white) == (None, None):
        return
    before, usual = (find_levels(str(kind), DataConfig(), "data") for kind in (stored, here))
    no_scale = math.isnan(before.white) and math.isnan(usual.white)  # integers of two sizes
    floats = "float" in str(stored) and "float" in str(here)
    if no_scale or floats or levels == (0.0, usual.white):
        return
    own_white = before.white if levels[1] is None else levels[1]
    used = splits.preprocessing
    share = find_range(splits)[1]
    high = used["black"] + share * (used["white"] - used["black"])  # as stored
    same = data_option(where, black=levels[0], white=own_white)
    full = data_option(where, black=0.0, white=usual.white)
    hint = same if math.isnan(usual.white) or high > usual.white else full
    if hint == full and own_white < usual.white:
        hint = f"{same}, if its values have the scale of the run, or {full}"
    raise UsageError(
        f"{run.path} was trained on {stored} with black {levels[0]:g} and white {own_white:g}, but "
        f"this data is {here}",
        hint=hint,
    )


def find_range(splits: DataSplits) -> tuple[float, float]:
    """The smallest and the largest value of a sample of each split, from 0 (black) to 1 (white)."""
    low, high = 1.0, 0.0
    for images in {id(split): split for split in splits.splits.values()}.values():
        count = min(RANGE_SAMPLE, len(images))
        places = torch.arange(count, device=images.device) * len(images) // count
        for part in torch.split(places, at_once(images.spec, RANGE_SAMPLE)):
            x = images.spec.to_unit(images.raw(part))
            scale = 255 if x.dtype == torch.uint8 else 1
            low, high = min(low, float(x.min()) / scale), max(high, float(x.max()) / scale)
    return low, high


def warn_if_unlike(
    run: RunFolder, splits: DataSplits, limits: tuple[float, float] | None = None
) -> None:
    """Warn if other data has another scale, only dark values, or no examples of some classes.
    `limits` are the smallest and the largest value of data that is kept as it is stored."""
    about, here = run.manifest["data"].get("preprocessing", {}), splits.preprocessing
    levels, own = ((steps.get("black"), steps.get("white")) for steps in (here, about))
    if about.get("stored") == here["stored"] and None not in own and levels != own:
        message = "black is %g and white is %g for this data, but %g and %g for that of %s"
        log.warning(message, *levels, *own, run.path)
    if splits.levels:
        low, high = find_range(splits)
        if high <= DARK:
            message = (
                "this data goes up to %.3g, if 1 is white in %s: it may have been scaled twice"
            )
            log.warning(message, high, run.path)
        if low >= BRIGHT and (own[0] or 0) < 0:
            message = "this data begins at %.3g, if 0 is black in %s: it may have another scale"
            log.warning(message, low, run.path)
    elif limits and (usual := read_spec(run.manifest["data"]).limits):
        spans = sorted(high - low for low, high in (limits, usual))
        if limits[1] < usual[0] or usual[1] < limits[0] or spans[1] > SPANS * spans[0]:
            message = "this data has values from %g to %g, but that of %s from %g to %g"
            log.warning(message, *limits, run.path, *usual)
    width = here.get("one_hot")
    if width and width != len(run.manifest["data"]["classes"]):
        raise UsageError(
            f"the labels are one-hot rows with {counted(width, 'column')}, but {run.path} has "
            + counted(len(run.manifest["data"]["classes"]), "class"),
            hint="give the labels as integers or as names of classes",
        )
    counts = splits.class_counts().values()
    classes = splits.spec.classes if counts else ()
    if missing := [name for name in classes if not any(count[name] for count in counts)]:
        message = "this data has no examples of %d of the %d classes of %s: %s"
        log.warning(message, len(missing), len(classes), run.path, some(missing))


def match_run(
    run: RunFolder, config: RunConfig, splits: DataSplits, other: OtherData | None = None
) -> DataSplits:
    """Return the splits with the labels as indices of the run's classes, matched by name. `other`
    is the request, if data was given. Raises UsageError if the data has another shape,
    examples of a class that the run does not have, or no labels for a conditional model."""
    about = run.manifest["data"]
    if list(splits.spec.shape) != about["shape"]:
        hint = ""
        if other and other.config.layout != "auto":
            with suggestions_for(other.data, other.config):
                option = data_option("" if other.dataset else IN_MEMORY, layout="auto")
            hint = f"{option}, if the axes have another order than {other.config.layout}"
        raise UsageError(
            f"{run.path} was trained on images of shape {tuple(about['shape'])}, "
            f"this data has shape {splits.spec.shape}",
            hint=hint,
        )
    check_labels(config.model.entry, splits.spec.classes, "this data")
    spec = read_spec(about)
    if splits.spec.range != spec.range:
        raise UsageError(
            f"{run.path} was trained on data of the range {spec.range_name}, "
            f"this data has the range {splits.spec.range_name}",
            hint=data_option("" if other and other.dataset else IN_MEMORY, range=spec.range_name),
        )
    if splits.spec.scaling != spec.scaling:
        used, here = (bool(each.scaling) for each in (spec, splits.spec))
        raise UsageError(
            f"{run.path} was trained with data.normalize={str(used).lower()}, but this data is "
            f"loaded with data.normalize={str(here).lower()}",
            hint=data_option("" if other and other.dataset else IN_MEMORY, normalize=used),
        )
    splits = splits.with_limits(spec.limits)
    splits = splits.with_classes(tuple(about["classes"]), str(run.path))
    return splits.with_factors(spec.factors, str(run.path))


@dataclass(frozen=True)
class LoadedRun:
    """A run that is ready for use: images and model on one device, and the other runs by role."""

    run: RunFolder
    config: RunConfig
    device: torch.device
    splits: DataSplits
    loaded: LoadedModel
    roles: dict[str, LoadedRole]


def load_run(
    run: RunFolder,
    config: RunConfig,
    *,
    checkpoint: str,
    roles: Mapping[str, tuple[RunFolder, RunConfig]],
    device: str,
    data: Any,
    role_specs: Mapping[str, Role] = MappingProxyType({}),
) -> LoadedRun:
    """Load a run's model and images, and the models of the runs in its roles, onto one device.
    `role_specs` are the roles that have conditions, such as other data than that of the run."""
    torch_device, seed = resolve_device(device), config.train.seed
    config = load_roles(config, torch_device, stored=True)
    splits = move_to_device(load_data(run, config, data), torch_device)
    for role in config.loaded_roles.values():
        role.use(splits)
    loaded = load(run, config, checkpoint, torch_device)
    others = {
        name: open_role(role_specs.get(name, Role()), other, other_config, torch_device, seed)
        for name, (other, other_config) in roles.items()
    }
    for role in others.values():
        role.use(splits)
    return LoadedRun(run, config, torch_device, splits, loaded, others)
