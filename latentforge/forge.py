"""Forge: the Python API, which the command line uses too. torch is imported by what needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentforge.checking import Faults
from latentforge.config import (
    IN_MEMORY,
    Component,
    DataConfig,
    Draft,
    RunConfig,
    check_device,
    check_options,
    raise_faults,
    read_assignments,
    resolve,
    resolve_data,
)
from latentforge.errors import LatentForgeError, PluginError, UsageError, did_you_mean
from latentforge.guard import blame
from latentforge.plugins import from_environment, load_plugins
from latentforge.registry import Entry, Registry
from latentforge.run import Run, is_taken, read_manifest

if TYPE_CHECKING:
    from torch import nn

    from latentforge.data import DataSplits


class Forge:
    """Plugins, and what can be done with them: train, evaluate, explore.

    `plugins` are modules, objects with hooks, `./file.py` or `package.module`; `off` are entry
    points to leave out; `discover=False` ignores installed plugins, the built-in ones too.
    """

    def __init__(
        self,
        plugins: Sequence[str | ModuleType | object] = (),
        *,
        off: Sequence[str] = (),
        discover: bool = True,
    ) -> None:
        only = from_environment()
        self.registry: Registry = load_plugins(plugins, off=off, only=only, discover=discover)

    # ------------------------------------------------------------ train

    def train(
        self,
        name: str | None = None,
        /,
        *,
        config: str | Path | None = None,
        preset: str | None = None,
        data: Any = None,
        loss: str | Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        callbacks: Sequence[str | Mapping[str, Any]] = (),
        run: str | Path | None = None,
        quiet: bool = False,
    ) -> Run:
        """Train a model and return its run.

        Exactly one of the model's `name`, a `config` file and a `preset` says what; `data`, `loss`,
        `model`, `train` and `callbacks` then override it. `data` is a dataset's name, a mapping of
        the section [data], or the data itself: an array or tensor (N, H, W), (N, C, H, W) or
        (N, D), a pair (x, y), a map-style dataset, or {"train": ..., "test": ...} of those, where a
        number is a share to cut off: {"train": x, "validation": 0.2}. `run` is the new run's
        folder, `runs/<model>-<data>-<n>` by default.

        Raises ConfigError with every wrong option, MissingError, PluginError, RunFailed, and
        Interrupted after Ctrl-C.
        """
        draft = Draft()
        self.start_draft(draft, name, config, preset)
        in_memory = data is not None and not isinstance(data, str) and not is_section(data)
        if in_memory:  # a preset's or a file's dataset is not this one, but its cuts are
            draft.choose("data", IN_MEMORY, "data=")
            del draft.values["data"]["name"]
            if isinstance(data, Mapping):  # numbers are shares to cut, everything else is a split
                shares = {k: v for k, v in data.items() if isinstance(v, int | float)}
                draft.update("data", shares, "data=")
                data = {k: v for k, v in data.items() if k not in shares}
        elif data is not None:
            draft.update("data", {"name": data} if isinstance(data, str) else data, "data=")
        if loss is not None:
            draft.update("loss", {"name": loss} if isinstance(loss, str) else loss, "loss=")
        if name is not None and "name" in (model or {}):
            raise UsageError("name the model once: as the first argument, or in model=")
        draft.update("model", model or {}, "model=")
        draft.update("train", train or {}, "train=")
        for given in callbacks:
            if not isinstance(given, str | Mapping):
                raise UsageError(f"callbacks: a name or a mapping with one, not {given!r}")
            options = {"name": given} if isinstance(given, str) else dict(given)
            draft.callback(str(options.get("name"))).update(options)
        return self.train_draft(draft, run=run, quiet=quiet, data=data if in_memory else None)

    def start_draft(
        self, draft: Draft, name: str | None, config: str | Path | None, preset: str | None
    ) -> None:
        """Begin with the one of model name, config file and preset that was given."""
        given = [what for what in (name, config, preset) if what is not None]
        if len(given) != 1:
            raise UsageError(
                "say what to train with exactly one of a model's name, a config file and a preset",
                details=[f"given: {', '.join(map(str, given)) or 'none'}"],
                remedy="latentforge train ae",
            )
        if name is not None:
            draft.choose("model", name, "the model's name")
        elif config is not None:
            draft.read_file(Path(config))
        elif preset is not None:
            draft.read_file(Path(self.registry.get("presets", preset).spec.path))

    def train_draft(
        self, draft: Draft, *, run: str | Path | None = None, quiet: bool = False, data: Any = None
    ) -> Run:
        """Train what a draft describes; `data` is in-memory data or None."""
        config = resolve(draft, self.registry, in_memory=data is not None)
        from latentforge.training import train

        return train(self, config, run=Path(run) if run else None, quiet=quiet, data=data)

    # ------------------------------------------------------------ data

    def load_data(self, name: str, options: Sequence[str] | Mapping[str, Any] = ()) -> DataSplits:
        """A dataset's splits; `options` are those of the section [data]."""
        dataset, own = self._dataset(name, options)
        from latentforge.sources import load_splits

        return load_splits(dataset, own)

    def describe_data(
        self,
        name: str,
        options: Sequence[str] | Mapping[str, Any] = (),
        *,
        out: str | Path | None = None,
    ) -> dict[str, Any]:
        """A dataset's sizes, classes and range, and `picture`, the path of samples of each class:
        `out`, or the first free `data-<name>-<n>.png`."""
        splits = self.load_data(name, options)
        from latentforge.drawing.dataset import describe_data

        return describe_data(splits, name, Path(out) if out else None)

    def fetch_data(self, name: str, options: Sequence[str] | Mapping[str, Any] = ()) -> Path:
        """Download a dataset and return its folder; UsageError when nothing is to fetch."""
        dataset, _ = self._dataset(name, options)
        fetch = dataset.entry.spec.fetch
        if fetch is None:
            raise UsageError(f"dataset {name!r} has nothing to fetch; it is there already")
        with blame(f"fetching dataset {name!r}", dataset.entry):
            folder: Path = fetch(dataset.options)
        return folder

    def _dataset(
        self, name: str, options: Sequence[str] | Mapping[str, Any]
    ) -> tuple[Component, DataConfig]:
        faults = Faults()
        given = {"name": name, **read_assignments(options, faults)}
        dataset, own = resolve_data(given, self.registry, faults)
        raise_faults(faults)
        assert dataset is not None
        return dataset, own

    # ------------------------------------------------------------ runs

    def open_run(self, path: str | Path) -> Run:
        """A run folder as a Run; MissingError when there is none."""
        return Run(Path(path), read_manifest(Path(path)), self)

    def config_of(self, run: Run) -> RunConfig:
        """A run's configuration with today's plugins; PluginError names the one to install.

        Without its callbacks: they belong to the training, and nothing else needs their plugins.
        """
        draft = Draft()
        for section in ("model", "loss", "data", "train"):
            draft.update(section, run.config[section], "run.json")
        in_memory = run.config["data"]["name"] == IN_MEMORY
        if in_memory:
            del draft.values["data"]["name"]
        for wanted in run.manifest["plugins"]:
            if wanted["kind"] != "callbacks":
                self._require(run, wanted)
        return resolve(draft, self.registry, in_memory=in_memory)

    def _require(self, run: Run, wanted: Mapping[str, str]) -> None:
        try:
            self.registry.get(wanted["kind"], wanted["name"])
        except LatentForgeError as error:
            packaged = wanted["distribution"]
            off = [p.off_by for p in self.registry.plugins if p.is_called(wanted["plugin"])]
            remedy = f"latentforge -p {wanted.get('module', wanted['plugin'])} ..."
            if any(off):
                remedy = f"the same without {off[0]}"
            elif packaged:
                remedy = f"pip install {packaged}=={wanted['version']}"
            raise PluginError(
                f"{run.path} was made with {wanted['name']!r} of plugin {wanted['plugin']}"
                + (f" ({packaged} {wanted['version']})" if packaged else ""),
                details=[error.message, *error.details],
                remedy=remedy,
            ) from None

    def load_model(self, run: Run, checkpoint: str = "last", *, device: str = "cpu") -> nn.Module:
        """The model of a run in evaluation mode."""
        check_device(device)
        config = self.config_of(run)
        from latentforge.engine.device import resolve_device
        from latentforge.loading import load

        return load(run, config, checkpoint, resolve_device(device)).model

    # ------------------------------------------------------------ evaluate and explore

    def evaluate(
        self,
        run: Run | str | Path,
        split: str = "test",
        *,
        checkpoint: str = "last",
        measures: Sequence[str] = (),
        roles: Mapping[str, Run | str | Path] | None = None,
        options: Sequence[str] | Mapping[str, Any] = (),
        device: str = "auto",
        data: Any = None,
    ) -> dict[str, Any]:
        """Figures of a run on a split: `run`, `split`, `checkpoint`, `metrics`, `protocol`.

        Without `measures`, every default one that the model has the abilities for. `options` are
        `measure.key=value`. `data` replaces the run's own: what the run was trained on is cut as it
        was then; other data is measured whole.
        """
        check_device(device)
        run = self._as_run(run)
        config = self.config_of(run)
        chosen = self.choose_measures(config, run.manifest["data"]["classes"], measures, options)
        others = self._roles(roles)
        self._check_roles([measure.entry for measure in chosen], others)
        from latentforge.loading import evaluate, open_up

        opened = open_up(
            self, run, config, checkpoint=checkpoint, roles=others, device=device, data=data
        )
        return evaluate(opened, split, chosen)

    def choose_measures(
        self,
        config: RunConfig,
        classes: Sequence[str],
        names: Sequence[str] = (),
        options: Sequence[str] | Mapping[str, Any] = (),
    ) -> list[Component]:
        """The measures asked for, or every default one that fits, with their options."""
        provides = config.model.entry.spec.provides
        entries = []
        if names:
            for name in dict.fromkeys(names):
                entry = self.registry.get("measures", name)
                self._check_needs(entry, config.model.entry)
                if entry.spec.labels and not classes:
                    raise UsageError(f"measure {entry.name!r} needs labels; the data has none")
                entries.append(entry)
        else:
            by_name: dict[str, Entry] = {}
            for entry in self.registry.entries("measures"):  # a built-in before its namesakes
                spec = entry.spec
                if spec.default and spec.needs <= provides and (classes or not spec.labels):
                    by_name.setdefault(entry.name, entry)
            entries = list(by_name.values())
        given = _by_component(options, [entry.name for entry in entries])
        return [
            Component(entry, check_options(entry.spec.config, given[entry.name], entry.name))
            for entry in entries
        ]

    def explore(
        self,
        explorer: str,
        run: Run | str | Path,
        *,
        checkpoint: str = "last",
        roles: Mapping[str, Run | str | Path] | None = None,
        out: str | Path | None = None,
        assignments: Sequence[str] = (),
        device: str = "auto",
        data: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run an explorer and write what it finds: `explorer`, `out`, `files`, `metrics`.

        Its own options are keywords (`steps=5`) or `key=value` texts in `assignments`. `out` is
        `RUN/explore/<explorer>` by default, numbered when that is taken.
        """
        check_device(device)
        folder = Path(out) if out else None
        if folder and is_taken(folder):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise UsageError(f"{folder} {what}; nothing is overwritten", remedy="another --out")
        run = self._as_run(run)
        entry = self.registry.get("explorers", explorer)
        config = self.config_of(run)
        self._check_needs(entry, config.model.entry)
        others = self._roles(roles)
        self._check_roles([entry], others)
        own = f"{entry.name}."  # as errors name the options
        texts = [text.removeprefix(own) for text in assignments]
        given = read_assignments(texts, faults := Faults())
        raise_faults(faults)
        checked = check_options(entry.spec.config, {**given, **options}, entry.name)
        from latentforge.loading import explore, open_up

        opened = open_up(
            self, run, config, checkpoint=checkpoint, roles=others, device=device, data=data
        )
        return explore(opened, Component(entry, checked), folder)

    def _as_run(self, run: Run | str | Path) -> Run:
        return run if isinstance(run, Run) else self.open_run(run)

    def _roles(self, roles: Mapping[str, Run | str | Path] | None) -> dict[str, Run]:
        return {role: self._as_run(other) for role, other in (roles or {}).items()}

    def _check_needs(self, entry: Entry, model: Entry) -> None:
        if missing := sorted(set(entry.spec.needs) - set(model.spec.provides)):
            raise UsageError(
                f"{entry.kind.singular} {entry.name!r} needs {', '.join(missing)}; "
                f"model {model.name!r} provides {', '.join(sorted(model.spec.provides))}"
            )

    def _check_roles(self, entries: Sequence[Entry], others: Mapping[str, Run]) -> None:
        """That each role is one that the entries, all of a kind, take, and that its run fits."""
        wanted: dict[str, set[str]] = {}
        for entry in entries:
            for role, needs in (entry.spec.roles or {}).items():
                wanted.setdefault(role, set()).update(needs)
        for role, run in others.items():
            if role not in wanted:
                names = " and ".join(repr(entry.name) for entry in entries)
                raise UsageError(
                    f"no role {role!r}: {entries[0].kind.singular} {names} "
                    f"takes {', '.join(sorted(wanted)) or 'none'}"
                )
            model = self.config_of(run).model.entry
            if missing := sorted(wanted[role] - set(model.spec.provides)):
                raise UsageError(
                    f"role {role!r} needs {', '.join(missing)}; {run.path} is a {model.name!r}"
                )


def _by_component(
    options: Sequence[str] | Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """`measure.key=value` texts, or a mapping measure -> options, sorted by measure."""
    if isinstance(options, Mapping):
        if unknown := [name for name in options if name not in names]:
            hint = did_you_mean(unknown[0], names) or f"measures are {', '.join(names)}"
            raise UsageError(f"options for {unknown[0]!r}, which is not measured; {hint}")
        return {name: options.get(name, {}) for name in names}
    sorted_out: dict[str, list[str]] = {name: [] for name in names}
    for text in options:
        name, dot, rest = text.partition(".")
        if not dot or name not in sorted_out:
            hint = did_you_mean(name, names) or f"measures are {', '.join(names)}"
            raise UsageError(f"--set {text}: write MEASURE.key=VALUE; {hint}")
        sorted_out[name].append(rest)
    return sorted_out


def is_section(data: Any) -> bool:
    """Whether `data=` is the section [data] and not data itself, as a mapping of splits is."""
    return isinstance(data, Mapping) and "train" not in data


def open_run(path: str | Path, *, plugins: Sequence[str | ModuleType | object] = ()) -> Run:
    """A run folder as a Run, with the installed plugins."""
    return Forge(plugins).open_run(path)
