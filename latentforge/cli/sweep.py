"""`latentforge sweep`: trains or resumes a grid or a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentforge.cli.output import (
    Json,
    Others,
    Quiet,
    Sets,
    forge_of,
    parse_roles,
    print_result,
    table,
)
from latentforge.cli.train import Callbacks, Data, Loss, Rate, TrainDevice, apply_options
from latentforge.errors import RunFailed, UsageError
from latentforge.io.paths import quoted
from latentforge.io.text import counted

if TYPE_CHECKING:
    from latentforge.sweeps.folder import Sweep

WITH_RESUME = ("resume", "retry", "jobs", "storage", "json", "quiet")


def sweep(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="See `latentforge list models`.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file.")] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="A built-in config.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=[A,B]", help="The values of a key; repeat it to combine several keys."
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(metavar="N", help="Instead of a grid: search with N trials of Optuna."),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="What --search varies: log(A, B), uniform(A, B), int(A, B) or [A, B]; repeatable.",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC", help="Validation metric for --search.  [default: train.monitor]"
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Optuna storage, to share a search.  [default: a file in the folder]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="New sweep folder.  [default: runs/sweep-<model>-<data>-<n>]"
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Resume a sweep in its own folder.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: also train failed members again.")
    ] = False,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--no-together",
            help="Train members that differ only in numeric options as one model.  "
            "[default: together]",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of processes that train members in parallel.  [default: 1]",
        ),
    ] = None,
    data: Data = None,
    loss: Loss = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="[default: 10]")] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="N", help="[default: 64]")] = None,
    lr: Rate = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="[default: 0]")] = None,
    device: TrainDevice = None,
    callback: Callbacks = None,
    with_: Others = None,
    set_: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a run for each combination of values, or trial.

    Values come from --grid, and trials from --search. All other options are the same as for train.

    Example: latentforge sweep vae --loss beta-elbo --grid 'loss.beta=[1, 2, 4]'

    Example: latentforge sweep vae --search 20 --space 'train.lr=log(1e-4, 1e-2)'

    Example: latentforge sweep --resume runs/sweep-vae-digits-1 --retry

    Each member is a run folder inside the sweep folder, which evaluate, explore, report and train
    --resume accept. If a member fails, the others continue, and the exit code is 1.
    """
    forge = forge_of(ctx)
    values = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "device": device}
    if resume is not None:
        if unexpected := find_new_sweep_options(ctx):
            raise UsageError(
                f"--resume continues {resume} with its stored options; "
                f"remove {', '.join(unexpected)}",
                hint=f"latentforge sweep --resume {quoted(resume)}",
            )
        finished = forge.resume_sweep(resume, retry=retry, jobs=jobs, storage=storage, quiet=quiet)
    else:
        from latentforge.config.request import start_draft
        from latentforge.sweeps.grid import read_grid
        from latentforge.sweeps.search_space import read_texts
        from latentforge.sweeps.start import start_sweep

        if search is not None and together:
            raise UsageError(
                "--together requires a grid: each trial of a search depends on earlier ones"
            )
        if retry:
            raise UsageError("--retry requires --resume: a new sweep has no failed members")
        draft = start_draft(forge.registry, model, config, preset)
        apply_options(draft, data, loss, values, callback, set_, parse_roles(with_))
        finished = start_sweep(
            forge.registry,
            draft,
            read_grid(grid or ()),
            search=search,
            space=read_texts(space or ()),
            objective=objective,
            storage=storage,
            together=together is not False,
            jobs=jobs or 1,
            out=out,
            quiet=quiet,
        )
    result, failed = finished.summary(), finished.failed
    if not (json and failed):  # else the error prints the one JSON object
        print_result(result, json, [*format_comparison(finished), *format_paths(finished)])
    if failed:
        error = RunFailed(
            f"{len(failed)} of {counted(len(finished.members), 'member')} failed",
            details=[f"{name}: {shorten(message)}" for name, message in failed.items()],
            hint=f"{finished.resume_command} --retry",
        )
        error.result = {**result, "status": "failed"}
        raise error


def find_new_sweep_options(ctx: typer.Context) -> list[str]:
    """The names of the given options that --resume does not accept."""
    return [
        "/".join([*param.opts, *param.secondary_opts]) if param.opts[0].startswith("-") else "MODEL"
        for param in ctx.command.params
        if param.name not in WITH_RESUME and ctx.params[str(param.name)] not in (None, [], ())
    ]


def shorten(error: str) -> str:
    """Shorten a member's error to its first line and its hints."""
    first, *others = error.splitlines()
    return "; ".join([first, *(line.strip() for line in others if line.startswith("  try: "))])


def format_paths(sweep: Sweep) -> list[str]:
    lines = [f"{sweep.path}: {sweep.status}, {counted(len(sweep.members), 'member')}"]
    if sweep.best:
        lines.append(f"best by {sweep.search['objective']}: {sweep.path / sweep.best}")
    over_all = sweep.record.get("best_of_all")
    if over_all and not over_all["here"]:
        value = f"{over_all['value']:.5g}"
        lines.append(f"best of the search: trial {over_all['trial']} in another folder, {value}")
    lines += [f"report: {sweep.record['report']}"] if sweep.record["report"] else []
    return [*lines, f"watch: tensorboard --logdir {sweep.path}"]


def format_comparison(sweep: Sweep) -> list[str]:
    """A table of the members' metrics with the best value of each metric marked. The member names
    show the swept values."""
    from latentforge.sweeps.comparison import compare

    compared = compare(sweep)
    if not compared.members:
        return [
            "the search has all its trials; for more, use a larger --search with the same storage"
        ]
    rows = [["MEMBER", "STATUS", *compared.metrics]]
    for member in compared.members:
        values = {name: compared.value(member, name) for name in compared.metrics}
        shown = [
            "-" if value is None else f"{value:.5g}{'*' * (member['name'] == compared.best[name])}"
            for name, value in values.items()
        ]
        rows.append([member["name"], member["status"], *shown])
    note = f"{compared.split} metrics; * marks the best value of a column"
    return [*table(rows), note if compared.metrics else ""]
