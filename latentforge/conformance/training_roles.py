"""What models, losses and datasets may do with the runs in their roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from latentforge.conformance.assertions import require_unmodified_models
from latentforge.conformance.capabilities import restrict_to_needs
from latentforge.conformance.fixtures import make_roles, role_models
from latentforge.conformance.subject import CheckSkipped, Subject
from latentforge.contracts import DataSpec


def require_declared_needs(subject: Subject, data: DataSpec, use: Callable[[], Any]) -> None:
    """Raise CheckFailed if `use` fails with runs that have only the needed capabilities."""
    with (
        _new_roles(subject, data) as roles,
        restrict_to_needs(*role_models(subject, roles), field="roles"),
    ):
        use()


def require_unmodified_roles(subject: Subject, data: DataSpec, use: Callable[[], Any]) -> None:
    """Raise CheckFailed if `use` changes the model of a run in a role."""
    with (
        _new_roles(subject, data) as roles,
        require_unmodified_models({f"role {name}": role.model for name, role in roles.items()}),
    ):
        use()


@contextmanager
def _new_roles(subject: Subject, data: DataSpec) -> Iterator[Mapping[str, Any]]:
    """Runs in the roles that the code inside uses, and no other check."""
    if not subject.entry.spec.roles:
        raise CheckSkipped("it has no roles")

    def forget() -> None:
        for key in [key for key in subject.cache if key.startswith("role ")]:
            del subject.cache[key]

    forget()
    try:
        yield make_roles(subject, subject.entry, data)[0]
    finally:
        forget()
