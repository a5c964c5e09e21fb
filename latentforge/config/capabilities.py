"""Checks that a model provides the capabilities that a component or an operation needs.

Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from latentforge.config.validation import vary_options
from latentforge.errors import UsageError
from latentforge.plugins.registry import Entry, Registry
from latentforge.specs import ModelSpec


def check_needs(registry: Registry, entry: Entry, model: Entry) -> None:
    """Raise UsageError if the model lacks a capability that the component needs, with the other
    components of the kind that the model fits."""
    others = list_fitting(registry, entry.kind.plural, model.spec)
    fitting = [f"{entry.kind.plural} that fit {model.name}: {others}"] if others else []
    what = f"{entry.kind.singular} {entry.name!r}"
    check_capabilities(registry, what, entry.spec.needs, model, fitting)


def list_fitting(registry: Registry, kind: str, model: ModelSpec) -> str:
    """Return the components of a kind that need only what the model provides, and no other run, as
    `a, b`."""
    entries = registry.entries(kind)
    fitting = [e for e in entries if e.spec.needs <= model.capabilities() and not e.spec.roles]
    return ", ".join(entry.name for entry in fitting)


def check_capabilities(
    registry: Registry,
    what: str,
    needs: Iterable[str],
    model: Entry,
    alternatives: Iterable[str] = (),
) -> None:
    """Raise UsageError if the model lacks one of the capabilities that `what` needs. The hint lists
    the models that provide all of them, the option with which the same model does, and the
    alternatives."""
    needs = set(needs)
    if message := describe_missing(what, needs, model.spec):
        models = suggest_models(registry, needs)
        option = find_option(registry.get("models", model.reference), needs)
        own = f"a run of {model.name} with model.{option}" if option else ""
        hints = [own, f"a run of {models}" if models else "", *alternatives]
        raise UsageError(message, hint="; ".join(filter(None, hints)))


def describe_missing(what: str, needs: Iterable[str], model: ModelSpec) -> str:
    """Return a message that names the capabilities that `what` needs and the model lacks, or an
    empty string if the model provides all."""
    if missing := sorted(set(needs) - model.capabilities()):
        provided = ", ".join(sorted(model.capabilities()))
        return f"{what} needs {', '.join(missing)}; model {model.name!r} provides {provided}"
    return ""


def find_option(model: Entry, needs: Iterable[str], options: Any = None) -> str:
    """Return the option, as `name=value`, with which a model provides all `needs`, or an empty
    string. Its other options are `options`, by default the defaults."""
    if not callable(model.spec.provides):
        return ""
    options = model.spec.config() if options is None else options
    for name, value, changed in vary_options(options):
        if set(needs) <= model.spec.capabilities(changed):
            return f"{name}={value}"
    return ""


def suggest_models(registry: Registry, needs: Iterable[str], without: Iterable[str] = ()) -> str:
    """Return the models that provide all `needs` and nothing of `without`, as `a, b or c`; an empty
    string if none does."""
    models = registry.entries("models")
    provided = {entry.name: entry.provides for entry in models}
    names = [
        name
        for name, provides in provided.items()
        if set(needs) <= provides and provides.isdisjoint(without)
    ]
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
