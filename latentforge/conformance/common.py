"""Contract checks for every component: valid and described options, known capabilities, and a hook
module without heavy imports."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Set
from itertools import chain
from pathlib import Path
from typing import Any

from latentforge.conformance.capabilities import CORE_CAPABILITIES, needs_of, roles_of
from latentforge.conformance.subject import CheckSkipped, Subject, require
from latentforge.errors import did_you_mean
from latentforge.plugins.loading import HEAVY
from latentforge.plugins.registry import Entry
from latentforge.specs import KINDS, ModelSpec


def the_hook_module_imports_nothing_heavy(subject: Subject) -> None:
    heavy = heavy_imports_of(subject)
    saw = f"loading plugin {subject.entry.plugin.name} imports {', '.join(heavy)}"
    hint = "move the import into `build`, or under `if TYPE_CHECKING:` if only annotations need it"
    require(not heavy, saw, hint)


def every_option_has_a_valid_default(subject: Subject) -> None:
    from latentforge.config.validation import find_default_faults

    wrong = [fault for config in configs_of(subject) for fault in find_default_faults(config)]
    require(not wrong, "; ".join(wrong), "fix the default or the type of the option")


def every_option_is_described(subject: Subject) -> None:
    """Options are described in the docstring of the config dataclass, which `latentforge show`
    prints, or in the docstring of a base class."""
    for config in configs_of(subject):
        classes: tuple[type, ...] = config.__mro__
        docs = [(c.__name__, c.__doc__ or "") for c in classes if dataclasses.is_dataclass(c)]
        # a generated docstring starts with the signature of the class
        text = " ".join(doc for name, doc in docs if not doc.startswith(f"{name}("))
        names = [field.name for field in dataclasses.fields(config)]
        missing = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)]
        saw = f"the docstring of {config.__name__} does not mention {', '.join(missing)}"
        hint = "name each option there in `backticks`, with its unit and what it does"
        require(not missing, saw, hint)


def every_capability_is_known(subject: Subject) -> None:
    """A capability must be known to the core, or be provided or needed by another component. One
    that only this model provides may be meant for components that are not installed, unless its
    name looks like a misspelling."""
    entries = subject.forge.registry.components
    others = [capabilities_of(entry) for entry in entries if entry is not subject.entry]
    known = {*CORE_CAPABILITIES, *chain(*chain(*others))}
    provided, needed = capabilities_of(subject.entry)
    for name in sorted((provided | needed) - known):
        close = did_you_mean(name, known)
        saw = f"no installed component knows the capability {name!r}"
        saw += f"; {close}" if close else ""
        hint = "docs/contracts.md lists the capabilities; a new one must be provided by a model"
        require(not close and name not in needed, saw, hint)
    models = [entry.provides for entry in subject.forge.registry.entries("models")]
    hint = "fix `needs` or `roles`, or install the plugin that provides such a model"
    for needs in (needs_of(subject), *roles_of(subject).values()):
        saw = f"no installed model provides all of {', '.join(sorted(needs))}"
        require(any(needs <= provides for provides in models), saw, hint)


CHECKS = (
    the_hook_module_imports_nothing_heavy,
    every_option_has_a_valid_default,
    every_option_is_described,
)


def checks_for(kind: str) -> tuple[Any, ...]:
    """Return the checks of this module that apply to a kind ("models")."""
    names = {field.name for field in dataclasses.fields(KINDS[kind].spec)}
    extra = [every_capability_is_known] if names & {"provides", "needs", "roles"} else []
    return (*CHECKS, *extra)


def configs_of(subject: Subject) -> list[Any]:
    """The classes of options of a component: its config and, of a model, its inference options."""
    spec = subject.entry.spec
    return [cls for cls in (spec.config, getattr(spec, "inference", None)) if cls is not None]


def capabilities_of(entry: Entry) -> tuple[Set[str], Set[str]]:
    """The capabilities that a component provides, and the ones that it or its roles need."""
    spec = entry.spec
    needs: Any = getattr(spec, "needs", frozenset())
    if callable(needs):
        try:
            needs = needs(spec.config())
        except Exception:  # another check reports invalid defaults
            needs = frozenset()
    roles = [getattr(spec, key, None) or {} for key in ("roles", "optional_roles")]
    role_needs = chain(*(capabilities.values() for capabilities in roles))
    provides = entry.provides if isinstance(spec, ModelSpec) else frozenset()
    return provides, frozenset(needs).union(*role_needs)


def heavy_imports_of(subject: Subject) -> list[str]:
    """Return the heavy packages that loading the component's plugin imports in a new process,
    without those that LatentForge itself imports."""
    module = subject.entry.plugin.module
    if not (module.endswith(".py") or is_importable(module)):
        raise CheckSkipped(f"{module} is a Python object, which another process cannot import")
    code = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[2]); import latentforge; "
        "from latentforge.plugins.loading import load_plugins; before = {*sys.modules}; "
        "load_plugins([sys.argv[1]], discover=False); "
        "print(json.dumps(sorted({*sys.modules} - before)))"
    )
    target = str(Path(module).expanduser().absolute()) if module.endswith(".py") else module
    path = json.dumps([entry for entry in sys.path if entry])
    command = [sys.executable, "-c", code, target, path]
    process = subprocess.run(command, capture_output=True, text=True)
    last_line = (process.stderr.strip().splitlines() or [""])[-1]
    hint = f"latentforge -p {target} plugins show {subject.entry.plugin.name}"
    saw = f"{module} cannot be loaded on its own: {last_line}"
    require(process.returncode == 0, saw, hint)
    return sorted({*HEAVY} & set(json.loads(process.stdout.splitlines()[-1])))


def is_importable(module: str) -> bool:
    """Whether a module of this name can be imported. False for the name of an object."""
    from importlib.util import find_spec

    try:
        return find_spec(module.partition(":")[0]) is not None
    except (ImportError, ValueError):
        return False
