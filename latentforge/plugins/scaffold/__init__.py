"""Writes a new plugin as a package: `latentforge plugins new`. Must not import torch."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from latentforge._version import __version__
from latentforge.errors import UsageError, did_you_mean
from latentforge.io.paths import write_error, write_text
from latentforge.plugins.loading import load_built_ins
from latentforge.specs import KINDS

PLURAL = {kind.singular: kind.plural for kind in KINDS.values()}
IMPLEMENTED = ("model", "loss", "dataset", "explorer", "objective", "callback")
"""The kinds that have templates. The module beside the hook module is named after the kind."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
USED_NAMES = ("none", "true", "false", "plugins")
"""Names that Python or the package latentforge_plugins uses for something else."""
PACKAGED_CONFIG = ("explorer", "objective")  # kinds whose config is a preset in the package


def new_plugin(name: str, kind: str, out: Path | None = None) -> tuple[Path, list[Path]]:
    """Write the package `latentforge-NAME` into `out`, or the working folder. Returns its folder
    and its files. Raises UsageError for an invalid name, and if the folder exists."""
    if kind not in IMPLEMENTED:
        hint = did_you_mean(kind, IMPLEMENTED) or f"one of {', '.join(IMPLEMENTED)}"
        raise UsageError(f"there is no template for kind {kind!r}; {hint}")
    name = name.removeprefix("latentforge-")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a plugin",
            hint="use lower-case letters, digits and single hyphens, such as swirl-vae",
        )
    if name in load_built_ins().names(PLURAL[kind]):
        raise UsageError(f"there is a built-in {kind} {name!r}", hint="choose another name")
    folder = (out or Path()) / f"latentforge-{name}"
    if folder.exists():
        raise UsageError(f"{folder} already exists", hint="choose another name, or --out DIR")
    texts = render_files(name, kind)
    try:
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / path, text)
    except OSError as error:
        raise write_error(folder, error) from None
    return folder, [folder / path for path in texts]


def render_files(name: str, kind: str) -> dict[str, str]:
    """The text of each file of a new plugin, by its path in the folder."""
    package = "latentforge_" + name.replace("-", "_")
    config = f"{name}.toml"
    variables = {
        "name": name,
        "package": package,
        "kind": kind,
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "version": ".".join(__version__.split(".")[:2]),
        "config": config,
    }
    targets = {
        "common/pyproject.toml": "pyproject.toml",
        "common/README.md": "README.md",
        "common/conftest.py": "tests/conftest.py",
        f"{kind}/hooks.py": f"{package}/__init__.py",
        f"{kind}/implementation.py": f"{package}/{kind}.py",
        f"{kind}/test.py": f"tests/test_{name.replace('-', '_')}.py",
        f"{kind}/config.toml": f"{package}/{config}" if kind in PACKAGED_CONFIG else config,
        f"{kind}/usage.md": "",
    }
    root = files("latentforge.plugins.scaffold") / "templates"
    templates = {source: (root / f"{source}.txt").read_text("utf-8") for source in targets}
    code = "".join(text for source, text in templates.items() if source.endswith(".py"))
    if name in USED_NAMES or re.search(rf"(?<!\$)\b{variables['Class']}\b", code):
        message = f"the name {name!r} is already used in the generated code"
        raise UsageError(message, hint="choose another name")
    variables["usage"] = Template(templates.pop(f"{kind}/usage.md")).substitute(variables).strip()
    return {
        targets[source]: Template(text).substitute(variables) for source, text in templates.items()
    }
