"""Components and tiny runs for the checks: builds models and losses with their roles, finds a model
and data for another component, and trains in a second."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from latentforge.config.condition import CONDITIONAL, check_labels
from latentforge.config.data_range import check_range
from latentforge.config.resolve import check_options
from latentforge.config.schema import Component
from latentforge.conformance.assertions import (
    find_refusal,
    require_shape_support,
    seed_torch,
)
from latentforge.conformance.capabilities import (
    accepted_roles,
    restrict_to_needs,
    roles_of,
    with_generator,
)
from latentforge.conformance.examples import (
    DEFAULT,
    GIVE_DATA,
    LARGER,
    SHAPES,
    TINY,
    Examples,
    candidates,
    given_examples,
    given_run,
    images,
)
from latentforge.conformance.labels import fill_labels
from latentforge.conformance.samplers import set_sampler
from latentforge.conformance.subject import NotChecked, Subject, require
from latentforge.contracts import DataSpec
from latentforge.engine.build import INITIALIZE, describe_lazy_layers
from latentforge.errors import UsageError
from latentforge.plugins.registry import Entry
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.runs.folder import RunFolder
from latentforge.seeding import callers_state_kept
from latentforge.specs import Role, as_role, with_implied

if TYPE_CHECKING:
    from latentforge.workflows.load import LoadedRun
    from latentforge.workflows.roles import LoadedRole

PREFERRED = ("ae", "vae", "mlp-classifier", "cnn-classifier")  # the cheapest models
TRAIN = {"epochs": 2, "batch_size": 16, "lr": 3e-3, "log_every": 1, "threads": 1, "device": "cpu"}


class Host(NamedTuple):
    """A model that another component is checked with, and data that both support."""

    entry: Entry
    examples: Examples


def run_folder_for(subject: Subject) -> Path:
    """Return a path for a run or findings in a new empty folder, because a failed check may leave
    files behind. The folder is deleted with the subject."""

    def make() -> str:
        folder = tempfile.mkdtemp(prefix="latentforge-check-")
        weakref.finalize(subject, shutil.rmtree, folder, ignore_errors=True)
        return folder

    return Path(tempfile.mkdtemp(dir=subject.once("scratch", make))) / "run"


def build(subject: Subject, data: DataSpec, seed: int = 0) -> Any:
    """The module that the `build` of a model or a loss returns, in training mode. Raises UsageError
    if its spec excludes the data."""
    require_data_support(subject, subject.entry, data)
    roles = make_roles(subject, subject.entry, data)
    seed_torch(seed, "init")
    with require_shape_support(subject, data):
        module = subject.entry.spec.build(subject.config, data, *roles)
    saw = f"build returned {type(module).__name__}"
    require(isinstance(module, nn.Module), saw, "return an nn.Module")
    fault = describe_lazy_layers(module)
    require(not fault, f"it {fault}", INITIALIZE)
    return fill_labels(set_sampler(module, subject.entry), subject.entry, data)


def build_other(subject: Subject, entry: Entry, data: DataSpec) -> nn.Module:
    """The module that the `build` of another component returns for the options of the checks.
    Raises UsageError if its spec excludes the data."""
    require_data_support(subject, entry, data)
    options = options_for(subject, entry)
    module: nn.Module = entry.spec.build(options, data, *make_roles(subject, entry, data))
    return fill_labels(set_sampler(module, entry), entry, data)


def options_for(subject: Subject, entry: Entry) -> Any:
    """The config of a component with the options of the checks."""
    return check_options(entry.spec.config, subject.options_of(entry), entry.name)


def require_data_support(subject: Subject, entry: Entry, data: DataSpec) -> None:
    """Raise UsageError if the spec of a component excludes the data, as in a run: its range, or
    data without labels for a conditional model."""
    if entry.kind.plural == "models":
        check_labels(entry, data.classes, f"data of shape {data.shape}")
    component = Component(entry, options_for(subject, entry))
    check_range(subject.forge.registry, [component], data.range_name)


def make_roles(subject: Subject, entry: Entry, data: DataSpec) -> tuple[dict[str, Any], ...]:
    """The last argument of the `build` or `load` of a component with roles: the loaded runs."""
    if not entry.spec.roles:
        return ()
    with callers_state_kept(torch.device("cpu")):
        return ({role: loaded_role(subject, entry, role, data) for role in entry.spec.roles},)


def loaded_role(subject: Subject, entry: Entry, name: str, data: DataSpec) -> Any:
    """The run in a role of a component. Raises UsageError if it is a given one whose data has
    another shape than `data`, although the role requires the same."""
    role = as_role(entry.spec.roles[name])

    def load() -> Any:
        from latentforge.workflows.load import open_role

        run = role_run(subject, name, role, examples_of(subject, data))
        config = resolve_stored_config(subject.forge.registry, run)
        return open_role(role, run, config, torch.device("cpu"), 0)

    loaded = subject.once(f"role {name} of {entry.reference} {data}", load)
    if role.same_data and loaded.data.shape != data.shape:
        raise UsageError(f"the run of its role {name} has data of shape {loaded.data.shape}")
    return loaded


def examples_of(subject: Subject, data: DataSpec) -> Examples:
    """The examples of this data: the given ones if it is theirs."""
    given = given_examples(subject)
    return given if given and given.spec == data else Examples(data)


def role_run(subject: Subject, name: str, role: Role, examples: Examples, **data: Any) -> RunFolder:
    """The run that was given for a role, or a tiny run of a model that fits it."""
    if name in subject.roles:
        given: RunFolder = given_run(subject, name)
        return given
    host = run_host(subject, role, examples if role.same_data else DEFAULT)
    return train_tiny(subject, host, **data)


def run_with(subject: Subject, needs: Set[str], **data: Any) -> RunFolder:
    """A run whose model provides `needs`, trained on `images(**data)` of the first examples that a
    model supports."""
    return train_tiny(subject, run_host(subject, needs), **data)


def train_tiny(subject: Subject, host: Host, case: str = "whole", **data: Any) -> RunFolder:
    """A run of the model of a host on `images(host.examples, **data)`. `case` names this data."""
    registry = subject.forge.registry
    # a check of measures removes the factors
    reads_factors = subject.kind == "measures" or getattr(subject.entry.spec, "factors", False)
    data = {"factors": reads_factors, **data}

    def train() -> RunFolder:
        loss = registry.get("losses", host.entry.spec.default_loss)
        loss_options = subject.options_of(loss)
        roles = {
            name: role_run(subject, name, as_role(needs), host.examples)
            for entry in (host.entry, loss)
            for name, needs in (entry.spec.roles or {}).items()
        }
        run: RunFolder = subject.forge.train(
            host.entry.reference,
            data=images(host.examples, **data),
            model=subject.options_of(host.entry),
            loss={"name": loss.reference, **loss_options} if loss_options else None,
            train=TRAIN,
            run=run_folder_for(subject),
            quiet=True,
            roles=roles or None,
        )
        return run

    key = f"run {host.entry.reference} {host.examples} {case} {data['factors']}"
    return subject.once(key, train)


def run_host(subject: Subject, needs: Set[str], examples: Examples | None = None) -> Host:
    """The model and the data of a tiny run for a component or, with given examples, of a run for a
    role, whose model has no roles itself if possible. Tiny images are used if they fit."""

    def refusal_of(entry: Entry, found: Examples) -> str:
        require_data_support(subject, subject.entry, found.spec)
        loss = subject.forge.registry.get("losses", entry.spec.default_loss)
        model = build_other(subject, entry, found.spec)
        make_loss = partial(build_other, subject, loss, found.spec)
        if refusal := find_refusal(make_loss, model, found.batch()):
            return refusal
        reads_likelihood = getattr(subject.entry.spec, "likelihood", False)
        declared = not reads_likelihood or getattr(make_loss(), "likelihood", None) is not None
        return "" if declared else f"its loss {loss.name!r} declares no likelihood"

    def find() -> Host:
        try:
            return find_host(subject, needs, refusal_of, [TINY], examples)
        except NotChecked as error:
            if examples:
                raise
            try:
                return find_host(subject, needs, refusal_of)
            except NotChecked:
                raise error from None

    return subject.once(f"host {sorted(needs)} {examples or ''}", find)


def find_host(
    subject: Subject,
    needs: Set[str],
    refusal_of: Callable[[Entry, Examples], str],
    shapes: Sequence[tuple[int, ...]] = (*SHAPES.values(), LARGER),
    only: Examples | None = None,
) -> Host:
    """The first model that provides `needs`, and the first data that it supports and for which
    `refusal_of` returns no reason. Models of the component's plugin come first, then those that are
    not conditional, then the cheapest ones. Raises NotChecked if there is none. `only` is the only
    data to try, that of a run which then becomes the role of another one; models without roles then
    come first."""

    def order(entry: Entry) -> tuple[bool, bool, bool, int, str]:
        position = PREFERRED.index(entry.name) if entry.name in PREFERRED else len(PREFERRED)
        has_roles = only is not None and bool(entry.spec.roles)
        foreign = entry.plugin is not subject.entry.plugin
        return has_roles, foreign, CONDITIONAL in entry.provides, position, entry.name

    models = (with_options(subject, entry) for entry in subject.forge.registry.entries("models"))
    refusal = ""
    for entry in sorted((model for model in models if needs <= model.provides), key=order):
        for examples in [only] if only else candidates(subject, entry, shapes):
            try:
                build_other(subject, entry, examples.spec)
                reason = refusal_of(entry, examples)
            except UsageError as error:
                reason = error.message
            if not reason:
                return Host(entry, examples)
            refusal = refusal or f"{entry.name} with {examples}: {reason}"
    if refusal:
        raise NotChecked(f"no model and data for its checks fit, such as {refusal}; {GIVE_DATA}")
    raise NotChecked(f"no installed model provides {', '.join(sorted(needs))}")


def with_options(subject: Subject, model: Entry) -> Entry:
    """A model with the capabilities that it has with the options of the checks."""
    return model.with_options(options_for(subject, model))


def run_needs(subject: Subject) -> Set[str]:
    """The capabilities of the model of the tiny run for a component."""
    return with_generator(getattr(subject.entry.spec, "needs", None) or {"encode", "decode"})


def other_runs(subject: Subject, **data: Any) -> dict[str, RunFolder]:
    """The given runs, and a tiny run for each other role that a component requires."""
    required = roles_of(subject)
    accepted = {
        role: needs for role, needs in accepted_roles(subject).items() if role in subject.roles
    }
    if not required and not accepted:
        return {}
    examples = run_host(subject, run_needs(subject)).examples
    return {
        role: role_run(subject, role, needs, examples, **data)
        for role, needs in {**required, **accepted}.items()
    }


def load_tiny_run(subject: Subject) -> LoadedRun:
    """A tiny run and the runs of its roles, loaded in the same way as for an explorer."""
    from latentforge.workflows.load import load_run

    registry = subject.forge.registry
    run = run_with(subject, run_needs(subject))
    config, others = resolve_stored_config(registry, run), other_runs(subject)
    roles = {
        role: (other, resolve_stored_config(registry, other)) for role, other in others.items()
    }
    return load_run(
        run,
        config,
        roles=roles,
        role_specs=accepted_roles(subject),
        checkpoint="last",
        device="cpu",
        data=None,
    )


def models_of(loaded_run: LoadedRun) -> dict[str, nn.Module]:
    """The models of a loaded run and of its roles, by their names in messages."""
    models = {f"the model of role {role}": other.model for role, other in loaded_run.roles.items()}
    return {"the model": loaded_run.loaded.model, **models}


def role_models(
    subject: Subject, loaded: Mapping[str, LoadedRole]
) -> list[tuple[Any, Set[str], Set[str]]]:
    """Return the model, its capabilities and the needed capabilities of each role, and leave only
    the needed ones in `provides` of the loaded run in this role, as some components read it."""
    models: list[tuple[Any, Set[str], Set[str]]] = []
    for role, needs in roles_of(subject).items():
        other = loaded[role]
        config = resolve_stored_config(subject.forge.registry, other.run)
        models.append((other.model, config.model.entry.provides, needs))
        other.provides &= {*with_implied(needs), CONDITIONAL}  # the core gives it a class
    return models


@contextmanager
def restricted_run(subject: Subject) -> Iterator[LoadedRun]:
    """Yield a loaded tiny run whose models have only the capabilities that the component declares.
    Raises CheckFailed if the code inside fails because it uses another one. The config is
    restricted too, as some components read it."""
    loaded_run, needs = load_tiny_run(subject), with_generator(subject.entry.spec.needs)
    entry = loaded_run.config.model.entry
    # the core gives a conditional model labels or a class, or the component does
    provides = needs | (entry.provides & {CONDITIONAL})
    restricted = replace(entry, spec=replace(entry.spec, provides=provides))
    config = replace(loaded_run.config, model=replace(loaded_run.config.model, entry=restricted))
    model, loss = loaded_run.loaded.model, loaded_run.loaded.loss
    exempt = type(loss), type(getattr(loss, "likelihood", loss))
    with (
        restrict_to_needs((model, entry.provides, provides), field="needs", exempt=exempt),
        restrict_to_needs(*role_models(subject, loaded_run.roles), field="roles"),
    ):
        yield replace(loaded_run, config=config)
