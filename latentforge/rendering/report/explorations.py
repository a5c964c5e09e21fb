"""Collects stored findings for the report: charts, embedded images, metrics and the command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from latentforge.config.validation import plain
from latentforge.errors import LatentForgeError, UsageError, one_line
from latentforge.findings import Bars, Lines, Scatter
from latentforge.io.atomic import is_outside
from latentforge.io.toml import format_toml_value
from latentforge.plugins.registry import Registry
from latentforge.rendering.findings_store import Stored, read_findings
from latentforge.rendering.html import page as html
from latentforge.rendering.report.images import embed
from latentforge.rendering.report.run_table import (
    by_protocol,
    differing_rows,
    joint_rows,
    unpackaged,
    with_plugins,
)
from latentforge.runs.folder import RunFolder

COLUMNS = 2  # entries side by side, if the page is wide enough
POINTS_OF_A_PAGE = 12_000  # maximum for all maps with images together
PICTURE = (
    '<figure class="lf-figure">{}<div class="lf-scroll" tabindex="0" role="region" aria-label="{}">'
    "{}</div></figure>"
)
FOLDED = '<details><summary><span class="again">{}: </span>{}, frame by frame</summary>{}</details>'


@dataclass(frozen=True)
class Block:
    """A piece of the page; corresponding blocks of other folders have the same `key`."""

    key: str
    html: Markup
    wide: bool = False


@dataclass
class Part:
    """Adjacent blocks of one entry and their grid position: narrow blocks, or one wide block."""

    row: int
    column: int
    wide: bool = False
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Entry:
    """One folder of findings."""

    run: RunFolder
    name: str  # shown in the headings
    folder: Path
    broken: str = ""
    found: Stored = field(default_factory=Stored)
    about: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # files that the page does not show
    one_of_many: bool = False  # the page has other entries, so each image needs the name


@dataclass
class Group:
    """All entries of one explorer."""

    explorer: str
    entries: list[Entry]

    @property
    def columns(self) -> list[str]:
        return [entry.name for entry in self.entries if entry.found.metrics]

    @property
    def rows(self) -> list[tuple[str, list[Any]]]:
        return joint_rows([e.found.metrics for e in self.entries if e.found.metrics])

    @property
    def protocols(self) -> list[str]:
        """The protocols of the metrics; if they differ, with the names of their entries."""
        given = [(entry.found.protocol, entry.name) for entry in self.entries]
        return by_protocol([(protocol, name) for protocol, name in given if protocol])

    @property
    def arranged(self) -> list[tuple[Entry, list[Part]]]:
        return arranged(self.entries)

    @property
    def options(self) -> list[tuple[str, list[Any]]]:
        """The options that differ between the entries."""
        return differing_rows([e.about.get("options", {}) for e in self.entries if not e.broken])


def explored(
    runs: Sequence[RunFolder], names: Sequence[str], registry: Registry, warnings: list[str]
) -> list[Group]:
    """Groups by explorer, those with an interactive map first. Damaged folders add a warning."""
    entries = [
        _read(run, name if len(runs) > 1 else "", folder, registry)
        for run, name in zip(runs, names, strict=True)
        for folder in _folders(run.path / "explore")
    ]
    warnings += [f"{e.folder} is skipped: {e.broken}" for e in entries if e.broken]
    maps = sum(_is_map(item) for entry in entries for item in entry.found.items)
    points = max(1000, min(html.POINTS, POINTS_OF_A_PAGE // max(1, maps)))
    groups: dict[str, Group] = {}
    for entry in entries:
        explorer = str(entry.about.get("explorer") or _explorer_of(entry.folder))
        groups.setdefault(explorer, Group(explorer, [])).entries.append(entry)
    for group in groups.values():
        for entry in group.entries:
            entry.one_of_many = len(runs) > 1 or len(group.entries) > 1
            _show(entry, points, group, warnings)
    mapped = {
        g.explorer for g in groups.values() for e in g.entries if any(map(_is_map, e.found.items))
    }
    return sorted(groups.values(), key=lambda group: (group.explorer not in mapped, group.explorer))


def _is_map(item: Any) -> bool:
    found = item.finding
    return isinstance(found, Scatter) and (found.images is not None or found.plane is not None)


def _folders(root: Path) -> list[Path]:
    """The non-empty folders in numeric order: guided, guided-2, guided-10."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and any(path.iterdir())]
    parts = {path: re.split(r"(\d+)", path.name) for path in folders}
    return sorted(folders, key=lambda p: [int(t) if t.isdigit() else t for t in parts[p]])


