"""What `Forge.train` and `Forge.sweep` are asked for in Python, as a draft. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentforge.drafting import Draft
from latentforge.errors import UsageError
from latentforge.registry import Registry


def start_draft(
    registry: Registry, name: str | None, config: str | Path | None, preset: str | None
) -> Draft:
    """Begin with the one of model name, config file and preset that was given."""
    given = [what for what in (name, config, preset) if what is not None]
    if len(given) != 1:
        raise UsageError(
            "say what to train with exactly one of a model's name, a config file and a preset",
            details=[f"given: {', '.join(map(str, given)) or 'none'}"],
            remedy="latentforge train ae",
        )
    draft = Draft()
    if name is not None:
        draft.choose("model", name, "the model's name")
    elif config is not None:
        draft.read_file(Path(config))
    elif preset is not None:
        draft.read_file(Path(registry.get("presets", preset).spec.path), preset)
    return draft


def draft_request(
    registry: Registry,
    name: str | None,
    *,
    config: str | Path | None = None,
    preset: str | None = None,
    data: Any = None,
    loss: str | Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    callbacks: Sequence[str | Mapping[str, Any]] = (),
) -> tuple[Draft, Any]:
    """The draft of a training, and the data itself where that was handed over, else None."""
    draft = start_draft(registry, name, config, preset)
    data = draft.data(data)
    if loss is not None:
        draft.update("loss", {"name": loss} if isinstance(loss, str) else loss, "loss=")
    if name is not None and "name" in (model or {}):
        raise UsageError("name the model once: as the first argument, or in model=")
    draft.update("model", model or {}, "model=")
    draft.update("train", train or {}, "train=")
    draft.switch_on(callbacks)
    return draft, data
