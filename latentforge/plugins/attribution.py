"""Names the plugin when one of its functions raises."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentforge.errors import LatentForgeError, PluginError, RunFailed, one_line, place_in
from latentforge.plugins.discovery import FILE, module_name
from latentforge.plugins.registry import Entry


def home_of(module: str) -> str:
    """The module or package that holds the code of a plugin, by what it was loaded from."""
    if FILE.search(module):
        return module_name(Path(module).expanduser().absolute())
    name = module.partition(":")[0]
    while name not in sys.modules and "." in name:  # an object handed over in Python
        name = name.rpartition(".")[0]
    if hasattr(sys.modules.get(name), "__path__"):
        return name
    return name.rpartition(".")[0] or name  # its neighbours in the package are the plugin's too


def asked_for(message: str) -> str:
    """` asked for 1.5 GiB`, where an allocator's message says how much it was."""
    if found := re.search(r"allocate ([\d.]+ ?[KMGT]i?B)", message):  # on CUDA
        return f" asked for {found[1]}"
    if found := re.search(r"allocate (\d+) bytes", message):
        return f" asked for {int(found[1]) / 2**30:.3g} GiB"
    return ""


@contextmanager
def blame(doing: str, *entries: Entry, save_memory: str = "a smaller model") -> Iterator[None]:
    """Turn an exception of a plugin into a PluginError that names every component involved.

    LatentForge's own errors pass: a plugin raises those to inform the user. Running out of memory
    is no plugin's fault: RunFailed, and `save_memory` says what would need less.
    """
    try:
        yield
    except (LatentForgeError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit too: a component that ends the process is a fault
        names = {kind.__name__ for kind in type(error).__mro__}  # torch's own without torch
        if names & {"MemoryError", "OutOfMemoryError"} or "can't allocate memory" in str(error):
            raise RunFailed(
                f"out of memory: {doing}" + asked_for(str(error)),
                details=[one_line(error)],
                remedy=save_memory,
            ) from error
        external = [e for e in entries if not e.plugin.builtin and e.plugin.distribution]
        raise PluginError(
            f"{doing} failed: {one_line(error)}",
            details=[
                f"{e.kind.singular} {e.name!r} of {e.plugin.title}"
                + place_in(error, home_of(e.plugin.module))
                for e in entries
            ],
            remedy=next(
                (f"latentforge plugins check {e.plugin.address} --deep" for e in external),
                "LATENTFORGE_DEBUG=1 shows the traceback",
            ),
        ) from error
