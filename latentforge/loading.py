"""A finished run, loaded again: to measure it, to explore it, to use its model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from latentforge import doctor
from latentforge.checkpoint import CheckpointStore
from latentforge.checkpoint_files import Checkpoint
from latentforge.config import Component, RunConfig
from latentforge.contracts import Step
from latentforge.data import DataSplits
from latentforge.doctor import Finding
from latentforge.drafting import IN_MEMORY
from latentforge.engine.device import resolve_device
from latentforge.engine.evaluator import BATCH, Evaluator
from latentforge.engine.layout import lay_out
from latentforge.engine.state import HEADER, size_of
from latentforge.errors import RunFailed, UsageError
from latentforge.preparation import prepare_whole
from latentforge.run import Run, append_json_line
from latentforge.seeding import callers_state_kept
from latentforge.settings import weights_of
from latentforge.sources import given_splits, load_splits
from latentforge.specs import DataSpec
from latentforge.streaming import Streaming
from latentforge.training import build_modules, now, on_device, using_threads

if TYPE_CHECKING:
    from latentforge.forge import Forge

log = logging.getLogger("latentforge")


@dataclass(frozen=True)
class Loaded:
    """A run's model and loss in evaluation mode, and the checkpoint they come from."""

    run: Run
    model: nn.Module
    loss: nn.Module
    data: DataSpec
    checkpoint: str
    step: Step

    @property
    def name(self) -> str:
        return self.run.name


def load(run: Run, config: RunConfig, checkpoint: str, device: torch.device) -> Loaded:
    """Build the run's model and loss and fill in the verified weights of a checkpoint."""
    about = run.manifest["data"]
    spec = DataSpec(tuple(about["shape"]), about["kind"], tuple(about["classes"]))
    store = CheckpointStore(run.path / "checkpoints")
    saved = store.load_newest() if checkpoint == "last" else store.load(checkpoint)
    check_size(run, saved, config, spec)
    with callers_state_kept(torch.device("cpu")):  # initial weights are drawn and thrown away
        model, loss = build_modules(config, spec)
    average = "ema-" if config.train.ema else ""
    for module, part in ((model, config.model), (loss, config.loss)):
        group = average + part.entry.kind.singular
        try:
            module.load_state_dict(weights(saved, group, module))
        except RuntimeError as error:
            raise misfit(run, saved, part, str(error).splitlines()[1:5]) from None
        lay_out(module, config.train)  # as it was trained and measured
        module.to(device)
        module.eval()
        module.requires_grad_(False)
    images = about["images"]["train"]
    # the end of the training, at which its evaluations weigh the loss's terms
    total = saved.state["total_steps"]
    step = Step(total, total, images, math.ceil(images / config.train.batch_size))
    return Loaded(run, model, loss, spec, saved.name, step)


def check_size(run: Run, saved: Checkpoint, config: RunConfig, spec: DataSpec) -> None:
    """RunFailed where the run's settings describe a model that its checkpoint is too small for: who
    wrote these need not be who uses them, and building it could take all memory."""
    try:
        with torch.device("meta"):  # shapes without memory
            built = build_modules(config, spec)
    except Exception:  # a model that cannot be built so is built without a look ahead
        return
    for module, part in zip(built, (config.model, config.loss), strict=True):
        held, wanted = saved.size(part.entry.kind.singular), size_of(module)
        if held < wanted:
            saw = f"run.json describes {wanted} bytes of them, and here are {held}"
            raise misfit(run, saved, part, [saw])


def misfit(run: Run, saved: Checkpoint, part: Component, details: list[str]) -> RunFailed:
    """Weights for another model: its code has changed since, or somebody has changed run.json."""
    kind, plugin = part.entry.kind, part.entry.plugin
    then = [p["version"] for p in run.manifest["plugins"] if p["kind"] == kind.plural]
    versions = f": version {then[0]} then, {plugin.version} now" if then and any(then) else ""
    return RunFailed(
        f"the weights of {saved.path} do not fit {kind.singular} {part.name!r}",
        details=[
            *details,
            f"the code of plugin {plugin.name} may have changed since the run{versions}",
        ],
        remedy="train anew; or the plugin's version, and the run.json, that the run was made with",
    )