def _explorer_of(folder: Path) -> str:
    return re.sub(r"-\d+$", "", folder.name)


def _read(run: RunFolder, name: str, folder: Path, registry: Registry) -> Entry:
    """Read the findings of a folder; an error becomes the text of `broken`."""
    numbered = folder.name != _explorer_of(folder)
    heading = " / ".join([name, folder.name] if name and numbered else [name or folder.name])
    entry = Entry(run, heading, folder)
    try:
        if is_outside(folder, run.path):
            raise UsageError(f"{folder} is a link to a place outside the run")
        entry.found = read_findings(folder)
        entry.about = known(entry.found.about, folder)
        entry.command = command(entry, registry)
    except Exception as error:  # a folder that a user has changed must not prevent the report
        entry.broken = error.message if isinstance(error, LatentForgeError) else one_line(error)
        entry.found = replace(entry.found, items=[])
    return entry


def _show(entry: Entry, points: int, group: Group, warnings: list[str]) -> None:
    for item in entry.found.items:
        try:
            blocks = list(_blocks(item, points, _alike(item, group), entry))
            entry.blocks += blocks
            entry.others += [] if blocks else [file.name for file in item.files]
        except Exception as error:
            message = f"{item.name} cannot be shown: {one_line(error)}"
            words = Markup('<p class="warning">{}</p>').format(message)
            entry.blocks.append(Block(item.name, words))
            warnings.append(f"{entry.folder}: {message}")


def _alike(item: Any, group: Group) -> list[Any]:
    """The charts of the same finding in the group, which share a y range."""
    own = item.finding
    if not isinstance(own, Lines | Bars):
        return []
    found = [other.finding for entry in group.entries for other in entry.found.items]
    same_kind = [other for other in found if isinstance(other, type(own))]
    return [o for o in same_kind if (o.name, o.y_title) == (own.name, own.y_title)]


def _blocks(item: Any, points: int, alike: Sequence[Any], entry: Entry) -> Iterator[Block]:
    """A chart if the finding has data, else its images: the first one open, the others folded."""
    name = entry.name if entry.one_of_many and not item.title.startswith(f"{entry.name}: ") else ""
    if item.finding is not None and hasattr(item.finding, "title"):
        shown = replace(item.finding, title=f"{name}: {item.title}") if name else item.finding
        yield Block(item.name, Markup(html.chart(shown, points=points, alike=alike)))
        return
    caption = Markup("<figcaption>{}</figcaption>").format(name) if name else ""
    pictures = [made for file in item.files if (made := embed(file, item.title))]
    pictures.sort(key=lambda picture: picture.kind != "image/gif")  # the animation first
    for i, picture in enumerate(pictures):
        shown = Markup(PICTURE).format("" if i else caption, item.title, picture.tag)
        if i:  # the first one has its title drawn in it
            shown = Markup(FOLDED).format(entry.name, item.title, shown)
        yield Block(f"{item.name} {i}", shown, picture.wide)


