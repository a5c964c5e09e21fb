"""Forge: the Python API, which the command line uses too. torch is imported by what needs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentforge.choosing import (
    check_roles,
    check_same_images,
    choose_explorer,
    choose_measures,
    config_of,
    draft_of,
    is_in_memory,
    require_all,
)
from latentforge.config import RunConfig, dataset_of, resolve
from latentforge.discovery import from_environment
from latentforge.drafting import Draft
from latentforge.errors import UsageError
from latentforge.guard import blame
from latentforge.plugins import load_plugins
from latentforge.registry import Entry, Registry
from latentforge.requesting import draft_request, start_draft
from latentforge.run import Run, check_free, read_manifest
from latentforge.settings import check_device
from latentforge.sweeping import Sweeps

if TYPE_CHECKING:
    from torch import nn

    from latentforge.data import DataSplits
    from latentforge.doctor import Finding


class Forge(Sweeps):
    """Plugins, and what can be done with them: train, sweep, evaluate, explore.

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
        self.given = (tuple(plugins), tuple(off), discover)  # for other processes of a sweep
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
        draft, data = draft_request(
            self.registry,
            name,
            config=config,
            preset=preset,
            data=data,
            loss=loss,
            model=model,
            train=train,
            callbacks=callbacks,
        )
        return self.train_draft(draft, run=run, quiet=quiet, data=data)

    def start_draft(self, name: str | None, config: str | Path | None, preset: str | None) -> Draft:
        """Begin with the one of model name, config file and preset that was given."""
        return start_draft(self.registry, name, config, preset)

    def train_draft(
        self, draft: Draft, *, run: str | Path | None = None, quiet: bool = False, data: Any = None
    ) -> Run:
        """Train what a draft describes; `data` is in-memory data or None."""
        config = resolve(draft, self.registry, in_memory=data is not None)
        from latentforge.training import train

        return train(self, config, run=Path(run) if run else None, quiet=quiet, data=data)

    def resume(
        self,
        run: Run | str | Path,
        *,
        checkpoint: str = "last",
        train: Mapping[str, Any] | None = None,
        data: Any = None,
        quiet: bool = False,
    ) -> Run:
        """Go on with a run from a checkpoint, which may lie in the middle of an epoch, and end with
        the same bits as the run that was never stopped.

        `train` may raise `epochs` and change what does not move the result (`threads`,
        `log_every`, `checkpoint_every`, `checkpoint_seconds`); ConfigError names anything else.
        `data` is what a run was trained on that got its data in Python.
        """
        run = self._as_run(run)
        draft = draft_of(run)
        data = draft.data(data)
        draft.update("train", train or {}, "train=")
        return self.resume_draft(run, draft, checkpoint=checkpoint, quiet=quiet, data=data)

    def resume_draft(
        self, run: Run, draft: Draft, *, checkpoint: str, quiet: bool = False, data: Any = None
    ) -> Run:
        """Go on with a run as a draft describes it, which was begun by `draft_of`."""
        require_all(self.registry, run.path, run.manifest["plugins"])
        config = resolve(draft, self.registry, in_memory=is_in_memory(run))
        from latentforge.resuming import resume

        return resume(run, config, checkpoint=checkpoint, quiet=quiet, data=data)

    # ------------------------------------------------------------ data

    def load_data(self, name: str, options: Sequence[str] | Mapping[str, Any] = ()) -> DataSplits:
        """A dataset's splits; `options` are those of the section [data]."""
        dataset, own = dataset_of(self.registry, name, options)
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
        dataset, _ = dataset_of(self.registry, name, options)
        fetch = dataset.entry.spec.fetch
        if fetch is None:
            raise UsageError(f"dataset {name!r} has nothing to fetch; it is there already")
        with blame(f"fetching dataset {name!r}", dataset.entry):
            folder: Path = fetch(dataset.options)
        return folder

    # ------------------------------------------------------------ runs

    def open_run(self, path: str | Path) -> Run:
        """A run folder as a Run; MissingError when there is none."""
        return Run(Path(path), read_manifest(Path(path)), self)

    def config_of(self, run: Run) -> RunConfig:
        """A run's configuration with today's plugins; PluginError names the one to install."""
        return config_of(self.registry, run)

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
        chosen = choose_measures(
            self.registry, config, run.manifest["data"]["classes"], measures, options
        )
        others = self._roles(roles, [measure.entry for measure in chosen])
        from latentforge.loading import evaluate, open_up

        opened = open_up(
            self, run, config, checkpoint=checkpoint, roles=others, device=device, data=data
        )
        return evaluate(opened, split, chosen)

    def diagnose(
        self,
        run: Run | str | Path,
        split: str | None = None,
        *,
        checkpoint: str = "last",
        device: str = "auto",
        data: Any = None,
    ) -> list[Finding]:
        """What looks wrong with a run, each finding with what was seen and what to try.

        `split` holds the images that the model has not seen: validation if there is one, else test.
        """
        from latentforge.doctor import failure

        check_device(device)
        run = self._as_run(run)
        config = self.config_of(run)
        failed = failure(run)
        if failed and not (run.path / "checkpoints" / "LATEST").exists():
            return failed  # there is nothing else to look at
        loss = choose_measures(self.registry, config, (), ["loss"])[0]
        held = split or ("validation" if "validation" in run.manifest["data"]["images"] else "test")
        from latentforge.loading import diagnose, open_up

        opened = open_up(
            self, run, config, checkpoint=checkpoint, roles={}, device=device, data=data
        )
        return [*failed, *diagnose(opened, held, loss)]

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
        preset: str | None = None,
        quiet: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Run an explorer and write what it finds: `explorer`, `out`, `files`, `metrics`.

        Its own options are keywords (`steps=5`) or `key=value` texts in `assignments`, over those
        of a `preset`. `out` is `RUN/explore/<explorer>` by default, numbered when that is taken.
        """
        check_device(device)
        folder = Path(out) if out else None
        if folder:
            check_free(folder)
        run = self._as_run(run)
        config = self.config_of(run)
        chosen = choose_explorer(self.registry, run, config, explorer, assignments, options, preset)
        others = self._roles(roles, [component.entry for component in chosen])
        for role, other in others.items():
            check_same_images(run, role, other)
        from latentforge.exploring import explore
        from latentforge.loading import open_up

        opened = open_up(
            self, run, config, checkpoint=checkpoint, roles=others, device=device, data=data
        )
        return explore(opened, *chosen, out=folder, stream=None if quiet else sys.stderr)

    def report(self, *runs: Run | str | Path, out: str | Path | None = None) -> dict[str, Any]:
        """Write one self-contained HTML page of a run, of several side by side, or of a sweep, by
        its folder: `report`, its path, and what it shows. `out` is RUN/report.html by default; an
        earlier one is replaced."""
        from latentforge.report import report, report_of_sweep
        from latentforge.sweeping.folder import is_sweep, open_sweep

        if len(runs) == 1 and not isinstance(runs[0], Run) and is_sweep(Path(runs[0])):
            return report_of_sweep(open_sweep(self, Path(runs[0])), Path(out) if out else None)
        return report([self._as_run(run) for run in runs], Path(out) if out else None)

    # ------------------------------------------------------------ deploy and hand on

    def export(
        self,
        run: Run | str | Path,
        part: str | None = None,
        *,
        format: str = "onnx",
        checkpoint: str = "last",
        out: str | Path | None = None,
    ) -> dict[str, Any]:
        """Write the encoder, decoder or classifier as ONNX with a free batch size, or, without a
        `part`, the weights of the whole model as "safetensors": `out`, `files`, and what
        export.json holds.

        `out` is `RUN/export/<part>-onnx` by default, or `RUN/export/model-safetensors`, numbered
        when that is taken.
        """
        from latentforge.deploy import export

        folder = Path(out) if out else None
        return export(self, self._as_run(run), part, format, checkpoint=checkpoint, out=folder)

    def encode(
        self,
        run: Run | str | Path,
        out: str | Path,
        *,
        data: Any = None,
        options: Sequence[str] | Mapping[str, Any] = (),
        split: str = "test",
        checkpoint: str = "last",
        device: str = "auto",
    ) -> dict[str, Any]:
        """Write the codes of a split, or of "all", to the new file `out`, .parquet or .npz:
        `images`, `columns`, `latent_shape`.

        `data` replaces the run's own: a dataset's name with its `options`, or as in `evaluate`.
        """
        from latentforge.deploy import encode

        wanted = {"data": data, "options": options, "split": split}
        opened = self._as_run(run)
        return encode(self, opened, Path(out), **wanted, checkpoint=checkpoint, device=device)

    def decode(
        self,
        run: Run | str | Path,
        codes: Any,
        out: str | Path,
        *,
        checkpoint: str = "last",
        device: str = "auto",
    ) -> dict[str, Any]:
        """Decode codes into images in the new folder `out`: `images`, `pictures`, `files`.

        `codes` are an .npz or .parquet file with `z`, or an array or tensor, (N, D) or
        (N, *latent.shape).
        """
        from latentforge.deploy import decode

        opened = self._as_run(run)
        return decode(self, opened, codes, Path(out), checkpoint=checkpoint, device=device)

    def _as_run(self, run: Run | str | Path) -> Run:
        return run if isinstance(run, Run) else self.open_run(run)

    def _roles(
        self, roles: Mapping[str, Run | str | Path] | None, entries: Sequence[Entry]
    ) -> dict[str, Run]:
        """The other runs by role, each one that the entries take and with a model that fits."""
        others = {role: self._as_run(other) for role, other in (roles or {}).items()}
        check_roles(
            entries, {role: self.config_of(run).model.entry for role, run in others.items()}
        )
        return others


def open_run(path: str | Path, *, plugins: Sequence[str | ModuleType | object] = ()) -> Run:
    """A run folder as a Run, with the installed plugins."""
    return Forge(plugins).open_run(path)
