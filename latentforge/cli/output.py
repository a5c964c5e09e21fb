"""Helpers of all commands: options before the command, JSON or text output, tables, roles."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentforge.errors import PluginError, RunFailed, UsageError
from latentforge.io.paths import quoted
from latentforge.io.text import counted
from latentforge.runtime import torchrun
from latentforge.runtime.stdout import escape_controls, write_stdout

if TYPE_CHECKING:
    from latentforge.contracts import DataSpec
    from latentforge.forge import Forge
    from latentforge.runs.folder import RunFolder

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option; repeatable.")
]
Others = Annotated[
    list[str] | None, typer.Option("--with", metavar="ROLE=RUN", help="Use another run in a role.")
]
Weights = Annotated[
    str, typer.Option(metavar="last|best", help="The checkpoint; best needs a validation split.")
]
Device = Annotated[str, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:N, mps.")]


class WarningFormatter(logging.Formatter):
    """Formats a log record as text that is harmless for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))


def show_warnings() -> None:
    """Print the warnings of LatentForge to stderr, like progress."""
    handler = logging.StreamHandler()
    handler.setFormatter(WarningFormatter("warning: %(message)s"))
    handler.addFilter(lambda _: not torchrun.rank())  # only the first process prints
    logging.getLogger("latentforge").handlers = [handler]


@dataclass
class Globals:
    """The global options, which precede the command."""

    plugins: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    strict: bool = False  # whether a fault of any plugin ends the command
    started: float | None = None  # when the process started, on the clock time.monotonic
    loaded: Forge | None = None  # loaded once: a plugin file may have side effects
    warned: bool = False

    @classmethod
    def of(
        cls, plugin: Sequence[str] | None, strict: bool = False, started: float | None = None
    ) -> Globals:
        """Parse the values of `-p`: plugins to load, and `no:NAME` for plugins to disable."""
        values = plugin or ()
        off = [name.removeprefix("no:") for name in values if name.startswith("no:")]
        names = [name for name in values if not name.startswith("no:")]
        return cls(names, off, strict, started)

    def forge(self, *, warn: bool = True) -> Forge:
        """Return a Forge with these plugins, and print plugin faults to stderr, one line each."""
        from latentforge.forge import Forge

        forge = self.loaded = self.loaded or Forge(self.plugins, off=self.off)
        registry = forge.registry
        faults = [*map(str, registry.problems), *registry.slow_imports]
        if self.strict and warn and faults:
            raise PluginError(
                f"--strict-plugins: {counted(len(faults), 'plugin fault')}",
                details=faults,
                hint="latentforge plugins list",
            )
        lines = [f"warning: {problem}" for problem in registry.problems]
        lines += [f"note: {notice}" for notice in registry.notices]
        for line in lines if warn and not self.warned and not torchrun.rank() else ():
            print(escape_controls(line), file=sys.stderr)
        self.warned |= warn
        return forge


def forge_of(ctx: typer.Context, *, warn: bool = True) -> Forge:
    options: Globals = ctx.obj
    return options.forge(warn=warn)


def data_of(ctx: typer.Context, run: Path) -> DataSpec:
    """Return the spec of the data of a run, in whose words a message is printed."""
    from latentforge.runs.data_description import read_spec

    return read_spec(forge_of(ctx).open_run(run).manifest["data"])


def print_result(result: Mapping[str, Any], as_json: bool, text: Iterable[str]) -> None:
    """Print one JSON object or lines of text. With several processes, only the first prints."""
    if as_json:
        print_json(result)
    elif not torchrun.rank():
        write_stdout(escape_controls("\n".join(text)))


def print_json(result: Mapping[str, Any]) -> None:
    from latentforge.io.paths import replace_nonfinite

    if torchrun.rank():
        return
    write_stdout(json.dumps(replace_nonfinite(result), default=str))


def table(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Format rows as left-aligned columns; the last column is not padded."""
    if not rows:
        return []
    rows = [[escape_controls(cell, keep="") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        indent + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def format_metrics(metrics: Mapping[str, float]) -> list[list[str]]:
    """Return the name and the text of each metric, with its standard error if that is known."""
    errors = {name: value for name, value in metrics.items() if name.endswith("_se")}
    return [
        [name, format_estimate(value, errors.get(f"{name}_se"))]
        for name, value in metrics.items()
        if name not in errors or name.removesuffix("_se") not in metrics
    ]


def format_estimate(value: float, error: float | None = None) -> str:
    """Format a metric with six digits, or to the second digit of its standard error. An error below
    the rounding to six digits is left out: that of an exact metric is due to rounding, too."""
    if not error or not math.isfinite(error) or error < 5e-7 * abs(value):
        return f"{value:.6g}"
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{places}f} ± {error:.{places}f}"


def format_splits(run: RunFolder) -> list[str]:
    """Format the metrics of a run as a table with a column for each split. A weight that was 0 in
    all epochs is left out: its term is only logged."""
    texts = {split: dict(format_metrics(values)) for split, values in run.metrics.items()}
    unused = find_unused_weights(run)
    names = dict.fromkeys(n for values in texts.values() for n in values if n not in unused)
    rows = [[name, *(values.get(name, "") for values in texts.values())] for name in names]
    return table([["", *texts], *rows], "  ")


def find_unused_weights(run: RunFolder) -> set[str]:
    """Return the metrics `<term>_weight` that were 0 in all epochs."""
    train = run.metrics.get("train", {})
    terms = [name.removesuffix("_weight") for name in train if name.endswith("_weight")]
    unused = {f"{term}_weight" for term in terms if term in train and not train[f"{term}_weight"]}
    try:
        history = run.history() if unused else []
    except RunFailed:  # metrics.jsonl is damaged
        return set()
    changed = {name for line in history for name in unused if line["train"].get(name, 1.0)}
    return unused - changed


def format_weights(result: Mapping[str, Any]) -> list[str]:
    """Describe the evaluated weights in a line if they are a moving average of the trained ones."""
    from latentforge.config.schema import AS_TRAINED

    description = result.get("weights", AS_TRAINED)
    return [f"evaluated weights: {description}"] if description != AS_TRAINED else []


def format_sampler(result: Mapping[str, Any]) -> list[str]:
    """Describe the inference options in a line if the model has any."""
    if "sampler" not in result:
        return []
    from latentforge.config.inference import format_sampler

    return [f"inference options: {format_sampler(result['sampler'])}"]


def parse_roles(texts: Sequence[str] | None) -> dict[str, str]:
    """Parse `ROLE=RUN` strings into a mapping."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        role, equals, run = text.partition("=")
        if not (role and equals and run):
            example = f"classifier={'RUN' if equals else quoted(text)}"
            raise UsageError(f"--with {text}: write ROLE=RUN, as in --with {example}")
        if role in pairs:
            raise UsageError(f"--with {text}: {role} is given twice, first as {pairs[role]}")
        pairs[role] = run
    return pairs
