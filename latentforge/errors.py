"""The exceptions of LatentForge, their exit codes, and the formatting of exceptions as text.

Standard library only, because every command imports this module.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any

LONGEST = 1000  # characters of an exception's message in `one_line`


class LatentForgeError(Exception):
    """An error that a user can understand and fix: message, details, and a hint.

    The hint says what to do next. `remedy` is the former name of `hint`, as keyword and attribute.

    `exit_code` is the exit code of the command: 1 (the run failed), 2 (usage or config),
    3 (a plugin), 4 (something is missing), 130 (interrupted), 143 (terminated).
    """

    exit_code = 1
    id = "error"  # docs/errors.md lists all ids

    def __init__(
        self, message: str, *, details: Iterable[str] = (), hint: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.hint = hint or remedy
        self.result: dict[str, Any] = {}  # partial results, included in the JSON output

    @property
    def remedy(self) -> str:
        return self.hint

    def __str__(self) -> str:
        """Return message, details and hint, which a Python traceback shows at its end."""
        lines = [self.message, *(f"  - {detail}" for detail in self.details)]
        return "\n".join([*lines, f"  try: {self.hint}"] if self.hint else lines)


class RunFailed(LatentForgeError):
    """The run started but did not finish successfully."""

    id = "failed"


class LostProcess(RunFailed):
    """Another process of a distributed run has exited or does not respond."""

    id = "lost-process"


class UsageError(LatentForgeError):
    """The request is invalid or cannot be carried out."""

    id = "usage"
    exit_code = 2


class ConfigError(UsageError):
    """One or more options are invalid; `details` contains a line for each, with its key path."""

    id = "config"


class PluginError(LatentForgeError):
    """A plugin that the run needs is broken, disabled or missing."""

    id = "plugin"
    exit_code = 3


class MissingError(LatentForgeError):
    """Data, a package, a device or a run is missing."""

    id = "missing"
    exit_code = 4


class Interrupted(LatentForgeError):
    """The user stopped the run; its progress is saved."""

    id = "interrupted"
    exit_code = 130


class Terminated(Interrupted):
    """SIGTERM, sent for example by a scheduler, stopped the run."""

    id = "terminated"
    exit_code = 143


@dataclass(frozen=True)
class PluginProblem:
    """A fault of one plugin as a value. It is collected and shown; other plugins still load."""

    plugin: str
    distribution: str  # "" if the plugin is not part of a distribution
    version: str
    stage: str  # discover, import, register, validate or collect
    cause: str
    remedy: str

    def __str__(self) -> str:
        title = plugin_title(self.plugin, self.distribution, self.version)
        return f"{title}: {self.stage}: {self.cause}; {self.remedy}"

    def as_dict(self) -> dict[str, str]:
        return {"id": f"plugin-{self.stage}", **asdict(self)}


def plugin_title(name: str, distribution: str, version: str) -> str:
    """A plugin's title, such as `plugin swirl (latentforge-swirl 0.2)`."""
    origin = f"{distribution} {version}".strip()
    return f"plugin {name} ({origin})" if origin else f"plugin {name}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or an empty string if no known name is close to `name`."""
    close = similar_names(name, known)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names, at most three, that a misspelt or shortened name can mean: those that
    need the fewest edits. Empty if all are too different to be what was meant."""
    costs = {other: _typing_cost(name, other) for other in known}
    best = min(costs.values(), default=math.inf)
    return [other for other, cost in costs.items() if cost == best < math.inf][:3]


def similar_paths(path: Path, others: Iterable[Path]) -> str:
    """Return `did you mean 'folder/x'?`, or an empty string if no other path has a similar name."""
    by_name: dict[str, list[str]] = {}
    for other in others:  # a suffix such as .toml, which all have, is no similarity
        by_name.setdefault(other.name.removesuffix(path.suffix), []).append(repr(str(other)))
    names = similar_names(path.name.removesuffix(path.suffix), by_name)
    close = [other for name in names for other in by_name[name]]
    return f"did you mean {' or '.join(close[:3])}?" if close else ""


def _typing_cost(name: str, known: str) -> float:
    """Return the number of edits by which `name` differs from a known name; infinity if they are
    too many for a typing error. Case and punctuation do not count."""
    a, b = ("".join(filter(str.isalnum, text.lower())) for text in (name, known))
    edits, longest = _count_edits(a, b), max(len(a), len(b))
    if edits <= longest // 4 or edits == 1 < longest - 1:
        return edits
    letters, others = Counter(a), Counter(b)
    if (letters - others).total() + (others - letters).total() <= 1 < len(a):
        return 2  # all letters but one, in another order
    parts = [b, *re.split(r"[\W_]", known.lower())]
    if len(a) > 2 and any(part.startswith(a) for part in parts):
        return 2  # shortened
    if len(b) > 3 and a.startswith(b):
        return 2
    ratio = difflib.SequenceMatcher(None, a, b).ratio()
    same_shape = len(a) == len(b) > 2 and a[0] == b[0] and ratio > 0.6
    return 3 if same_shape or (ratio >= 0.7 and min(len(a), len(b)) > 5) else math.inf


def _count_edits(a: str, b: str) -> int:
    """Return the number of characters to insert, delete, replace or swap with their neighbour that
    turns `a` into `b` (optimal string alignment)."""
    rows = [list(range(len(b) + 1))]
    for i in range(1, len(a) + 1):
        row = [i]
        for j in range(1, len(b) + 1):
            differs = a[i - 1] != b[j - 1]
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + differs))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                row[j] = min(row[j], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def one_line(error: BaseException) -> str:
    """Format an exception as one line: its type, and its message, truncated to LONGEST."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_in(error: BaseException, package: str) -> str:
    """Return ` (file:line)` of the innermost frame in `package`, or an empty string."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    location = ""
    for frame, line in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module == package or module.startswith(f"{package}."):
            location = f" ({frame.f_code.co_filename}:{line})"
    return location
