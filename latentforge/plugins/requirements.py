"""Checks that required plugins are installed. Must not import torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from latentforge.errors import ConfigError, PluginError

KEY = "requires_plugins"


def check_requirements(wanted: Any, where: str) -> None:
    """Check the value of `requires_plugins` in a config, such as ["latentforge-swirl>=0.2"].

    Raises ConfigError if it is not a list of requirements, PluginError with the command that
    installs the missing ones.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    if not isinstance(wanted, list) or not all(isinstance(text, str) for text in wanted):
        raise ConfigError(
            f"{KEY} of {where} cannot be read",
            details=[
                f'must be a list of strings such as ["latentforge-swirl>=0.2"], got {wanted!r}'
            ],
        )
    try:
        parsed = [Requirement(text) for text in wanted]
    except InvalidRequirement as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{KEY} of {where} cannot be read", details=[first]) from None
    missing = {_plain(need): said for need in parsed if (said := _lacks(need))}
    if missing:
        raise PluginError(
            f"{where} requires plugins that are not installed",
            details=[f"{need}: {said}" for need, said in missing.items()],
            remedy=pip_install(list(missing)),
        )


def is_older(installed: str, than: str) -> bool:
    """Whether a version precedes another; False if one of them is not a valid version."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(installed) < Version(than)
    except InvalidVersion:
        return False


def pip_install(needs: Sequence[str]) -> str:
    """The command that installs `needs`, quoted for a shell: a name from someone else's config or
    run must remain a name there. A Windows shell supports only double quotes."""
    quote = (lambda need: f'"{need}"') if os.name == "nt" else shlex.quote
    return "pip install " + " ".join(map(quote, needs))


def _plain(need: Any) -> str:
    """A requirement without its marker, which is met, and without its URL, which someone else's
    config must not choose."""
    extras = f"[{','.join(sorted(need.extras))}]" if need.extras else ""
    return f"{need.name}{extras}{need.specifier}"


def _lacks(need: Any) -> str:
    """The reason why a requirement is not met, or an empty string."""
    if need.marker and not need.marker.evaluate():
        return ""
    try:
        installed: str | None = version(need.name)
    except PackageNotFoundError:
        return "not installed"
    except Exception:
        installed = None
    if installed is None:
        return "its version cannot be read"
    met = need.specifier.contains(installed, prereleases=True)
    return "" if met else f"{installed} is installed"
