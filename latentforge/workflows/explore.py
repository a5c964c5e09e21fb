"""Runs an explorer on a run and writes its findings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from latentforge.config.condition import CONDITIONAL, check_condition, check_images
from latentforge.config.inference import (
    SAMPLER,
    describe_sampler,
    find_other_options,
    note_other_sampler,
    override_sampler,
    read_preset_sampler,
)
from latentforge.config.request import separate_assignments
from latentforge.config.resolve import resolve_other_data
from latentforge.config.schema import Component, RunConfig, check_device, describe_weights
from latentforge.config.selection import SelectedExplorer, merge_roles, select_explorer
from latentforge.config.validation import plain
from latentforge.contracts import ExploreContext
from latentforge.errors import LatentForgeError, PluginError, RunFailed, UsageError
from latentforge.findings import Findings, ObjectiveFindingsError, checked
from latentforge.io.atomic import is_outside
from latentforge.io.paths import check_free, check_writable, quoted, write_error
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import (
    check_same_images,
    note_own_roles,
    open_roles,
    resolve_stored_config,
)
from latentforge.runs.data_description import read_spec
from latentforge.runs.folder import MANIFEST, RunFolder, open_folder

if TYPE_CHECKING:
    from ignite.engine import Engine
    from torch import nn

    from latentforge.data.images import ImageSplit
    from latentforge.workflows.load import LoadedRun


def explore(
    registry: Registry,
    explorer: str,
    run: RunFolder,
    *,
    checkpoint: str = "last",
    roles: Mapping[str, RunFolder | str | Path] | None = None,
    out: str | Path | None = None,
    assignments: Sequence[str] = (),
    device: str = "auto",
    data: Any = None,
    preset: str | None = None,
    condition: int | None = None,
    sampler: Sequence[str] | Mapping[str, Any] = (),
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Run an explorer and write its findings; see `Forge.explore`."""
    check_device(device)
    folder = Path(out) if out else None
    if folder:
        check_free(folder)
    config = resolve_stored_config(registry, run)
    sampler_options, assignments = separate_assignments(assignments, SAMPLER)
    preset_sampler = read_preset_sampler(registry, preset)
    config = override_sampler(config, preset_sampler, sampler_options, sampler)
    spec = read_spec(run.manifest["data"])
    data_options, assignments = separate_assignments(assignments, "data")
    data = resolve_other_data(registry, config, data, data_options)
    if condition is not None:
        options["condition"] = condition
    selected = select_explorer(
        *(registry, config, spec.classes, explorer, assignments, options, preset),
        factors=spec.factors if data is None else None,
        data_range=spec.range_name,
    )
    others = open_roles(registry, roles, selected.entries, config)
    models = {role: other_config.model.entry for role, (_, other_config) in others.items()}
    role_specs = merge_roles(selected.entries)
    check_condition(
        selected.condition,
        selected.explorer.entry,
        config.model.entry,
        models,
        role_specs,
        spec.classes,
    )
    check_images(selected.condition, selected.explorer.name, selected.explorer.options)
    for role, (other, _) in others.items():
        if role_specs[role].same_data:
            check_same_images(run.manifest["data"], role, other, str(run.path))
    from latentforge.workflows.load import load_run

    loaded = load_run(
        run,
        config,
        checkpoint=checkpoint,
        roles=others,
        device=device,
        data=data,
        role_specs=role_specs,
    )
    return explore_loaded(loaded, selected, out=folder, stream=None if quiet else sys.stderr)


def suggest_explorer(run: RunFolder, registry: Registry) -> str:
    """Return the name of an explorer that explores a run without options and without other runs, or
    an empty string if there is none."""
    config = resolve_stored_config(registry, run)
    first = ["sample"] if "prior" in config.model.entry.provides else []
    usual = [*first, "reconstruct", "activations", "sample"]
    names = dict.fromkeys([*usual, *registry.names("explorers")])
    return next((name for name in names if can_explore(registry, name, run, config)), "")


