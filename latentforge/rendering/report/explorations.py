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

from latentforge.config.changes import flatten
from latentforge.config.validation import plain
from latentforge.errors import LatentForgeError, UsageError, one_line
from latentforge.findings import Bars, Lines, Scatter
from latentforge.io.atomic import is_outside
from latentforge.io.toml import format_toml_value
from latentforge.plugins.registry import Registry
from latentforge.rendering.findings_store import StoredFindings, StoredItem, read_findings
from latentforge.rendering.html import page as html
from latentforge.rendering.report import run_table
from latentforge.rendering.report.images import embed
from latentforge.runs.folder import RunFolder

COLUMNS = 2  # entries side by side, if the page is wide enough
MAX_POINTS = 12_000  # maximum for all maps with images together
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
    error: str = ""
    findings: StoredFindings = field(default_factory=StoredFindings)
    about: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)  # files that the page does not show
    one_of_many: bool = False  # the page has other entries, so each image needs the name


@dataclass
class Group:
    """All entries of one explorer."""

    explorer: str
    entries: list[Entry]

    @property
    def columns(self) -> list[str]:
        return [entry.name for entry in self.entries if entry.findings.metrics]

    @property
    def rows(self) -> list[tuple[str, list[Any]]]:
        return run_table.join_rows([e.findings.metrics for e in self.entries if e.findings.metrics])

    @property
    def protocols(self) -> list[str]:
        """The protocols of the metrics. If they differ, each is prefixed with the names of its
        entries."""
        pairs = [(entry.findings.protocol, entry.name) for entry in self.entries]
        return run_table.group_by_protocol([pair for pair in pairs if pair[0]])

    @property
    def arrangement(self) -> list[tuple[Entry, list[Part]]]:
        return arrange_blocks(self.entries)

    @property
    def options(self) -> list[tuple[str, list[Any]]]:
        """The options that differ between the entries."""
        options = [entry.about["options"] for entry in self.entries if not entry.error]
        return run_table.find_differing_rows(options)


