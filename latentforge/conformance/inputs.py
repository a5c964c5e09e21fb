"""What `plugins check` is given besides the plugins: options, data, a shape and runs. They are
checked before torch loads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from latentforge.config.capabilities import describe_missing
from latentforge.config.request import separate_assignments, set_nested, toml_value
from latentforge.config.resolve import check_options, raise_faults, resolve_dataset
from latentforge.config.schema import DataConfig
from latentforge.config.validation import Faults
from latentforge.errors import UsageError, did_you_mean
from latentforge.plugins.registry import Entry, Registry
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.runs.folder import open_folder
from latentforge.specs import KINDS

Options = dict[tuple[str, str], dict[str, Any]]  # by kind ("models") and reference


@dataclass(frozen=True)
class Inputs:
    """`options` are those of components, `data` is a dataset's name with `data_options`, `shape` is
    that of one example, and `roles` are runs by role."""

    options: Options = field(default_factory=dict)
    data: str | None = None
    data_options: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    roles: Mapping[str, Any] = field(default_factory=dict)


def read_inputs(
    registry: Registry,
    entries: Sequence[Entry],
    assignments: Sequence[str] = (),
    *,
    data: str | None = None,
    shape: str | None = None,
    roles: Mapping[str, Any] | None = None,
) -> Inputs:
    """Return the inputs for the checks of `entries`. Raises UsageError if one of them fits none of
    these components, and ConfigError with every invalid option."""
    if data is not None and shape is not None:
        message = "--data and --shape are two kinds of data"
        raise UsageError(message, hint="give only one of them; the data has its own shape")
    data_texts, others = separate_assignments(assignments, "data")
    if data is None and data_texts:
        raise UsageError(
            f"--set {data_texts[0]}: is an option of the dataset of --data, which is not given",
            hint="--data NAME, or --set dataset.KEY=VALUE for the datasets that are checked",
        )
    data_options: dict[str, Any] = {}
    for text in data_texts:
        key, _, value = text.removeprefix("data.").partition("=")
        data_options[key.strip()] = toml_value(value)
    if data is not None:
        resolve_dataset(registry, data, data_options)
    options = read_options(registry, entries, others)
    check_runs(registry, entries, roles or {})
    return Inputs(options, data, data_options, read_shape(shape), dict(roles or {}))


def read_shape(text: str | None) -> tuple[int, ...] | None:
    """Parse the shape of one example: `1,28,28` of an image, `2,50` of a signal, `12` of a
    vector."""
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) > 3 or not all(re.fullmatch(r" *[1-9][0-9]* *", n) for n in numbers):
        raise UsageError(
            f"--shape {text}: is not the shape of one example",
            hint="--shape 1,28,28 for images of 28x28 pixels with one channel, --shape 2,50 for "
            "signals of 50 values with two channels, --shape 12 for 12 numbers",
        )
    return tuple(map(int, numbers))


def read_options(registry: Registry, entries: Sequence[Entry], texts: Sequence[str]) -> Options:
    """Return the options of components from `COMPONENT.KEY=VALUE`. COMPONENT is the name of a
    component, or a kind such as `model`, which means every checked component of this kind that has
    the option. The default losses of checked models may be set too."""
    losses = {entry.spec.default_loss for entry in entries if entry.kind.plural == "models"}
    usual = [entry for entry in registry.entries("losses") if entry.name in losses]
    known = [*entries, *(entry for entry in usual if entry not in entries)]
    faults, options = Faults(), Options()
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or "." not in key.strip("."):
            faults.lines.append(
                f"--set {text}: write COMPONENT.KEY=VALUE, as in model.latent_dim=2"
            )
            continue
        named, path = find_owners(known, key)
        owners = [entry for entry in named if path[0] in option_names(entry)]
        if not owners:
            fault = describe_unknown_option(known, named, key, path[0])
            faults.lines.append(f"--set {text}: {fault}")
        elif len(owners) > 1 and owners[0].kind.singular != key.partition(".")[0]:
            forms = [f"{entry.kind.singular}.{'.'.join(path)}" for entry in owners]
            faults.lines.append(
                f"--set {text}: has {len(owners)} meanings; write {' or '.join(forms)}"
            )
        for entry in owners:
            values = options.setdefault((entry.kind.plural, entry.reference), {})
            if not set_nested(values, path, toml_value(value)):
                faults.lines.append(f"--set {text}: {'.'.join(path[:-1])} is not a table")
    raise_faults(faults)
    for kind, name in options:
        if kind == "datasets":
            resolve_dataset(registry, name, options[kind, name])
        else:
            config = registry.get(kind, name).spec.config
            check_options(config, options[kind, name], KINDS[kind].singular)
    return options


def find_owners(entries: Sequence[Entry], key: str) -> tuple[list[Entry], list[str]]:
    """Return the components that the first part of a key means, and the rest of the key as a path.
    They need not have the option."""
    kind, _, rest = key.partition(".")
    if named := [entry for entry in entries if entry.kind.singular == kind]:
        return named, rest.split(".")
    names = [name for entry in entries for name in (entry.name, entry.qualified)]
    name = max((name for name in names if key.startswith(f"{name}.")), key=len, default="")
    named = [entry for entry in entries if name in (entry.name, entry.qualified)]
    return named, key.removeprefix(f"{name}.").split(".")


def describe_unknown_option(
    entries: Sequence[Entry], named: Sequence[Entry], key: str, option: str
) -> str:
    """Describe why no component has the option of a key. `named` are those that its first part
    means."""
    if not named:
        owner = key.partition(".")[0]
        names = list(dict.fromkeys(entry.name for entry in entries))
        kinds = list(dict.fromkeys(entry.kind.singular for entry in entries))
        hint = did_you_mean(owner, [*names, *kinds]) or f"they are {', '.join(names)}"
        return f"no component {owner!r} is checked; {hint}"
    options = list(dict.fromkeys(name for entry in named for name in option_names(entry)))
    titles = " or ".join(f"{entry.kind.singular} {entry.name!r}" for entry in named)
    hint = did_you_mean(option, options) or f"options: {', '.join(options) or 'none'}"
    return f"no such option of {titles}; {hint}"


def option_names(entry: Entry) -> list[str]:
    """The names of a component's options; those of a dataset include the core's."""
    core = fields(DataConfig) if entry.kind.plural == "datasets" else ()
    return [f.name for f in (*fields(entry.spec.config), *core)]


def check_runs(registry: Registry, entries: Sequence[Entry], roles: Mapping[str, Any]) -> None:
    """Raise UsageError if no component has a role, or if a run does not fit its role."""
    needs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        optional = getattr(entry.spec, "optional_roles", None) or {}
        for role, needed in {**(getattr(entry.spec, "roles", None) or {}), **optional}.items():
            needs.setdefault(role, {})[f"{entry.kind.singular} {entry.name!r}"] = needed
    for role, run in roles.items():
        if role not in needs:
            message = f"no checked component has a role {role!r}"
            hint = did_you_mean(role, needs) or f"roles: {', '.join(sorted(needs)) or 'none'}"
            raise UsageError(message, hint=hint)
        model = resolve_stored_config(registry, open_folder(run)).model.entry
        for title, needed in needs[role].items():
            if message := describe_missing(f"role {role!r} of {title}", needed, model.spec):
                raise UsageError(message, hint=f"--with {role}=RUN of another model")
