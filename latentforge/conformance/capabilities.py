"""The capabilities that the core knows, and models that are restricted to some of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from latentforge.conformance.subject import CheckFailed, Subject

OF_MODELS = {
    "encode": ("encode",),
    "decode": ("decode",),
    "decode_logits": ("decode_logits",),
    "layers": ("layers",),
    "classify": ("forward", "__call__"),
}
OF_POSTERIORS = {
    "kl": ("kl",),
    "log_prob": ("log_prob",),
    "diagonal_gaussian": ("mean", "log_var"),
}
CORE = {*OF_MODELS, *OF_POSTERIORS}


def needs_of(subject: Subject) -> Set[str]:
    """The capabilities that a component needs of the model. They may depend on its options."""
    needs: Any = getattr(subject.entry.spec, "needs", frozenset())
    found: Set[str] = needs(subject.config) if callable(needs) else needs
    return found


def roles_of(subject: Subject) -> dict[str, Set[str]]:
    """The capabilities needed in each required role, including the roles of the objective that a
    component searches for by default."""
    spec = subject.entry.spec
    roles: dict[str, Set[str]] = dict(getattr(spec, "roles", None) or {})
    if objective := getattr(spec, "searches", None):
        roles |= subject.forge.registry.get("objectives", objective).spec.roles or {}
    return roles


@contextmanager
def only_what_is_needed(
    *models: tuple[Any, Set[str], Set[str]], named: str, beside: tuple[type, ...] = ()
) -> Iterator[None]:
    """Raise CheckFailed if the code inside fails because a model lacks a capability that it was not
    declared to need. Of `models`, each (model, provides, needs), only the needs are visible, which
    the spec declares in the field `named`. Objects of the types in `beside`, such as the likelihood
    that a run was trained with, see everything."""
    asked: list[str] = []
    for model, provides, needs in models:
        hide(model, provides - needs, asked, beside)
    try:
        yield
    except Exception as error:
        if not asked:
            raise
        saw = f"it uses {asked[-1]}, which is not in `{named}`"
        raise CheckFailed(saw, f"add {asked[-1]!r} to `{named}`") from error


def hide(model: Any, abilities: Set[str], asked: list[str], beside: tuple[type, ...]) -> None:
    """Hide capabilities of a model and its posteriors from all code but their own. `asked` collects
    those that are used. Copies lack the capabilities too, because the class is replaced."""

    def encode(self: Any, x: Any) -> Any:
        posterior = super(limited, self).encode(x)
        with suppress(TypeError):  # an object with slots cannot change its class
            cls = without(type(posterior), OF_POSTERIORS, abilities, asked, beside, self)
            object.__setattr__(posterior, "__class__", cls)  # a dataclass may be frozen
        return posterior

    limited = without(type(model), OF_MODELS, abilities, asked, beside)
    if "encode" not in abilities and hasattr(model, "encode"):
        limited.encode = encode
    model.__class__ = limited


def without(
    cls: type,
    names: Mapping[str, Sequence[str]],
    abilities: Set[str],
    asked: list[str],
    beside: tuple[type, ...],
    *own: Any,
) -> Any:
    """A subclass of `cls` whose objects lack the attributes of these capabilities, except in their
    methods, in those of the objects `own`, and in those of objects of the types `beside`."""
    limited: Any = type(cls.__name__, (cls,), {"__module__": cls.__module__})

    def lacking(name: str, ability: str) -> property:
        def get(self: Any) -> Any:
            if not called_by((self, *own), beside):
                asked.append(ability)
                raise AttributeError(f"{name} is not among its needs")
            return vars(self)[name] if name in vars(self) else getattr(super(limited, self), name)

        return property(get)

    for ability in sorted(abilities & set(names)):
        for name in names[ability]:
            setattr(limited, name, lacking(name, ability))
    return limited


def called_by(owners: tuple[Any, ...], types: tuple[type, ...]) -> bool:
    """Whether a method of one of these objects, or of an object of these types, is on the stack."""
    frame: FrameType | None = sys._getframe(2)
    while frame:
        found = frame.f_locals.get("self")
        if isinstance(found, types) or any(found is owner for owner in owners):
            return True
        frame = frame.f_back
    return False