def collect_explorations(
    runs: Sequence[RunFolder], names: Sequence[str], registry: Registry, warnings: list[str]
) -> list[Group]:
    """Collect the explorations of the runs in groups by explorer. Groups with an interactive map
    come first. Damaged folders add a warning."""
    entries = [
        _read(run, name if len(runs) > 1 else "", folder, registry)
        for run, name in zip(runs, names, strict=True)
        for folder in _list_folders(run.path / "explore")
    ]
    warnings += [f"{e.folder} is skipped: {e.error}" for e in entries if e.error]
    maps = sum(_is_map(item) for entry in entries for item in entry.findings.items)
    points = max(1000, min(html.POINTS, MAX_POINTS // max(1, maps)))
    groups: dict[str, Group] = {}
    for entry in entries:
        explorer = str(entry.about.get("explorer") or _get_explorer(entry.folder))
        groups.setdefault(explorer, Group(explorer, [])).entries.append(entry)
    for group in groups.values():
        for entry in group.entries:
            entry.one_of_many = len(runs) > 1 or len(group.entries) > 1
            _add_blocks(entry, points, group, warnings)
    return sorted(groups.values(), key=_sort_key)


def _sort_key(group: Group) -> tuple[bool, str]:
    has_map = any(_is_map(item) for entry in group.entries for item in entry.findings.items)
    return not has_map, group.explorer


def _is_map(item: StoredItem) -> bool:
    shown = item.finding
    return isinstance(shown, Scatter) and (shown.images is not None or shown.plane is not None)


def _list_folders(root: Path) -> list[Path]:
    """The non-empty folders in numeric order: guided, guided-2, guided-10."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and any(path.iterdir())]
    parts = {path: re.split(r"(\d+)", path.name) for path in folders}
    return sorted(folders, key=lambda p: [int(t) if t.isdigit() else t for t in parts[p]])


def _get_explorer(folder: Path) -> str:
    return re.sub(r"-\d+$", "", folder.name)


def _read(run: RunFolder, name: str, folder: Path, registry: Registry) -> Entry:
    """Read the findings of a folder. An error is stored in the `error` of the entry."""
    has_number = folder.name != _get_explorer(folder)
    heading = " / ".join([name, folder.name] if name and has_number else [name or folder.name])
    entry = Entry(run, heading, folder)
    try:
        if is_outside(folder, run.path):
            raise UsageError(f"{folder} is a link to a place outside the run")
        entry.findings = read_findings(folder)
        entry.about = normalize_about(entry.findings.about, folder)
        entry.command = create_command(entry, registry)
        made, (best, last) = entry.about["checkpoint"], _read_pointers(run)
        if last and made not in ("", best, last):
            note = f"made at {made}; the run has been trained to {last} since: repeat the command"
            entry.findings = replace(entry.findings, notes=[note, *entry.findings.notes])
    except Exception as error:  # a folder that a user has changed must not prevent the report
        entry.error = error.message if isinstance(error, LatentForgeError) else one_line(error)
        entry.findings = replace(entry.findings, items=[])
    return entry


def _add_blocks(entry: Entry, points: int, group: Group, warnings: list[str]) -> None:
    for item in entry.findings.items:
        try:
            blocks = list(_create_blocks(item, points, _find_peers(item, group), entry))
            entry.blocks += blocks
            entry.other_files += [] if blocks else [file.name for file in item.files]
        except Exception as error:
            message = f"{item.name} cannot be shown: {one_line(error)}"
            warning_html = Markup('<p class="warning">{}</p>').format(message)
            entry.blocks.append(Block(item.name, warning_html))
            warnings.append(f"{entry.folder}: {message}")


def _find_peers(item: Any, group: Group) -> list[Any]:
    """The charts of the same finding in the group, which share a y range."""
    finding = item.finding
    if not isinstance(finding, Lines | Bars):
        return []
    others = [other.finding for entry in group.entries for other in entry.findings.items]
    same_kind = [other for other in others if isinstance(other, type(finding))]
    return [o for o in same_kind if (o.name, o.y_title) == (finding.name, finding.y_title)]


def _create_blocks(item: Any, points: int, peers: Sequence[Any], entry: Entry) -> Iterator[Block]:
    """Yield a chart if the finding has data, or else its images, of which all but the first are
    folded."""
    name = entry.name if entry.one_of_many and not item.title.startswith(f"{entry.name}: ") else ""
    if item.finding is not None:
        content = replace(item.finding, title=f"{name}: {item.title}") if name else item.finding
        yield Block(item.name, Markup(html.chart(content, points=points, peers=peers)))
        return
    caption = Markup("<figcaption>{}</figcaption>").format(name) if name else ""
    pictures = [embedded for file in item.files if (embedded := embed(file, item.title))]
    pictures.sort(key=lambda picture: picture.kind != "image/gif")  # the animation first
    for i, picture in enumerate(pictures):
        content = Markup(PICTURE).format("" if i else caption, item.title, picture.tag)
        if i:  # the first image contains its title
            content = Markup(FOLDED).format(entry.name, item.title, content)
        yield Block(f"{item.name} {i}", content, picture.wide)


def normalize_about(about: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Replace the entries of `about` that are missing or of a wrong type by empty ones."""
    texts = {"explorer": _get_explorer(folder), "run": "", "checkpoint": "", "weights": ""}
    texts_found = {k: v if isinstance(v := about.get(k), str) else e for k, e in texts.items()}
    roles, options, plugins = (about.get(key) for key in ("roles", "options", "plugins"))
    sampler = flatten({"sampler": about.get("sampler", {})})
    return {
        **about,
        **texts_found,
        "roles": dict(roles) if isinstance(roles, Mapping) else {},
        "options": {**(options if isinstance(options, Mapping) else {}), **sampler},
        "plugins": [p for p in plugins if isinstance(p, str)] if isinstance(plugins, list) else [],
    }


def create_command(entry: Entry, registry: Registry) -> list[str]:
    """The command line that repeats the exploration, without options that have default values."""
    about = entry.about
    modules = [*run_table.find_unpackaged(entry.run), *about["plugins"]]
    arguments = ["latentforge", *run_table.create_plugin_arguments(modules), "explore"]
    arguments += [about["explorer"], about["run"] or str(entry.run.path)]
    for role, other in about["roles"].items():
        arguments += ["--with", f"{role}={other}"]
    best, last = _read_pointers(entry.run)
    if best == about["checkpoint"] != last:
        arguments += ["--checkpoint", "best"]
    own_sampler = flatten({"sampler": entry.run.config.get("sampler", {})})
    defaults = {**_get_defaults(registry, about), **own_sampler}
    for key, value in about["options"].items():
        if value is not None and (key not in defaults or defaults[key] != value):
            arguments += ["--set", f"{key}={_format_option(value)}"]
    return arguments


def _format_option(value: Any) -> str:
    """Format a value for `--set`: a plain word needs no quotes."""
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    literal = value in ("true", "false", "inf", "nan")
    return value if is_word and not literal else format_toml_value(value)


def _read_pointers(run: RunFolder) -> list[str]:
    """The names of the best and the last checkpoint; empty if there is none. A hash follows the
    name in each of the two files."""
    files = [run.path / "checkpoints" / name for name in ("BEST", "LATEST")]
    return [f.read_text("utf-8").partition("\n")[0] if f.is_file() else "" for f in files]


def _get_defaults(registry: Registry, about: Mapping[str, Any]) -> dict[str, Any]:
    """The default options of the explorer and its objective, if their plugins are installed."""
    defaults: dict[str, Any] = {}
    with suppress(LatentForgeError):
        explorer = registry.get("explorers", about["explorer"]).spec
        defaults = plain(explorer.config())
        if explorer.searches:
            defaults["objective"] = explorer.searches
    with suppress(LatentForgeError):
        if isinstance(objective := about["options"].get("objective"), str):
            defaults |= plain(registry.get("objectives", objective).spec.config())
    return defaults


def suggest_command(run: RunFolder, registry: Registry) -> str:
    """Suggest a first command: latent-map, or another explorer that fits the model."""
    suitable: list[str] = []
    with suppress(LatentForgeError):
        model = registry.get("models", run.config["model"]["name"])
        suitable = [
            entry.name
            for entry in registry.entries("explorers")
            if set(entry.spec.needs) <= set(model.provides) and not entry.spec.roles
        ]
    if not suitable:
        return "latentforge list explorers"
    selected = "latent-map" if "latent-map" in suitable else suitable[0]
    arguments = run_table.create_plugin_arguments(run_table.find_unpackaged(run))
    return shlex.join(["latentforge", *arguments, "explore", selected, str(run.path)])


def arrange_blocks(entries: Sequence[Entry]) -> list[tuple[Entry, list[Part]]]:
    """Arrange the blocks of each entry in parts. The first part has no blocks, only the heading.

    On a wide page the parts form a grid with COLUMNS columns. The headings and the narrow blocks of
    the entries are side by side; each wide block has its own row across all columns.
    """
    keys = {block.key for entry in entries for block in entry.blocks if block.wide}
    lines = -(-len(entries) // COLUMNS)  # rows of headings or narrow blocks
    band = lines + len(entries)  # plus one row for the wide block of each entry
    return [(entry, _arrange_entry(entry, i, keys, lines, band)) for i, entry in enumerate(entries)]


def _arrange_entry(entry: Entry, i: int, wide: set[str], lines: int, band: int) -> list[Part]:
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