def known(about: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The `about` entries of a folder; those that are missing or of a wrong type become empty."""
    texts = {"explorer": _explorer_of(folder), "run": "", "checkpoint": "", "weights": ""}
    found = {k: v if isinstance(v := about.get(k), str) else e for k, e in texts.items()}
    roles, options, plugins = (about.get(key) for key in ("roles", "options", "plugins"))
    return {
        **about,
        **found,
        "roles": dict(roles) if isinstance(roles, Mapping) else {},
        "options": dict(options) if isinstance(options, Mapping) else {},
        "plugins": [p for p in plugins if isinstance(p, str)] if isinstance(plugins, list) else [],
    }


def command(entry: Entry, registry: Registry) -> list[str]:
    """The command line that repeats the exploration, without options that have default values."""
    about = entry.about
    words = ["latentforge", *with_plugins([*unpackaged(entry.run), *about["plugins"]])]
    words += ["explore", about["explorer"], about["run"] or str(entry.run.path)]
    for role, other in about["roles"].items():
        words += ["--with", f"{role}={other}"]
    best, last = (_pointer(entry.run.path / "checkpoints" / name) for name in ("BEST", "LATEST"))
    if best == about["checkpoint"] != last:
        words += ["--checkpoint", "best"]
    defaults = _defaults(registry, about)
    for key, value in about["options"].items():
        if value is not None and (key not in defaults or defaults[key] != value):
            words += ["--set", f"{key}={_value(value)}"]
    return words


def _value(value: Any) -> str:
    """Format a value for `--set`: a plain word needs no quotes."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    return (
        value
        if plain and value not in ("true", "false", "inf", "nan")
        else format_toml_value(value)
    )


def _pointer(file: Path) -> str:
    """The checkpoint name in a pointer file, without the hash that follows it."""
    return file.read_text("utf-8").partition("\n")[0] if file.is_file() else ""


def _defaults(registry: Registry, about: Mapping[str, Any]) -> dict[str, Any]:
    """The default options of the explorer and its objective, if their plugins are installed."""
    found: dict[str, Any] = {}
    with suppress(LatentForgeError):
        explorer = registry.get("explorers", about["explorer"]).spec
        found = plain(explorer.config())
        if explorer.searches:
            found["objective"] = explorer.searches
    with suppress(LatentForgeError):
        if isinstance(objective := about["options"].get("objective"), str):
            found |= plain(registry.get("objectives", objective).spec.config())
    return found


def suggestion(run: RunFolder, registry: Registry) -> str:
    """The suggested first command: latent-map, or another explorer that fits the model."""
    fitting: list[str] = []
    with suppress(LatentForgeError):
        model = registry.get("models", run.config["model"]["name"])
        fitting = [
            entry.name
            for entry in registry.entries("explorers")
            if set(entry.spec.needs) <= set(model.spec.provides) and not entry.spec.roles
        ]
    if not fitting:
        return "latentforge list explorers"
    chosen = "latent-map" if "latent-map" in fitting else fitting[0]
    words = with_plugins(unpackaged(run))
    return shlex.join(["latentforge", *words, "explore", chosen, str(run.path)])


# ---------------------------------------------------------------- grid positions of blocks


def arranged(entries: Sequence[Entry]) -> list[tuple[Entry, list[Part]]]:
    """The parts of each entry: first one without blocks, for its heading, then the others.

    On a wide page the parts form a grid: headings in columns, the blocks that follow in columns,
    then one row for the wide block of each entry, then columns again.
    """
    keys = {block.key for entry in entries for block in entry.blocks if block.wide}
    lines = -(-len(entries) // COLUMNS)  # rows of columns
    band = lines + len(entries)  # plus one row for each wide block
    return [(entry, _parts(entry, i, keys, lines, band)) for i, entry in enumerate(entries)]


def _parts(entry: Entry, i: int, wide: set[str], lines: int, band: int) -> list[Part]:
    line, column = i // COLUMNS + 1, i % COLUMNS + 1
    parts = [Part(line, column)]
    for block in entry.blocks:
        above = lines + band * sum(part.wide for part in parts)
        if block.key in wide:
            parts.append(Part(above + lines + i + 1, 1, True))
        elif parts[-1].wide or len(parts) == 1:
            parts.append(Part(above + line, column))
        parts[-1].blocks.append(block)
    return parts
