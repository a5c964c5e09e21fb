"""Runs explorers of runs without drawing their findings, which takes more than half of the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentforge.config.selection import select_explorer
from latentforge.findings import Findings
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import open_roles, resolve_stored_config
from latentforge.runs.folder import RunFolder, open_folder
from latentforge.workflows.explore import compute_findings
from latentforge.workflows.load import load_run


def find(
    registry: Registry,
    explorer: str,
    run: RunFolder | Path,
    *,
    roles: Mapping[str, Path] | None = None,
    assignments: Sequence[str] = (),
    preset: str | None = None,
    **options: Any,
) -> Findings:
    """Return the findings of an explorer for the last checkpoint of a run, on its own data."""
    run = open_folder(run)
    config, classes = resolve_stored_config(registry, run), run.manifest["data"]["classes"]
    selected = select_explorer(registry, config, classes, explorer, assignments, options, preset)
    others = open_roles(registry, roles, selected.entries)
    loaded = load_run(run, config, checkpoint="last", roles=others, device="cpu", data=None)
    return compute_findings(loaded, selected, lambda engine: None)
