"""The command line: a thin layer over Forge. Commands import heavy modules inside functions."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress
from functools import cache
from traceback import walk_tb
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from latentforge._version import __version__
from latentforge.cli import (
    config,
    data,
    decode,
    demo,
    doctor,
    encode,
    evaluate,
    explore,
    export,
    plugins,
    report,
    sweep,
    train,
)
from latentforge.cli import list as list_command
from latentforge.cli.mistakes import ExploreCommand, TrainCommand
from latentforge.cli.output import Globals, print_json, show_warnings
from latentforge.errors import (
    Interrupted,
    LatentForgeError,
    LostProcess,
    RunFailed,
    UsageError,
    one_line,
)
from latentforge.plugins import commands
from latentforge.plugins.running import running
from latentforge.runtime import torchrun
from latentforge.runtime.shell import in_shell
from latentforge.runtime.stdout import (
    discard_stdout,
    escape_controls,
    flush_stdout,
    reserve_stdout,
    stdout_error,
)


class Root(TyperGroup):
    """Raises Interrupted on Ctrl-C, which Typer would turn into exit code 1, and includes the
    commands of plugins. A plugin's command is imported only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [*super().list_commands(ctx), *commands.commands(disabled_plugins(ctx))]
        return list(dict.fromkeys(names))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        built_in = super().get_command(ctx, cmd_name)
        return built_in or commands.commands(disabled_plugins(ctx)).get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


def disabled_plugins(ctx: Any) -> tuple[str, ...]:
    """The names of the plugins that `-p no:NAME` disables."""
    return tuple(Globals.of(ctx.params.get("plugin")).off)


# Plain help: rich would import 220 modules and slow down start-up.
app = typer.Typer(
    cls=Root,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"latentforge {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--plugin",
            metavar="PLUGIN",
            is_eager=True,  # --help is eager and lists plugin commands
            help="Also load ./file.py or package.module; no:NAME disables a plugin.",
        ),
    ] = None,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="Exit with code 3 if any plugin has a fault.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train models, and explore, steer and measure their latent spaces.

    Start with `latentforge demo`, then `latentforge train ae`. LATENTFORGE_PLUGINS=a,b loads only
    those plugins; LATENTFORGE_DATA is the folder of datasets; LATENTFORGE_DEBUG=1 shows tracebacks.
    """
    if ctx.invoked_subcommand != "train":
        torchrun.reject(f"{ctx.invoked_subcommand}", f"latentforge {ctx.invoked_subcommand}")
    show_warnings()
    options = ctx.obj = Globals.of(plugin, strict_plugins, started=ctx.obj)
    ctx.with_resource(running(lambda: options.forge(warn=False).registry))
    if strict_plugins and ctx.invoked_subcommand != "plugins":  # `plugins` lists faults itself
        ctx.obj.forge()


app.command("train", cls=TrainCommand)(train.train)
app.command("sweep", cls=TrainCommand)(sweep.sweep)
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)
app.command("explore", cls=ExploreCommand)(explore.explore)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("encode")(encode.encode)
app.command("decode")(decode.decode)
app.command("runs")(list_command.runs)
app.command("list")(list_command.list_components)
app.command("show")(list_command.show)
app.add_typer(plugins.app, name="plugins")
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.command("demo")(demo.demo)


@cache
def root_command() -> Any:
    """The command tree. Typer takes 30 ms to build it, so a process builds it once."""
    return typer.main.get_command(app)


def run(arguments: list[str], started: float | None = None) -> int:
    """Run a command line and return its exit code; no traceback reaches the user. `started` is when
    the process started, on the clock `time.monotonic`."""
    started = time.monotonic() if started is None else started
    commands.commands.cache_clear()  # the installed packages may have changed since an earlier call
    try:
        try:
            with reserve_stdout(arguments), in_shell():
                root_command()(arguments, prog_name="latentforge", obj=started)
        finally:
            flush_stdout()  # now, because at exit a closed pipe would not be handled
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):  # a plugin's command called sys.exit(text)
            print(stop.code, file=sys.stderr)
        if code == 2 and "--json" in arguments:  # Typer has printed the reason to stderr
            _print_failure(UsageError("the command line is invalid; see stderr"))
        return code
    except BrokenPipeError:  # `latentforge list | head`
        discard_stdout()
        return 1
    except LatentForgeError as error:
        return _report(error, arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, OSError) and module_that_raised(error).startswith("typer."):
            return _report(stdout_error(error), arguments)  # Typer writes the help
        from latentforge.plugins.attribution import is_lack_of_memory, memory_error

        if is_lack_of_memory(error):
            hint = "a smaller --batch-size, smaller images or --set data.stream=always"
            return _report(memory_error(error, " ".join(arguments[:1]), hint), arguments)
        wrapped = LatentForgeError(
            f"an error in LatentForge itself: {one_line(error)}",
            hint="LATENTFORGE_DEBUG=1 shows the traceback; please report it",
        )
        wrapped.__cause__ = error
        return _report(wrapped, arguments)
    return 0


def module_that_raised(error: BaseException) -> str:
    """The name of the module of the innermost frame in the traceback."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return str(names[-1])


def _report(error: LatentForgeError, arguments: list[str]) -> int:
    if torchrun.is_distributed() and not isinstance(error, LostProcess):
        if isinstance(error, Interrupted) and torchrun.rank():
            return error.exit_code
        torchrun.defer_to_first_process()
    if os.environ.get("LATENTFORGE_DEBUG"):
        traceback.print_exception(error)
    print(f"error: {escape_controls(str(error))}", file=sys.stderr)
    if "--json" in arguments:
        _print_failure(error)
    return error.exit_code


def _print_failure(error: LatentForgeError) -> None:
    details = {"error": error.message, "details": list(error.details), "remedy": error.hint}
    result = {"status": "failed", "id": error.id, **details}
    # if stdout itself fails, the exit code and stderr say so
    with suppress(RunFailed, BrokenPipeError):
        print_json({**result, **error.result, "exit_code": error.exit_code})