def weights(saved: Checkpoint, group: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint holds for a module; RunFailed where that is far more than belongs there."""
    if group not in saved.groups:
        return {}
    return saved.tensors(group, limit=2 * size_of(module) + HEADER)


def load_data(run: Run, config: RunConfig, data: Any) -> DataSplits:
    """The run's images: its dataset loaded again, what it was trained on in Python, or `data`.

    `data` that the run was trained on is cut as it was then. Other data is taken whole: without
    splits of its own, all of it stands for each of the run's.
    """
    if data is None and run.in_memory is not None:
        kept: DataSplits = run.in_memory
        return kept
    about = run.manifest["data"]
    if data is None:
        splits = load_splits(config.dataset, config.data)
    else:
        given = given_splits(data)
        own = config.data
        splits = prepare_whole(
            given,
            IN_MEMORY,
            binarize=own.binarize,
            split_seed=own.split_seed,
            streaming=Streaming(own.stream, own.workers),
        )
        if splits.is_of(about):
            splits = load_splits(None, config.data, data)
        elif list(given) == ["train"]:
            splits = replace(splits, splits=dict.fromkeys(about["images"], splits.split("train")))
    check_fits(run, splits)
    if data is None and not splits.is_of(about):
        log.warning(
            "the dataset %s has changed since %s was trained: figures do not compare",
            config.data_name,
            run.path,
        )
    return splits


def check_fits(run: Run, splits: DataSplits) -> None:
    """UsageError for data of another shape, or of more classes, than the run was trained on."""
    about = run.manifest["data"]
    if list(splits.spec.shape) != about["shape"]:
        raise UsageError(
            f"{run.path} was trained on shape {tuple(about['shape'])}, "
            f"this data has {splits.spec.shape}"
        )
    if len(splits.spec.classes) > len(about["classes"]) > 0:
        raise UsageError(
            f"{run.path} knows {len(about['classes'])} classes, "
            f"this data has {len(splits.spec.classes)}"
        )


@dataclass(frozen=True)
class Opened:
    """A run made ready to be looked at: images and model on one device, the other runs by role."""

    run: Run
    config: RunConfig
    device: torch.device
    splits: DataSplits
    loaded: Loaded
    roles: dict[str, Loaded]


def open_up(
    forge: Forge,
    run: Run,
    config: RunConfig,
    *,
    checkpoint: str,
    roles: Mapping[str, Run],
    device: str,
    data: Any,
) -> Opened:
    place = resolve_device(device)
    splits = on_device(load_data(run, config, data), place)
    loaded = load(run, config, checkpoint, place)
    others = {
        role: load(other, forge.config_of(other), "last", place) for role, other in roles.items()
    }
    return Opened(run, config, place, splits, loaded, others)


def evaluate(opened: Opened, split: str, measures: Sequence[Component]) -> dict[str, Any]:
    """The figures of `measures` on a split, also kept in the run's evaluations.jsonl."""
    run, splits = opened.run, opened.splits
    images = len(splits.split(split))
    for measure in measures:
        if measure.entry.spec.labels and not splits.spec.classes:
            raise UsageError(
                f"measure {measure.name!r} needs labels; the data has none",
                remedy="data=(x, y), or other measures",
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
        "fingerprint": splits.fingerprint,  # of the data, which may be other than the run's
    }
    try:
        append_json_line(run.path / "evaluations.jsonl", {"at": now(), **result})
    except RunFailed as error:  # a read-only run can still be measured
        log.warning("the figures are not kept: %s", error.message)
    return result


def measured(
    opened: Opened, split: str, measures: Sequence[Component]
) -> tuple[dict[str, float], dict[str, str]]:
    """The figures of a split, and the protocol of each."""
    loss, labelled = opened.config.loss, opened.splits.spec.classes
    if loss.entry.spec.labels and not labelled and "loss" in {m.name for m in measures}:
        raise UsageError(
            f"loss {loss.name!r} needs labels; the data has none", remedy="data=(x, y)"
        )
    evaluator = Evaluator(
        opened.loaded.model,
        opened.loaded.loss,
        opened.splits,
        measures,
        seed=opened.config.train.seed,
        device=opened.device,
        roles=opened.roles,
    )
    with callers_state_kept(opened.device), using_threads(opened.config.train.threads):
        return evaluator.run(split, opened.loaded.step), evaluator.protocol


def diagnose(opened: Opened, split: str, loss: Component) -> list[Finding]:
    """What looks wrong with a run, on its training images and on those of `split`; `loss` is the
    measure of that name."""
    loaded, provides = opened.loaded, opened.config.model.entry.spec.provides
    train, held = opened.splits.split("train"), opened.splits.split(split)
    found = [
        *doctor.value_range(train, getattr(loaded.loss, "likelihood", None), kl="kl" in provides),
        *doctor.constant_pixels(train),
    ]
    if "encode" in provides:
        with torch.no_grad():
            codes = doctor.look_at_codes(loaded.model, held, kl="kl" in provides)
        found += [
            *doctor.dead_latents(codes, f"the {split} images"),
            *doctor.exploding_log_var(codes),
        ]
    of_train = measured(opened, "train", [loss])[0]["loss"]
    of_held = measured(opened, split, [loss])[0]["loss"]
    epochs = [line[split]["loss"] for line in opened.run.history() if split in line]
    curve = [*epochs[:-1], of_held] if split == "validation" else [of_held]
    found += doctor.overfitting(of_train, curve, "the training images", f"the {split} images")
    recorded = opened.run.metrics.get("train", {}).get("loss")
    if recorded is not None and not opened.config.train.ema and not still_moving(opened):
        found += doctor.running_average(recorded, of_train, of_held, split)
    return found


def still_moving(opened: Opened) -> bool:
    """Whether the loss's schedule moved in the last epoch, so that its figures do not compare."""
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
