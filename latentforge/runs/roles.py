"""The runs that a run uses, as its run.json describes them. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentforge.io.atomic import read_bytes, read_json
from latentforge.runs.folder import MANIFEST, ROLES, RunFolder

CHECKPOINT_MANIFEST = "manifest.json"
Source = Literal["unchanged", "changed", "missing"]


def weights_digest(files: Mapping[str, Any]) -> str:
    """The SHA-256 of the weights that are evaluated, from the manifest of a checkpoint."""
    name = "ema-model.safetensors" if "ema-model.safetensors" in files else "model.safetensors"
    return str(files.get(name, {}).get("sha256", ""))


@dataclass(frozen=True)
class UsedRun:
    """The run in a role. `source` is the folder that it was copied from, whose `state` is compared
    with the copy by the digest of the weights. `uses` are the runs that it uses itself."""

    role: str
    model: str
    source: str
    checkpoint: str
    digest: str
    state: Source
    uses: tuple[UsedRun, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.source).name

    def describe(self) -> str:
        """Describe the run in a line, such as `autoencoder: vae-mnist-1 (vae, step-00000938)`."""
        notes = {
            "unchanged": "",
            "changed": "; it was trained further after it was copied",
            "missing": "; it was moved or deleted after it was copied",
        }
        inner = f", which uses {self.uses[0].describe()}" if len(self.uses) == 1 else ""
        if len(self.uses) > 1:
            inner = ", which uses " + " and ".join(used.describe() for used in self.uses)
        return (
            f"{self.role}: {self.name} ({self.model}, {self.checkpoint}){inner}{notes[self.state]}"
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            **{key: value for key, value in vars(self).items() if key != "uses"},
            "uses": [used.as_dict() for used in self.uses],
        }


def find_used_runs(run: RunFolder) -> tuple[UsedRun, ...]:
    """Return the runs that a run uses, and the runs that these use. Damaged parts are left out: the
    result describes a run, which other functions check."""
    return _find(run.path, run.manifest)


def config_to_repeat(run: RunFolder) -> dict[str, Any]:
    """Return the configuration of a run with which it can be trained again: a run that it uses and
    that has changed or is missing is replaced by the copy in the run."""
    roles = dict(run.config.get("roles") or {})
    for used in find_used_runs(run):
        copy = run.path / ROLES / used.role
        if used.state != "unchanged" and used.role in roles and copy.is_dir():
            roles[used.role] = str(copy.resolve())
    return {**run.config, **({"roles": roles} if roles else {})}


def _find(path: Path, manifest: Mapping[str, Any]) -> tuple[UsedRun, ...]:
    about = manifest.get("roles")
    found = []
    for role, entry in about.items() if isinstance(about, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        keys = ("model", "source", "checkpoint", "digest")
        model, source, checkpoint, digest = (str(entry.get(key, "")) for key in keys)
        folder = path / ROLES / role
        state = compare_source(Path(source), digest)
        inner = () if folder.is_symlink() else _find(folder, _read(folder / MANIFEST))
        found.append(UsedRun(role, model, source, checkpoint, digest, state, inner))
    return tuple(found)


def compare_source(source: Path, digest: str) -> Source:
    """Whether the last checkpoint of a run folder still has the weights with this digest."""
    checkpoints = source / "checkpoints"
    try:
        name = read_bytes(checkpoints / "LATEST", limit=4096).decode().splitlines()[0]
        files = read_json(checkpoints / Path(name).name / CHECKPOINT_MANIFEST)["files"]
        return "unchanged" if weights_digest(files) == digest else "changed"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "missing"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
