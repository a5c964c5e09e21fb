"""Suggests where an option of a request belongs: its section, and the component that has it.

Must not import torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, fields
from typing import Any

from latentforge.config.capabilities import describe_missing, find_option
from latentforge.config.schema import Component, DataConfig, TrainConfig
from latentforge.config.validation import describe, vary_options
from latentforge.errors import UsageError
from latentforge.io.paths import quoted
from latentforge.plugins.registry import Registry
from latentforge.specs import LossSpec

EXAMPLE = "as in train.epochs=20"
MAX_LOSSES = 3  # maximum number of losses that a hint names


def describe_unplaced(text: str, registry: Registry, names: Sequence[str]) -> str:
    """Return the fault of an assignment without a section, with the sections that have its key.
    `names` are the selected components."""
    key, _, value = text.partition("=")
    hint = suggest_options(registry, key.strip(), value.strip(), names)
    return f"--set {text}: write section.key=VALUE, {hint or EXAMPLE}"


def suggest_options(registry: Registry, name: str, value: str, words: Sequence[str]) -> str:
    """Return the options of the command line that set an option with this name, or an empty string
    if nothing has it. See `find_places`."""
    suggestions = []
    for section, component, config in find_places(registry, name, words):
        text = as_list(config, name, value)
        flag = f"--{section} {component} " if component else ""
        suggestions.append(f"{flag}--set {quoted(f'{section}.{name}={text}')}")
    return " or ".join(suggestions)


def find_places(registry: Registry, name: str, words: Sequence[str]) -> list[tuple[str, str, Any]]:
    """Return the section, "" and the config class of each option with this name: of [train], [data]
    and the components that `words` name or, if they name none, of any component of the kind. The
    loss is the default of the model. If there is none, return ("loss", name, config) of the losses
    that have the option and suit the model."""
    cores = {"train": TrainConfig, "data": DataConfig}
    places = [(section, "", config) for section, config in cores.items() if has_field(config, name)]
    models = [entry.spec for entry in registry.entries("models") if entry.name in words]
    usual = [model.default_loss for model in models]
    for section, kind in (("model", "models"), ("loss", "losses"), ("data", "datasets")):
        entries = registry.entries(kind)
        named = [entry for entry in entries if entry.name in words]
        if kind == "losses" and not named:
            named = [entry for entry in entries if entry.name in usual]
        configs = [entry.spec.config for entry in named or entries]
        places += [(section, "", config) for config in configs if has_field(config, name)][:1]
    samplers = [model.inference for model in models if model.inference is not None]
    places += [("sampler", "", config) for config in samplers if has_field(config, name)]
    losses = [
        ("loss", entry.name, entry.spec.config)
        for entry in registry.entries("losses")
        if has_field(entry.spec.config, name)
        and not any(describe_missing("", default_needs(entry.spec), model) for model in models)
    ]
    return places or losses[:MAX_LOSSES]


def has_field(config: Any, name: str) -> bool:
    return name in {f.name for f in fields(config)}


def is_list(config: Any, name: str) -> bool:
    """Whether an option is a list, by its annotation."""
    return any(o.name == name and o.type.startswith(("list", "[")) for o in describe(config))


def as_list(config: Any, name: str, value: str) -> str:
    """Return the value of an option as it is written with --set: that of a list in brackets."""
    return f"[{value}]" if is_list(config, name) and not value.startswith("[") else value


def default_needs(loss: LossSpec) -> AbstractSet[str]:
    """Return the capabilities that a loss needs with its default options. If it has an option
    without a default, they are unknown, and the set is empty."""
    if not callable(loss.needs):
        return loss.needs
    required = any(f.default is f.default_factory is MISSING for f in fields(loss.config))
    return frozenset() if required else loss.needs(loss.config())


def suggest_model_option(
    model: Component, needs: Collection[str], registry: Registry
) -> Iterator[str]:
    """Yield the option with which the model provides the `needs`, if there is one."""
    entry = registry.get("models", model.entry.reference)  # its capabilities are a function again
    if model.options and (option := find_option(entry, needs, model.options)):
        yield f"--set {quoted(f'model.{option}')}"


def suggest_loss_option(model: Component, loss: Component) -> Iterator[str]:
    """Yield the option with which the loss needs only what the model provides, if there is one."""
    spec, provided = loss.entry.spec, model.entry.provides
    for name, value, changed in vary_options(loss.options) if callable(spec.needs) else ():
        if spec.needs(changed) <= provided:
            yield f"--set {quoted(f'loss.{name}={value}')}"
            return


def check_keywords(registry: Registry, name: str | None, keywords: Mapping[str, Any]) -> None:
    """Raise UsageError for keywords that `Forge.train` does not have, with where they belong."""
    sections: dict[str, dict[str, Any]] = {}
    for keyword, value in keywords.items():
        for section, component, config in find_places(registry, keyword, [name or ""])[:1]:
            options = sections.setdefault(section, {"name": component} if component else {})
            single = is_list(config, keyword) and not isinstance(value, Sequence)
            options[keyword] = [value] if single else value
    if keywords:
        hint = ", ".join(f"{section}={options!r}" for section, options in sections.items())
        if "resume" in keywords:
            run = keywords["resume"]
            hint = f"forge.resume({str(getattr(run, 'path', run))!r})"
        raise UsageError(f"train has no keyword {', '.join(keywords)}", hint=hint)
