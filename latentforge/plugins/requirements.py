"""Checks that required plugins are installed. Must not import torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from latentforge.errors import ConfigError, PluginError

KEY = "requires_plugins"


def check_requirements(requirements: Any, where: str) -> None:
    """Check the value of `requires_plugins` in a config, such as ["latentforge-swirl>=0.2"].

    Raises ConfigError if the value is not a list of requirements, and a PluginError with the
    install command if a requirement is not met.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    message = f"{KEY} of {where} cannot be read"
    if not isinstance(requirements, list) or not all(isinstance(r, str) for r in requirements):
        expected = 'must be a list of strings such as ["latentforge-swirl>=0.2"]'
        raise ConfigError(message, details=[f"{expected}, got {requirements!r}"])
    try:
        parsed = [Requirement(text) for text in requirements]
    except InvalidRequirement as error:
        raise ConfigError(message, details=[str(error).splitlines()[0]]) from None
    missing = {_plain(r): reason for r in parsed if (reason := _unmet_reason(r))}
    if missing:
        raise PluginError(
            f"{where} requires plugins that are not installed",
            details=[f"{requirement}: {reason}" for requirement, reason in missing.items()],
            hint=pip_install(list(missing)),
        )


def is_older(installed: str, minimum: str) -> bool:
    """Whether a version precedes another; False if one of them is not a valid version."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(installed) < Version(minimum)
    except InvalidVersion:
        return False


def pip_install(requirements: Sequence[str]) -> str:
    """Return the command that installs the requirements. They are quoted, because names in someone
    else's config or run could contain shell commands. Windows shells need double quotes."""
    quote = (lambda requirement: f'"{requirement}"') if os.name == "nt" else shlex.quote
    return "pip install " + " ".join(map(quote, requirements))


def _plain(requirement: Any) -> str:
    """Return a requirement without its marker, which is met, and without its URL, because someone
    else's config must not choose the source of a package."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _unmet_reason(requirement: Any) -> str:
    """The reason why a requirement is not met, or an empty string."""
    if requirement.marker and not requirement.marker.evaluate():
        return ""
    try:
        installed: str | None = version(requirement.name)
    except PackageNotFoundError:
        return "not installed"
    except Exception:
        installed = None
    if installed is None:
        return "its version cannot be read"
    satisfied = requirement.specifier.contains(installed, prereleases=True)
    return "" if satisfied else f"{installed} is installed"
