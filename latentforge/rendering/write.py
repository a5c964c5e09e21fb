"""Writes findings to files: PNG, GIF, HTML, CSV, .npz, TensorBoard, and JSON to read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from latentforge.findings import Findings
from latentforge.rendering.files import write_finding
from latentforge.rendering.findings_store import write_summary
from latentforge.rendering.tensorboard_projector import projector_notes, write_projector


def write_findings(findings: Findings, folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write every finding into `folder`, findings.json with the figures and `about`, and what
    TensorBoard shows of it; the files, without those for TensorBoard.

    Raises OSError when the folder cannot be written.
    """
    from latentforge.rendering.tensorboard import write_board  # tensorboard takes half a second

    findings = noted(findings)
    files = [
        write_finding(item, folder, source(about, findings.roles.get(item.name, "")))
        for item in findings.items
    ]
    write_projector(findings, folder)
    write_board(findings, files, folder, str(about.get("explorer", folder.name)))
    summary = write_summary(folder, about, findings, files)
    return [*(file for own in files for file in own), summary]


def source(about: dict[str, Any], role: str = "") -> str:
    """The run and the checkpoint that a finding shows, its own or another one's."""
    if role not in about.get("roles", {}):
        return f"{about['run']}, {about['checkpoint']}"
    checkpoint = about.get("role_checkpoints", {}).get(role)
    return f"{about['roles'][role]}, {checkpoint}" if checkpoint else str(about["roles"][role])


def noted(findings: Findings) -> Findings:
    """The findings with a note on all that TensorBoard cannot show, once."""
    more = [note for note in projector_notes(findings.items) if note not in findings.notes]
    return replace(findings, notes=[*findings.notes, *more])
