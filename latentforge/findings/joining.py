"""Joins the findings of an objective and those of the explorer that searches for its requests."""

from __future__ import annotations

from latentforge.findings.kinds import Findings


class ObjectiveFindingsError(ValueError):
    """The findings of an objective cannot be joined with those of an explorer. The core reports it
    as an error of the objective."""


def join_findings(objective: Findings, explorer: Findings) -> Findings:
    """Return the findings of an objective, from `objective.findings(x)`, followed by those of the
    explorer that used it. Roles of findings are kept.

    Raises ObjectiveFindingsError, which an explorer should not catch, if both have a finding or a
    metric of the same name, or if the objective returned something else.
    """
    if not isinstance(objective, Findings):
        what = type(objective).__name__
        raise ObjectiveFindingsError(f"findings(x) returned {what}, not Findings")
    own = {item.name for item in explorer.items}
    clashes = [f"finding {item.name!r}" for item in objective.items if item.name in own]
    clashes += [f"metric {name!r}" for name in objective.metrics if name in explorer.metrics]
    if clashes:
        raise ObjectiveFindingsError(
            f"findings(x) returned {', '.join(clashes)}, which the explorer returns itself"
        )
    return Findings(
        [*objective.items, *explorer.items],
        {**objective.metrics, **explorer.metrics},
        "; ".join(text for text in (objective.protocol, explorer.protocol) if text),
        [*objective.notes, *explorer.notes],
        {**objective.roles, **explorer.roles},
    )
