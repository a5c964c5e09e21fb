"""`latentforge sweep`: trains or resumes a grid or a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentforge.cli.output import Json, Quiet, Sets, answer, forge_of, table
from latentforge.cli.train import Callbacks, Data, Loss, Rate, TrainDevice, fill
from latentforge.errors import RunFailed, UsageError

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
            metavar="KEY=[A,B]", help="The values of a key; repeatable for all combinations."
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(metavar="N", help="Instead of a grid: N trials, chosen by Optuna."),
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
            help="Train members that differ only in numbers as one model.  [default: together]",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Members to train at the same time, in processes.  [default: 1]",
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
    set_: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one run for each combination of a grid's values, or for each trial of a search; the
    other options are those of train.

    Example: latentforge sweep vae --loss beta-elbo --grid 'loss.beta=[1, 2, 4]'

    Example: latentforge sweep vae --search 20 --space 'train.lr=log(1e-4, 1e-2)'

    Example: latentforge sweep --resume runs/sweep-vae-digits-1 --retry

    Each member is a run folder inside the sweep folder, for evaluate, explore, report and train
    --resume. If a member fails, the others continue, and the exit code is 1.
    """
    forge = forge_of(ctx)
    values = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "device": device}
    if resume is not None:
        if given := of_a_new_sweep(ctx):
            raise UsageError(
                f"--resume continues {resume} with its stored options; remove {', '.join(given)}",
                remedy=f"latentforge sweep --resume {resume}",
            )
        made = forge.resume_sweep(resume, retry=retry, jobs=jobs, storage=storage, quiet=quiet)
    else:
        from latentforge.config.request import start_draft
        from latentforge.sweeps.grid import read_grid
        from latentforge.sweeps.search_space import read_texts
        from latentforge.sweeps.start import start_sweep

        if search is not None and together:
            raise UsageError(
                "--together is for a grid: each trial of a search depends on earlier ones"
            )
        if retry:
            raise UsageError("--retry is for --resume: a new sweep has no members that failed")
        draft = start_draft(forge.registry, model, config, preset)
        fill(draft, data, loss, values, callback, set_)
        made = start_sweep(
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
    result, failed = made.summary(), made.failed
    if not (json and failed):  # else the error prints the one JSON object
        answer(result, json, [*comparison(made), *places(made)])
    if failed:
        error = RunFailed(
            f"{len(failed)} of {len(made.members)} members failed",
            details=[f"{name}: {in_short(why)}" for name, why in failed.items()],
            remedy=f"{made.resume_command} --retry",
        )
        error.result = {**result, "status": "failed"}
        raise error


def of_a_new_sweep(ctx: typer.Context) -> list[str]:
    """The given options that --resume does not accept, by name."""
    return [
        "/".join([*param.opts, *param.secondary_opts]) if param.opts[0].startswith("-") else "MODEL"
        for param in ctx.command.params
        if param.name not in WITH_RESUME and ctx.params[str(param.name)] not in (None, [], ())
    ]


def in_short(error: str) -> str:
    """The first line of a member's error, and its hints."""
    first, *others = error.splitlines()
    return "; ".join([first, *(line.strip() for line in others if line.startswith("  try: "))])


def places(made: Sweep) -> list[str]:
    count = len(made.members)
    lines = [f"{made.path}: {made.status}, {count} member{'s' * (count != 1)}"]
    if made.best:
        lines.append(f"best by {made.search['objective']}: {made.path / made.best}")
    over_all = made.record.get("best_of_all")
    if over_all and not over_all["here"]:
        value = f"{over_all['value']:.5g}"
        lines.append(f"best of all folders: trial {over_all['trial']} of another folder, {value}")
    lines += [f"report: {made.record['report']}"] if made.record["report"] else []
    return [*lines, f"watch: tensorboard --logdir {made.path}"]


def comparison(made: Sweep) -> list[str]:
    """A table of the members' metrics, with the best of each marked; names contain the values."""
    from latentforge.sweeps.comparison import compare

    found = compare(made)
    if not found.members:
        return [
            "the search has all its trials; for more, use a larger --search with the same storage"
        ]
    rows = [["MEMBER", "STATUS", *found.metrics]]
    for member in found.members:
        values = {name: found.value(member, name) for name in found.metrics}
        shown = [
            "-" if value is None else f"{value:.5g}{'*' * (member['name'] == found.best[name])}"
            for name, value in values.items()
        ]
        rows.append([member["name"], member["status"], *shown])
    said = f"{found.split} metrics; * marks the best of a column"
    return [*table(rows), said if found.metrics else ""]
