"""`latentforge plugins`: which there are and what is wrong with them. No torch, no numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentforge.cli.output import Globals, Json, answer, table
from latentforge.specs import KINDS

if TYPE_CHECKING:
    from latentforge.registry import Plugin, Registry

app = typer.Typer(help="List and inspect plugins.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_plugins(ctx: typer.Context, json: Json = False) -> None:
    """List plugins with their distribution, version and status.

    Example: latentforge plugins list
    """
    registry = _registry(ctx)
    found = [_facts(registry, plugin) for plugin in registry.plugins]
    rows = [
        [str(f[key]) for key in ("name", "distribution", "version", "status")] + [_offer(f)]
        for f in found
    ]
    problems = [f"  {problem}" for problem in registry.problems]
    lines = table([["NAME", "DISTRIBUTION", "VERSION", "STATUS", "OFFERS"], *rows])
    answer({"plugins": found}, json, [*lines, *(["problems:", *problems] if problems else [])])


@app.command("show")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name from `latentforge plugins list`.")],
    json: Json = False,
) -> None:
    """Show one plugin: where it comes from, what it offers, what is wrong with it.

    Example: latentforge plugins show autoencoder
    """
    registry = _registry(ctx)
    plugin = registry.plugin(name)
    facts = _facts(registry, plugin)
    keys = ("name", "distribution", "version", "module", "status")
    rows = [[f"{key}:", str(facts[key])] for key in keys]
    lines = table([*rows, ["offers:", _offer(facts)]])
    answer(facts, json, [*lines, *(f"problem: {problem}" for problem in plugin.problems)])


def _registry(ctx: typer.Context) -> Registry:
    """The registry, without its warnings: these commands show the problems."""
    given: Globals = ctx.obj
    return given.forge(warn=False).registry


def _facts(registry: Registry, plugin: Plugin) -> dict[str, Any]:
    offers = {
        kind: [e.name for e in registry.entries(kind) if e.plugin is plugin] for kind in KINDS
    }
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "status": plugin.status,
        "seconds": round(plugin.seconds, 4),
        "offers": {kind: names for kind, names in offers.items() if names},
        "problems": [problem.as_dict() for problem in plugin.problems],
    }


def _offer(facts: dict[str, Any]) -> str:
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in facts["offers"].items())
