"""A plugin made of specs, for tests that are not about hooks."""

from __future__ import annotations

from latentforge import hookimpl
from latentforge.specs import KINDS, Kind, Spec


def plugin_of(*specs: Spec) -> object:
    """A plugin object, called Plugin, that offers these specs."""

    def hook(kind: Kind):
        return hookimpl(lambda self: [spec for spec in specs if isinstance(spec, kind.spec)])

    return type("Plugin", (), {kind.hook: hook(kind) for kind in KINDS.values()})()