def can_explore(registry: Registry, explorer: str, run: RunFolder, config: RunConfig) -> bool:
    """Whether an explorer can explore a run without options and without other runs."""
    spec = read_spec(run.manifest["data"])
    data: dict[str, Any] = {"factors": spec.factors, "data_range": spec.range_name}
    try:
        selected = select_explorer(
            registry, config, spec.classes, explorer, (), {}, preset=None, **data
        )
        others = open_roles(registry, None, selected.entries, config)
        models = {role: other.model.entry for role, (_, other) in others.items()}
        roles = merge_roles(selected.entries)
        entry, model = selected.explorer.entry, config.model.entry
        check_condition(selected.condition, entry, model, models, roles, spec.classes)
    except LatentForgeError:
        return False
    return True


def open_explored(explorer: str, run: RunFolder | str | Path) -> RunFolder:
    """Open the run to explore. Raises UsageError if it and the explorer are in the wrong order."""
    if isinstance(run, RunFolder):
        return run
    if (Path(explorer) / MANIFEST).is_file() and not (Path(run) / MANIFEST).is_file():
        raise UsageError(
            f"{explorer} is a run, and it must be the second argument",
            hint=f"latentforge explore {quoted(run)} {quoted(explorer)}",
        )
    return open_folder(run)


def explore_loaded(
    loaded_run: LoadedRun,
    selected: SelectedExplorer,
    *,
    out: Path | None,
    stream: TextIO | None,
) -> dict[str, Any]:
    """Run an explorer and draw its findings. Returns the folder, files, metrics and notes."""
    from latentforge.engine.progress import SearchProgress
    from latentforge.runtime.threads import use_threads
    from latentforge.workflows.export import output_folder

    run, loaded, config = loaded_run.run, loaded_run.loaded, loaded_run.config
    explorer, objective = selected.explorer, selected.objective
    check_finite_weights(loaded.model, loaded.run.path)
    for other in loaded_run.roles.values():
        check_finite_weights(other.model, other.run.path)
    options = plain(explorer.options)
    if objective:
        options |= {"objective": objective.entry.reference, **plain(objective.options)}
    given: dict[str, Any] = {}
    if (condition := selected.condition) is not None:
        options["condition"] = condition
        name = loaded.data.classes[condition]
        given["condition"] = name if name == str(condition) else f"{condition} ({name})"
    if other_options := find_other_options(config):
        given["other_sampler"] = other_options
    about = {
        "explorer": explorer.name,
        "run": str(run.path),
        "roles": {role: str(other.run.path) for role, other in loaded_run.roles.items()},
        "checkpoint": loaded.checkpoint,
        "role_checkpoints": {role: other.checkpoint for role, other in loaded_run.roles.items()},
        "weights": describe_weights(config.train),
        "options": options,
        **describe_sampler(config),
        "plugins": find_unpackaged_plugins(explorer, objective),
        **given,
    }
    if out is None:  # a given folder is checked earlier
        root = run.path / "explore"
        check_writable(root)
        if is_outside(root, run.path):
            raise RunFailed(f"{root} is a link to a place outside the run", hint="--out DIR")
    watch = SearchProgress(stream, explorer.name)
    with use_threads(config.train.threads), closing(watch):
        findings = compute_findings(loaded_run, selected, watch.attach)
    from latentforge.rendering.write import add_notes  # imports matplotlib: half a second

    if "condition" in given:
        note = (
            f"condition {given['condition']}: the model is given this class, and only its images "
            "are used; the number of an image counts these images"
        )
        findings = replace(findings, notes=[note, *findings.notes])
    runs = {role: other.run for role, other in loaded_run.roles.items()}
    notes = [*note_other_sampler(config), *note_own_roles(config, runs), *findings.notes]
    findings = replace(findings, notes=notes)
    findings = add_notes(findings).adapt(loaded_run.splits.spec)
    with output_folder(out, run.path / "explore" / explorer.name) as folder:
        doing = f"drawing the findings of explorer {explorer.name!r}"
        files = explorer.call(doing, draw_findings, findings, folder, about)
        watch.write(folder)
    return {
        "explorer": explorer.name,
        "weights": about["weights"],
        **describe_sampler(config),
        "out": str(folder),
        "files": [str(file) for file in files],
        "metrics": dict(findings.metrics),
        "protocol": findings.protocol,
        "notes": list(findings.notes),
    }


