"""The boundary around all calls into components: it adds the plugin's name to exceptions."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from latentforge.contracts.data import MissingFactorError
from latentforge.errors import (
    LatentForgeError,
    PluginError,
    RunFailed,
    UsageError,
    one_line,
    place_in,
)
from latentforge.plugins.discovery import FILE, module_name
from latentforge.plugins.registry import Entry

T = TypeVar("T")


def code_package(module: str) -> str:
    """Return the module or package with the code of a plugin, given `Plugin.module`."""
    if FILE.search(module):
        return module_name(Path(module).expanduser().absolute())
    name = module.partition(":")[0]
    while name not in sys.modules and "." in name:  # an object passed in Python
        name = name.rpartition(".")[0]
    if hasattr(sys.modules.get(name), "__path__"):
        return name
    return name.rpartition(".")[0] or name  # the other modules of the package belong to the plugin


def requested_memory(message: str) -> str:
    """Return ` asked for 1.5 GiB` if an allocator's message contains the size, else ""."""
    if found := re.search(r"allocate ([\d.]+ ?[KMGT]i?B)", message):  # on CUDA
        return f" asked for {found[1]}"
    if found := re.search(r"allocate (\d+) bytes", message):
        return f" asked for {int(found[1]) / 2**30:.3g} GiB"
    return ""


def call_component(
    action: str,
    components: Sequence[Entry],
    function: Callable[..., T],
    *args: Any,
    save_memory: str = "a smaller model",
    **options: Any,
) -> T:
    """Call a function of a component: the one boundary between LatentForge and plugins.

    An exception of the component becomes a PluginError that names every component involved.
    LatentForge's own errors pass through: a plugin raises them to report to the user. A factor that
    the data does not have becomes a UsageError that names the action. A lack of memory becomes a
    RunFailed with the hint `save_memory`.
    """
    try:
        return function(*args, **options)
    except MissingFactorError as error:
        raise UsageError(f"{action}: {error.message}", hint=error.hint) from error
    except (LatentForgeError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # also SystemExit: a component must not end the process
        raise component_error(error, action, components, save_memory) from error


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python or torch could not allocate memory."""
    names = {kind.__name__ for kind in type(error).__mro__}  # by name, as torch may not be loaded
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        "can't allocate memory" in str(error)
    )


def memory_error(error: BaseException, action: str, hint: str) -> RunFailed:
    message = f"out of memory: {action}" + requested_memory(str(error))
    return RunFailed(message, details=[one_line(error)], hint=hint)


def component_error(
    error: BaseException, action: str, components: Sequence[Entry], save_memory: str
) -> LatentForgeError:
    """Return a PluginError that names the components, or a RunFailed for a lack of memory."""
    if is_lack_of_memory(error):
        return memory_error(error, action, save_memory)
    packaged = [e for e in components if not e.plugin.builtin and e.plugin.distribution]
    return PluginError(
        f"{action} failed: {one_line(error)}",
        details=[
            f"{e.kind.singular} {e.name!r} of {e.plugin.title}"
            + place_in(error, code_package(e.plugin.module))
            for e in components
        ],
        hint=next(
            (f"latentforge plugins check {e.plugin.address} --deep" for e in packaged),
            "LATENTFORGE_DEBUG=1 shows the traceback",
        ),
    )
