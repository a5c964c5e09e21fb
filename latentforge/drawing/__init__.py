"""Findings to files: PNG by matplotlib, arrays as .npz, figures as JSON. One look for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentforge.drawing.png import draw_grid
from latentforge.findings import Arrays, Finding, Findings, ImageGrid
from latentforge.run import finite


def write_findings(findings: Findings, folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write every finding into `folder`, and `findings.json` with the figures and `about`.

    Raises OSError when the folder cannot be written.
    """
    note = f"{about['run']}, {about['checkpoint']}"
    files = [write_finding(item, folder, note) for item in findings.items]
    summary = folder / "findings.json"
    figures = {"metrics": dict(findings.metrics), "protocol": findings.protocol}
    content = {**about, **figures, "files": [file.name for file in files]}
    summary.write_text(json.dumps(finite(content), indent=2) + "\n", "utf-8")
    return [*files, summary]


def write_finding(item: Finding, folder: Path, note: str) -> Path:
    if isinstance(item, ImageGrid):
        path = folder / f"{item.name}.png"
        draw_grid(item, note).savefig(path)
        return path
    assert isinstance(item, Arrays)
    import numpy as np

    path = folder / f"{item.name}.npz"
    arrays: dict[str, Any] = {k: v.detach().cpu().numpy() for k, v in item.arrays.items()}
    np.savez_compressed(path, **arrays)
    return path
