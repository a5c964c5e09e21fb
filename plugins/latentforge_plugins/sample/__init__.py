"""`sample`: decode codes drawn from the prior, from fitted densities, or from real codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import SampleConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: SampleConfig) -> Findings:
    from .draw import sample

    return sample(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="sample",
        summary="Decode random codes: prior, fitted Gaussian or mixture, aggregate posterior",
        explore=explore,
        config=SampleConfig,
        needs={"encode", "decode"},
        optional_roles={"classifier": {"classify"}},
    )
