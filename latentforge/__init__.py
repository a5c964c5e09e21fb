"""The public names of LatentForge. Each one is imported on first access."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentforge._version import __version__

if TYPE_CHECKING:
    from latentforge.contracts import Arrays as Arrays
    from latentforge.contracts import DataSpec as DataSpec
    from latentforge.contracts import Factor as Factor
    from latentforge.contracts import LatentSpec as LatentSpec
    from latentforge.engine.latent_search import search as search
    from latentforge.forge import Forge as Forge
    from latentforge.forge import open_run as open_run
    from latentforge.hookspecs import hookimpl as hookimpl
    from latentforge.options import Count as Count
    from latentforge.options import FactorName as FactorName
    from latentforge.options import Fraction as Fraction
    from latentforge.options import NonNegative as NonNegative
    from latentforge.options import Positive as Positive
    from latentforge.options import Seed as Seed
    from latentforge.options import Size as Size
    from latentforge.specs import CallbackSpec as CallbackSpec
    from latentforge.specs import DatasetSpec as DatasetSpec
    from latentforge.specs import ExplorerSpec as ExplorerSpec
    from latentforge.specs import LossSpec as LossSpec
    from latentforge.specs import MeasureSpec as MeasureSpec
    from latentforge.specs import ModelSpec as ModelSpec
    from latentforge.specs import ObjectiveSpec as ObjectiveSpec
    from latentforge.specs import PresetSpec as PresetSpec
    from latentforge.specs import Role as Role
    from latentforge.workflows.run import Run as Run

_MODULES = {
    "latentforge.contracts": ("Arrays", "DataSpec", "Factor", "LatentSpec"),
    "latentforge.engine.latent_search": ("search",),
    "latentforge.forge": ("Forge", "open_run"),
    "latentforge.hookspecs": ("hookimpl",),
    "latentforge.options": (
        *("Count", "FactorName", "Fraction", "NonNegative", "Positive", "Seed", "Size"),
    ),
    "latentforge.workflows.run": ("Run",),
    "latentforge.specs": (
        "CallbackSpec",
        "DatasetSpec",
        "ExplorerSpec",
        "LossSpec",
        "MeasureSpec",
        "ModelSpec",
        "ObjectiveSpec",
        "PresetSpec",
        "Role",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'latentforge' has no attribute {name!r}")
    if name in ("Forge", "open_run"):  # the Python API is used
        import_module("latentforge.runtime.warning_log").use_warnings()
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # the next access does not call this function
    return value


def __dir__() -> list[str]:
    return __all__
