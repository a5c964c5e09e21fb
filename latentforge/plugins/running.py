"""The plugins of the Forge, run or command line that is running.

`open_run` inside a component finds these plugins, and not only the installed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from latentforge.plugins.registry import Registry

T = TypeVar("T", bound=type)

_running: ContextVar[Callable[[], Registry] | None] = ContextVar("running", default=None)


@contextmanager
def running(registry: Callable[[], Registry]) -> Iterator[None]:
    """Make the plugins of `registry()`, called on demand, the running ones in the block."""
    token = _running.set(registry)
    try:
        yield
    finally:
        _running.reset(token)


def runs_plugins(cls: T) -> T:
    """Make the plugins of `self.registry` the running ones in all public methods of a class."""
    for name, function in list(vars(cls).items()):
        if isinstance(function, FunctionType) and name[0] != "_":
            setattr(cls, name, _running_method(function))
    return cls


def _running_method(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with running(lambda: self.registry):
            return function(self, *args, **kwargs)

    return method


def running_registry(plugins: Sequence[Any] = ()) -> Registry:
    """Return the registry of the running plugins or, if none run, of the installed ones, with
    `plugins` in addition."""
    from latentforge.plugins.discovery import from_environment
    from latentforge.plugins.loading import load_plugins

    current = _running.get()
    if current is None:
        return load_plugins(plugins, (), from_environment())
    registry = current()
    if not plugins:
        return registry
    used = registry.selection
    return load_plugins((*used.plugins, *plugins), used.off, from_environment(), used.discover)