def draw_findings(findings: Findings, folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write the findings and return the files. Raises RunFailed if the disk fails."""
    from latentforge.rendering.write import write_findings

    try:
        return write_findings(findings, folder, about)
    except OSError as error:
        raise write_error(folder, error) from None


def find_unpackaged_plugins(*components: Component | None) -> list[str]:
    """The `-p` values of the components that no installed package provides."""
    plugins = [component.entry.plugin for component in components if component]
    loose = [p for p in plugins if not (p.builtin or p.distribution)]
    values = [p.module for p in loose if p.module.endswith(".py") or p.module == p.name]
    return list(dict.fromkeys(values))  # plugins given as Python objects are left out


def compute_findings(
    loaded_run: LoadedRun, selected: SelectedExplorer, attach: Callable[[Engine], None]
) -> Findings:
    """Run an explorer and return its findings. `attach` adds progress output to a search."""
    import torch

    from latentforge.seeding import callers_state_kept, mix

    explorer, objective, seed = selected.explorer, selected.objective, loaded_run.config.train.seed
    context = create_context(loaded_run, attach, selected.condition)
    with callers_state_kept(loaded_run.device), torch.no_grad():
        if objective:
            torch.manual_seed(mix("objective", seed))
            doing, build = f"objective {objective.name!r}", objective.entry.spec.build
            built = objective.call(doing, build, objective.options, context)
            context = replace(context, objective=built)
        torch.manual_seed(mix("explore", seed))
        doing = f"explorer {explorer.name!r}"
        return explorer.call(doing, run_explorer, explorer, objective, context)


def run_explorer(
    explorer: Component, objective: Component | None, context: ExploreContext
) -> Findings:
    try:
        return checked(explorer.entry.spec.explore(context, explorer.options))
    except ObjectiveFindingsError as error:
        if objective is None:
            raise
        raise PluginError(
            f"objective {objective.name!r} does not fit explorer {explorer.name!r}: {error}",
            details=[f"objective {objective.name!r} of {objective.entry.plugin.title}"],
            hint="begin the names of its findings and metrics with that of the objective",
        ) from error


def create_context(
    loaded_run: LoadedRun,
    attach: Callable[[Engine], None] | None = None,
    condition: int | None = None,
) -> ExploreContext:
    """The context of a loaded run, for an explorer or an objective. With a `condition`, conditional
    models are views under that class, and there are only images of the class."""
    loaded, splits = loaded_run.loaded, loaded_run.splits
    context = ExploreContext(
        model=loaded.model,
        data=splits.spec,
        images=splits.split,
        device=loaded_run.device,
        seed=loaded_run.config.train.seed,
        roles=loaded_run.roles,
        name=loaded_run.run.name,
        loss=loaded.loss,
        provides=loaded_run.config.model.entry.provides,
        preprocessing=splits.preprocessing,
        attach=attach,
    )
    return context if condition is None else condition_context(context, loaded_run, condition)


def condition_context(
    context: ExploreContext, loaded_run: LoadedRun, condition: int
) -> ExploreContext:
    """The context of one class. Encoding an image under the label of another class would be wrong,
    so there are only images of the class: the explorer sees an unconditional model of it."""
    import torch

    from latentforge.latent import GivenClass

    label = torch.tensor(condition, device=context.device)

    @cache
    def images(split: str) -> ImageSplit:
        whole = loaded_run.splits.split(split)
        if not len(index := whole.of_class(condition)):
            name = context.data.classes[condition]
            raise UsageError(f"the split {split!r} has no images of class {condition} ({name})")
        return whole.select(index)

    conditional = CONDITIONAL in context.provides
    return replace(
        context,
        model=GivenClass(context.model, label) if conditional else context.model,
        provides=context.provides - {CONDITIONAL},
        images=images,
        roles={role: other.given_class(label, images) for role, other in loaded_run.roles.items()},
        condition=condition,
    )


def check_finite_weights(model: nn.Module, run: Path) -> None:
    """Raise RunFailed if a weight is NaN or infinite, because every image would be empty."""
    from latentforge.engine.finite import find_nonfinite

    if name := find_nonfinite(model):
        raise RunFailed(
            f"the weights of {run} are not finite: {name} contains NaN or infinity",
            hint=f"--checkpoint best, or `latentforge doctor {quoted(run)}`",
        )
