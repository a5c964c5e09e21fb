"""All checks of whole plugins, as values: what `latentforge plugins check` prints."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from latentforge.conformance import CHECKED, Check, CheckFailed, CheckSkipped, checks_of
from latentforge.errors import LatentForgeError, one_line, place_in
from latentforge.guard import home_of
from latentforge.registry import Entry, Plugin
from latentforge.specs import KINDS

if TYPE_CHECKING:
    from latentforge.forge import Forge


@dataclass(frozen=True)
class Result:
    """What became of one check; `component` is empty where it is of the plugin as a whole."""

    plugin: str
    component: str
    check: str
    status: Literal["passed", "failed", "skipped"]
    saw: str = ""
    mend: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @property
    def of(self) -> str:
        return self.component or f"plugin {self.plugin}"


def review(
    forge: Forge, plugins: Sequence[Plugin], *, deep: bool, told: Callable[[Result], None]
) -> list[Result]:
    """The results of all checks of these plugins; `told` hears each as it comes.

    Not `deep`, they are those that need neither torch nor a training: whether the plugin loads, its
    hook module is light, and options and presets are right.
    """
    results = []
    for result in _results(forge, plugins, deep):
        results.append(result)
        told(result)
    return results


def _results(forge: Forge, plugins: Sequence[Plugin], deep: bool) -> Iterator[Result]:
    for plugin in plugins:
        for problem in plugin.problems:
            saw = f"{problem.stage}: {problem.cause}"
            yield Result(plugin.name, "", "it loads", "failed", saw, problem.remedy)
        if plugin.status == "disabled":
            yield Result(plugin.name, "", "it loads", "skipped", f"switched off by {plugin.off_by}")
        elif not plugin.problems:
            yield Result(plugin.name, "", "it loads", "passed")
        for kind in KINDS:
            for entry in forge.registry.entries(kind):
                if entry.plugin is plugin:
                    yield from _of_component(forge, entry, deep)


def _of_component(forge: Forge, entry: Entry, deep: bool) -> Iterator[Result]:
    if entry.kind.plural == "presets":
        yield _result(entry, "it can be trained or explored", lambda: _resolves(forge, entry))
        return
    for check in _checks(forge, entry, deep):
        yield _result(entry, check.name, check)


def _checks(forge: Forge, entry: Entry, deep: bool) -> list[Check]:
    if deep and entry.kind.plural in CHECKED:
        return checks_of(entry.kind.plural, entry.reference, forge=forge)
    from latentforge.conformance import name_of
    from latentforge.conformance.common import CHECKS
    from latentforge.conformance.subject import Subject

    subject = Subject(entry.kind.plural, entry.reference, {}, (), forge)
    return [Check(name_of(function), function, (subject,)) for function in CHECKS]


def _result(entry: Entry, name: str, check: Callable[[], None]) -> Result:
    about = (entry.plugin.name, f"{entry.kind.singular} {entry.name}", name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check()
    except CheckSkipped as why:
        return Result(*about, "skipped", str(why))
    except CheckFailed as failed:
        return Result(*about, "failed", failed.saw, failed.mend)
    except LatentForgeError as error:
        return Result(*about, "failed", error.message, error.remedy or "see docs/contracts.md")
    except (Exception, SystemExit) as error:
        place = place_in(error, home_of(entry.plugin.module))
        return Result(*about, "failed", one_line(error) + place, "mend what raises")
    return Result(*about, "passed")


def _resolves(forge: Forge, entry: Entry) -> None:
    """Whether a preset's file is one that today's components understand."""
    from latentforge.config import resolve
    from latentforge.drafting import read_toml

    told: dict[str, Any] = read_toml(entry.spec.path)
    if "explore" in told:
        forge.registry.get("explorers", str(told["explore"].get("name")))
        return
    resolve(forge.start_draft(None, None, entry.reference), forge.registry)
