"""Findings, the results of explorers, and their validation.

`latentforge/rendering/` writes findings to files.
"""

from latentforge.findings.checks import LISTS, RESERVED, checked, is_text
from latentforge.findings.joining import ObjectiveFindingsError, join_findings
from latentforge.findings.kinds import (
    FRAMES,
    Arrays,
    Bars,
    CurveGrid,
    Film,
    Finding,
    Findings,
    Histogram,
    ImageGrid,
    Lines,
    NamedArrays,
    Plane,
    Raw,
    Scatter,
    Table,
)

__all__ = [
    "FRAMES",
    "LISTS",
    "RESERVED",
    "Arrays",
    "Bars",
    "CurveGrid",
    "Film",
    "Finding",
    "Findings",
    "Histogram",
    "ImageGrid",
    "Lines",
    "NamedArrays",
    "ObjectiveFindingsError",
    "Plane",
    "Raw",
    "Scatter",
    "Table",
    "checked",
    "is_text",
    "join_findings",
]
