"""Runs all checks of whole plugins and yields results for `latentforge plugins check`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from latentforge.config.request import read_toml, start_draft
from latentforge.config.resolve import resolve
from latentforge.config.selection import select_explorer
from latentforge.conformance import (
    Check,
    CheckFailed,
    CheckSkipped,
    NotChecked,
    check_name,
    checks_of,
)
from latentforge.conformance.common import checks_for
from latentforge.conformance.inputs import Inputs
from latentforge.conformance.subject import Subject, describe, require
from latentforge.errors import LatentForgeError, one_line, place_in
from latentforge.plugins import commands as plugin_commands
from latentforge.plugins.attribution import code_package
from latentforge.plugins.registry import SLOW, Entry, Plugin, Registry
from latentforge.specs import KINDS, ModelSpec

if TYPE_CHECKING:
    from latentforge.forge import Forge
    from latentforge.plugins.commands import PluginCommand


Status = Literal["passed", "failed", "skipped", "not checked"]


@dataclass(frozen=True)
class Result:
    """The result of one check. `component` is empty for a check of the plugin as a whole."""

    plugin: str
    component: str
    check: str
    status: Status
    saw: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        values = asdict(self)
        values["mend"] = values.pop("hint")
        return values

    @property
    def title(self) -> str:
        return self.component or f"plugin {self.plugin}"


def review(
    forge: Forge,
    plugins: Sequence[Plugin],
    *,
    deep: bool,
    reserved: Set[str],
    inputs: Inputs | None = None,
) -> Iterator[Result]:
    """Yield the result of each check of these plugins as soon as it is known. `reserved` are the
    names of LatentForge's own commands. `inputs` are the options and the data of the checks.

    Without `deep`, checks that need torch or training are omitted. The others check that the
    plugin loads, its hook module has no heavy imports, and its options and presets are valid. With
    `deep`, a component of which nothing could be tried has a last result with the status "not
    checked".
    """
    forge, inputs = _without_observers(forge), inputs or Inputs()
    data = forge.load_data(inputs.data, inputs.data_options) if inputs.data and deep else None
    commands = list(plugin_commands.commands().values())
    for plugin in plugins:
        for problem in plugin.problems:
            saw = f"{problem.stage}: {problem.cause}"
            yield Result(plugin.name, "", "it loads", "failed", saw, problem.remedy)
        if plugin.status == "disabled":
            saw = f"disabled by {plugin.off_by}"
            yield Result(plugin.name, "", "it loads", "not checked", saw)
            continue
        if not plugin.problems:
            yield Result(plugin.name, "", "it loads", "passed")
            saw = f"its import adds {plugin.seconds:.1f} s to most commands"
            fast = partial(require, plugin.seconds <= SLOW, saw, "move slow imports into `build`")
            yield _result(plugin, "", "it loads quickly", fast)
        for entry in forge.registry.entries_of(plugin):
            yield from _review_component(forge, entry, deep, inputs, data)
        for command in commands:
            if plugin.distribution and plugin.distribution == command.distribution:
                about, check = f"command {command.name}", partial(_check_command, command, reserved)
                yield _result(plugin, about, "it can be called", check)


def _review_component(
    forge: Forge, entry: Entry, deep: bool, inputs: Inputs, data: Any
) -> Iterator[Result]:
    about = f"{entry.kind.singular} {entry.name}"
    if entry.kind.plural == "presets":
        check_preset = partial(_check_preset, forge, entry)
        yield _result(entry.plugin, about, "it can be trained or explored", check_preset)
        return
    if deep:
        checks = checks_of(
            entry.kind.plural,
            entry.reference,
            forge=forge,
            options=inputs.options.get((entry.kind.plural, entry.reference)),
            other_options=inputs.options,
            shape=inputs.shape,
            data=data,
            roles=inputs.roles,
        )
    else:
        subject = Subject(entry.kind.plural, entry.reference, user_forge=forge)
        checks = [Check(check_name(f), f, (subject,)) for f in checks_for(subject.kind)]
    results = []
    for check in checks:
        results.append(_result(entry.plugin, about, check.name, check))
        yield results[-1]
    kind_results = results[len(checks_for(entry.kind.plural)) :]  # only the checks of its kind
    if kind_results and not {r.status for r in kind_results} & {"passed", "failed"}:
        saw = f"nothing could be tried: {kind_results[0].saw}"
        yield Result(entry.plugin.name, about, "it can be checked", "not checked", saw)


def _result(plugin: Plugin, component: str, name: str, check: Callable[[], None]) -> Result:
    about = (plugin.name, component, name)
    try:
        with _suppress_output():
            check()
    except NotChecked as why:
        return Result(*about, "not checked", str(why))
    except CheckSkipped as why:
        return Result(*about, "skipped", str(why))
    except CheckFailed as failed:
        return Result(*about, "failed", failed.saw, failed.hint)
    except LatentForgeError as error:
        return Result(*about, "failed", describe(error), error.hint or "see docs/contracts.md")
    except KeyboardInterrupt:
        raise  # Ctrl-C
    except BaseException as error:  # also SystemExit
        location = place_in(error, code_package(plugin.module))
        return Result(*about, "failed", one_line(error) + location, "fix the exception")
    return Result(*about, "passed")


@contextmanager
def _suppress_output() -> Iterator[None]:
    """Suppress the output of tiny runs and components, so that only the results are visible."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _check_command(command: PluginCommand, reserved: Set[str]) -> None:
    saw = f"LatentForge has its own command {command.name!r}, so this one is never called"
    hint = "give it another name in [project.entry-points]"
    require(command.name not in reserved, saw, hint)
    command.load()


def _check_preset(forge: Forge, entry: Entry) -> None:
    """Raise an error unless the current components accept the file of a preset."""
    values: dict[str, Any] = read_toml(entry.spec.path)
    if "explore" not in values:
        resolve(start_draft(forge.registry, None, None, entry.reference), forge.registry)
        return
    explorer = forge.registry.get("explorers", str(values["explore"].get("name")))
    # a substitute for any run that provides what the explorer needs
    spec = ModelSpec(
        name="any", summary="", build=_no_build, provides=explorer.spec.needs, default_loss="any"
    )
    model = Entry(KINDS["models"], spec, entry.plugin)
    config: Any = SimpleNamespace(model=SimpleNamespace(entry=model))
    select_explorer(forge.registry, config, ["any"], explorer.reference, (), {}, entry.reference)


def _no_build(config: Any, data: Any) -> Any:
    """The build of a substitute that is never built."""
    raise NotImplementedError


def _without_observers(forge: Forge) -> Forge:
    """Return a copy without observers, so that no plugin is notified of the tiny runs."""
    forge = copy(forge)
    forge.registry = Registry(forge.registry.plugins, forge.registry.components)
    return forge
