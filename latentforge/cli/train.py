"""`latentforge train`: trains a model or resumes a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentforge.cli import output
from latentforge.cli.output import Json, Others, Quiet, Sets
from latentforge.errors import UsageError
from latentforge.io.paths import quoted
from latentforge.io.text import counted

if TYPE_CHECKING:
    from latentforge.config.request import Draft
    from latentforge.workflows.run import Run

# Also used by sweep. Values stay strings here: the validation of the whole configuration parses
# them, so that it can report every invalid value at once.
Data = Annotated[str | None, typer.Option(metavar="NAME", help="Dataset.  [default: digits]")]
Loss = Annotated[str | None, typer.Option(metavar="NAME", help="Loss.  [default: the model's]")]
Rate = Annotated[
    str | None,
    typer.Option(metavar="X", help="Learning rate; some models have their own.  [default: 0.001]"),
]
TrainDevice = Annotated[
    str | None, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:N, mps.  [default: auto]")
]
Callbacks = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A callback to enable; repeatable.")
]


def train(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="See `latentforge list models`.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file.")] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="A built-in config.")] = None,
    data: Data = None,
    loss: Loss = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New run folder.  [default: runs/<model>-<data>-<n>]"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Resume a run in its own folder.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", help="The checkpoint to resume.  [default: last]"),
    ] = None,
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
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print the loss's beta in other conventions.")
    ] = False,
) -> None:
    """Train a model or resume a run. Give exactly one of MODEL, --config, --preset and --resume.

    Example: latentforge train ae --data mnist --epochs 10 --set 'model.hidden=[128]'

    Example: latentforge train --resume runs/ae-mnist-1 --epochs 20

    With several processes: torchrun --nproc-per-node 2 -m -- latentforge train ae

    More keys of [train] for --set: optimizer, optimizer_options, weight_decay, schedule.name
    (linear, cosine, exponential, step), schedule.epochs, schedule.warmup_epochs, schedule.end,
    clip_grad_norm, accumulate, ema, monitor, patience, min_delta, threads, log_every,
    evaluate_every, checkpoint_every (steps), checkpoint_seconds, precision (bf16), channels_last,
    cuda_graph, compile; of [data]: validation, test, split_seed, binarize, stream, workers.
    `latentforge config check FILE` prints all keys with their defaults.
    """
    from latentforge.config.request import start_draft
    from latentforge.config.resolve import resolve
    from latentforge.runs.compatibility import (
        build_draft,
        open_training_roles,
        resolve_resumed_config,
    )
    from latentforge.sweeps.folder import check_is_run
    from latentforge.workflows.run import open_run

    registry = output.forge_of(ctx).registry
    roles = output.parse_roles(with_) if with_ else {}
    values = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "device": device}
    if resume is None:
        if from_ is not None:
            raise UsageError("--from requires --resume: a new run does not start from a checkpoint")
        draft = start_draft(registry, model, config, preset)
        apply_options(draft, data, loss, values, callback, set_, roles)
        settings = open_training_roles(registry, resolve(draft, registry))
        from latentforge.workflows.train import train as train_run

        finished = train_run(registry, settings, run=run, quiet=quiet, verbose=verbose)
    else:
        check_is_run(resume)
        resumed = open_run(registry, resume)
        given = (model, config, preset, run)
        if unexpected := [str(argument) for argument in given if argument is not None]:
            raise UsageError(
                f"--resume continues {resumed.path} with its stored options; "
                f"remove {', '.join(unexpected)}",
                hint=f"latentforge train --resume {quoted(resumed.path)}",
            )
        draft = build_draft(resumed)
        apply_options(draft, data, loss, values, callback, set_, roles)
        settings = resolve_resumed_config(registry, resumed, draft)
        from latentforge.workflows.resume import resume as resume_run

        finished = resume_run(resumed, settings, checkpoint=from_ or "last", quiet=quiet)
    result = finished.summary()
    wall = time.monotonic() - ctx.obj.started
    lines = [
        f"{finished.path}: {result['status']}, {counted(result['steps'], 'step')} in "
        f"{result['seconds']:.1f} s ({result['images_per_second']:,.0f} images/s, without start-up "
        f"and evaluation); the command took {wall:.1f} s",
        *output.format_splits(finished),
        *output.format_weights(finished.manifest),
        *format_best(finished.manifest),
        *format_next(finished),
    ]
    output.print_result(result, json, lines)


def apply_options(
    draft: Draft,
    data: str | None,
    loss: str | None,
    values: Mapping[str, str | None],
    callbacks: Sequence[str] | None,
    sets: Sequence[str] | None,
    roles: Mapping[str, str],
) -> None:
    """Apply the command-line options to a request; `values` are options of [train] by key."""
    from latentforge.config.request import toml_value

    if data is not None:
        draft.select("data", data, "--data")
    if loss is not None:
        draft.select("loss", loss, "--loss")
    for key, text in values.items():
        if text is not None:
            draft.put("train", key, toml_value(text), f"--{key.replace('_', '-')}")
    for name in callbacks or ():
        draft.enable_callback(name)
    for role, run in roles.items():
        draft.put("roles", role, run, f"--with {role}={run}")
    draft.assign_all(sets or ())


def format_next(run: Run) -> list[str]:
    """Return the commands that a user is likely to want after the training of `run`."""
    from latentforge.workflows.explore import suggest_explorer

    path, explorer = run.path, suggest_explorer(run, run.registry)
    return [
        *([f"explore: latentforge explore {explorer} {quoted(path)}"] if explorer else []),
        f"check: latentforge doctor {quoted(path)}",
        f"report: latentforge report {quoted(path)}",
        f"watch: tensorboard --logdir {quoted(path)}",
    ]


def format_best(manifest: dict[str, Any]) -> list[str]:
    """Return a line that names the best epoch if the metrics are from a later one."""
    epoch = manifest["best"].get("epoch", manifest["epochs"])
    if epoch == manifest["epochs"]:
        return []
    return [f"these metrics are from the last epoch; --checkpoint best uses epoch {epoch}"]
