"""The capabilities that the core knows, and models that are restricted to some of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import Any

from latentforge.config.selection import merge_roles
from latentforge.conformance.subject import CheckFailed, Subject
from latentforge.contracts import LatentSpec
from latentforge.plugins.registry import Entry
from latentforge.specs import Role, with_implied

MODEL_ATTRIBUTES = {
    "encode": ("encode",),
    "decode": ("decode",),
    "decode_logits": ("decode_logits",),
    "conditional": ("given",),
    "layers": ("layers",),
    "codebook": ("codebook",),
    "classify": ("forward", "__call__"),
}
POSTERIOR_ATTRIBUTES = {
    "kl": ("kl",),
    "log_prob": ("log_prob",),
    "log_ratio_terms": ("log_ratio_terms",),
    "codebook": ("entry",),
    "commitment": ("commitment",),
    "diagonal_gaussian": ("mean", "log_var"),
}
CORE_CAPABILITIES = {*MODEL_ATTRIBUTES, *POSTERIOR_ATTRIBUTES, "prior", "variational", "generate"}


def needs_of(subject: Subject) -> Set[str]:
    """The capabilities that a component needs of the model. They may depend on its options."""
    needs: Any = getattr(subject.entry.spec, "needs", frozenset())
    found: Set[str] = needs(subject.config) if callable(needs) else needs
    return found


def with_generator(needs: Set[str]) -> Set[str]:
    """Return the capabilities with which a component is tried. One that needs `generate` must work
    with a decoder and a prior, and without an encoder."""
    return needs | {"decode", "prior"} if "generate" in needs else needs


def roles_of(subject: Subject) -> dict[str, Role]:
    """The required roles, including those of the default objective of an explorer that searches."""
    return merge_roles(role_owners(subject), optional=False)


def accepted_roles(subject: Subject) -> dict[str, Role]:
    """The required and the optional roles."""
    return merge_roles(role_owners(subject))


def role_owners(subject: Subject) -> list[Entry]:
    """The components whose roles a component has, if it has any."""
    spec = subject.entry.spec
    entries = [subject.entry] if hasattr(spec, "roles") else []
    if objective := getattr(spec, "searches", None):
        entries.append(subject.forge.registry.get("objectives", objective))
    return entries


@contextmanager
def restrict_to_needs(
    *models: tuple[Any, Set[str], Set[str]], field: str, exempt: tuple[type, ...] = ()
) -> Iterator[None]:
    """Hide all model capabilities that the spec does not declare in `field`, and raise CheckFailed
    if the code inside fails because it uses a hidden one. `models` are tuples (model, provides,
    needs). Nothing is hidden from objects of the types in `exempt`, such as the likelihood that a
    run was trained with."""
    used: list[str] = []
    for model, provides, needs in models:
        implied = with_implied(needs)
        hide_capabilities(model, provides - implied, used, exempt, "variational" in implied)
    try:
        yield
    except Exception as error:
        if not used:
            raise
        saw = f"it uses {used[-1]}, which is not in `{field}`"
        raise CheckFailed(saw, f"add {used[-1]!r} to `{field}`") from error


def hide_capabilities(
    model: Any,
    hidden: Set[str],
    used: list[str],
    exempt: tuple[type, ...],
    variational: bool = False,
) -> None:
    """Hide capabilities of a model and its posteriors from all code except their own. `used`
    collects the hidden capabilities that other code uses. Copies lack the capabilities too, because
    the class is replaced. With `variational`, the functions of `latentforge.latent` for the KL can
    use them."""
    functions = _kl_functions() if variational else ()

    def encode(self: Any, *arguments: Any) -> Any:  # x, and labels of a conditional model
        posterior = super(limited, self).encode(*arguments)
        with suppress(TypeError):  # an object with slots cannot change its class
            attributes, cls = POSTERIOR_ATTRIBUTES, type(posterior)
            cls = restrict_class(cls, attributes, hidden, used, exempt, functions, self)
            object.__setattr__(posterior, "__class__", cls)  # a dataclass may be frozen
        return posterior

    limited = restrict_class(type(model), MODEL_ATTRIBUTES, hidden, used, exempt, functions)
    if "encode" not in hidden and hasattr(model, "encode"):
        limited.encode = encode
    model.__class__ = limited
    if "prior" in hidden and isinstance(latent := getattr(model, "latent", None), LatentSpec):
        hidden_prior = _without_prior(latent, model, used, (exempt, functions))
        limited.latent = property(lambda _: hidden_prior)  # `latent` may be a property itself


def restrict_class(
    cls: type,
    names: Mapping[str, Sequence[str]],
    hidden: Set[str],
    used: list[str],
    exempt: tuple[type, ...],
    functions: Sequence[CodeType],
    *objects: Any,
) -> Any:
    """Return a subclass of `cls` without the attributes of the `hidden` capabilities. Only methods
    of the object itself, of `objects`, and of the types in `exempt`, and the `functions` can still
    use them."""
    limited: Any = type(cls.__name__, (cls,), {"__module__": cls.__module__})

    def hidden_attribute(name: str, capability: str) -> property:
        def get(self: Any) -> Any:
            if not is_called_by((self, *objects), exempt, functions):
                used.append(capability)
                raise AttributeError(f"{name} is not among its needs")
            return vars(self)[name] if name in vars(self) else getattr(super(limited, self), name)

        return property(get)

    for capability in sorted(hidden & set(names)):
        for name in names[capability]:
            setattr(limited, name, hidden_attribute(name, capability))
    return limited


def _kl_functions() -> tuple[CodeType, ...]:
    """The functions through which a component that needs `variational` uses the KL."""
    from latentforge.latent import closed_form_kl, kl_estimate, kl_values

    return closed_form_kl.__code__, kl_estimate.__code__, kl_values.__code__


def _without_prior(
    latent: LatentSpec,
    model: Any,
    used: list[str],
    allowed: tuple[tuple[type, ...], Sequence[CodeType]],
) -> LatentSpec:
    """Return the spec of codes without a prior, except for methods of the model and `allowed`
    callers. A component may read that there is none, so the access alone is no fault."""
    own = latent.prior

    def prior(_: Any) -> Any:
        if is_called_by((model,), *allowed):
            return own
        used.append("prior")
        return None

    limited: Any = type("LatentSpec", (LatentSpec,), {"prior": property(prior)})
    hidden: LatentSpec = object.__new__(limited)
    object.__setattr__(hidden, "shape", latent.shape)
    object.__setattr__(hidden, "groups", latent.groups)
    return hidden


def is_called_by(
    owners: tuple[Any, ...], types: tuple[type, ...], functions: Sequence[CodeType]
) -> bool:
    """Whether a method of one of these objects, or of an object of these types, or one of the
    functions, is on the stack."""
    frame: FrameType | None = sys._getframe(2)
    while frame:
        if frame.f_code in functions:
            return True
        caller = frame.f_locals.get("self")
        if isinstance(caller, types) or any(caller is owner for owner in owners):
            return True
        frame = frame.f_back
    return False
