"""Forge: the Python API, a thin facade over workflows and sweeps. Torch is imported on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentforge.config.request import draft_request
from latentforge.config.resolve import dataset_of, resolve
from latentforge.errors import UsageError
from latentforge.plugins.discovery import from_environment
from latentforge.plugins.loading import load_plugins
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import draft_of, resumed_config
from latentforge.runs.folder import RunFolder, open_folder
from latentforge.workflows.evaluate import evaluate
from latentforge.workflows.explore import explore
from latentforge.workflows.run import Run
from latentforge.workflows.run import open_run as open_run_folder

if TYPE_CHECKING:
    from torch import nn

    from latentforge.data.splits import DataSplits
    from latentforge.engine.diagnostics import Diagnosis
    from latentforge.sweeps.folder import Sweep


class Forge:
    """Plugins, and what can be done with them: train, sweep, evaluate, explore.

    `plugins` are modules, objects with hooks, `./file.py` or `package.module`; `off` are entry
    points to leave out; `discover=False` ignores installed plugins, the built-in ones too."""

    def __init__(
        self,
        plugins: Sequence[str | ModuleType | object] = (),
        *,
        off: Sequence[str] = (),
        discover: bool = True,
    ) -> None:
        self.registry: Registry = load_plugins(plugins, off, from_environment(), discover)

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

        Raises ConfigError with every wrong option, PluginError, RunFailed, Interrupted on Ctrl-C.
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
        settings = resolve(draft, self.registry, in_memory=data is not None)
        from latentforge.workflows.train import train as train_run

        folder = Path(run) if run else None
        return train_run(self.registry, settings, run=folder, quiet=quiet, data=data)

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
        run = run if isinstance(run, Run) else self.open_run(run)
        draft = draft_of(run)
        data = draft.data(data)
        draft.update("train", train or {}, "train=")
        config = resumed_config(self.registry, run, draft)
        from latentforge.workflows.resume import resume

        return resume(run, config, checkpoint=checkpoint, quiet=quiet, data=data)

    def sweep(
        self,
        name: str | None = None,
        /,
        *,
        grid: Mapping[str, Sequence[Any]] | None = None,
        search: int | None = None,
        space: Mapping[str, str | Sequence[Any]] | None = None,
        objective: str | None = None,
        storage: str | None = None,
        together: bool = True,
        jobs: int = 1,
        out: str | Path | None = None,
        quiet: bool = False,
        **request: Any,
    ) -> Sweep:
        """Train a member for each combination of a grid's values, or for each trial of a search,
        and return the sweep.

        `grid` has lists by key: {"loss.beta": [1, 2, 4], "train.seed": [0, 1]}. What else is
        trained is said as in `train`. `out` is the new sweep's folder,
        `runs/sweep-<model>-<data>-<n>` by default, with a run folder in it for each member.

        `search` is how many trials Optuna chooses from `space`, ranges and lists by key:
        {"train.lr": "log(1e-4, 1e-2)", "model.latent_dim": "int(2, 32)"}. `objective` is the
        validation figure that it optimizes, by default the one of `train.monitor`; `storage` an
        Optuna storage URL, by default a file in the sweep's folder.

        `together` trains members that differ in numbers alone as one model, where a few steps both
        ways give the same; docs/sweeps.md says which. `jobs` members, or groups of them, are
        trained at a time, each in a process of its own with its share of the threads.

        A member that fails does not stop the others: `failed` names it. Raises what `train` does
        of the request, MissingError for a search without Optuna or with a storage that cannot be
        used, and Interrupted after Ctrl-C.
        """
        draft, data = draft_request(self.registry, name, **request)
        from latentforge.sweeps.start import start_sweep

        return start_sweep(
            self.registry,
            draft,
            grid or {},
            search=search,
            space=space,
            objective=objective,
            storage=storage,
            together=together,
            jobs=jobs,
            out=out,
            quiet=quiet,
            data=data,
        )

    def resume_sweep(
        self,
        sweep: str | Path,
        *,
        retry: bool = False,
        jobs: int | None = None,
        storage: str | None = None,
        data: Any = None,
        quiet: bool = False,
    ) -> Sweep:
        """Go on with a sweep: members that are done stay as they are, stopped ones go on from their
        last checkpoint, with `retry` failed ones too, and the others begin; `jobs` as before, or as
        given. `storage` is wanted again where its URL has a password, which no sweep keeps."""
        from latentforge.sweeps.start import resume_sweep

        how: dict[str, Any] = {"retry": retry, "jobs": jobs, "quiet": quiet, "data": data}
        return resume_sweep(self.registry, Path(sweep), storage=storage, **how)

    def load_data(self, name: str, options: Sequence[str] | Mapping[str, Any] = ()) -> DataSplits:
        """A dataset's splits; `options` are those of the section [data]."""
        from latentforge.data.loading import load_dataset

        return load_dataset(self.registry, name, options)

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
        from latentforge.rendering.dataset_preview import describe_data

        return describe_data(splits, name, Path(out) if out else None)

    def fetch_data(self, name: str, options: Sequence[str] | Mapping[str, Any] = ()) -> Path:
        """Download a dataset and return its folder; UsageError when nothing is to fetch."""
        dataset, _ = dataset_of(self.registry, name, options)
        fetch = dataset.entry.spec.fetch
        if fetch is None:
            raise UsageError(f"dataset {name!r} has nothing to fetch; it is there already")
        folder: Path = dataset.call(f"fetching dataset {name!r}", fetch, dataset.options)
        return folder

    def open_run(self, path: str | Path) -> Run:
        """A run folder as a Run; MissingError when there is none."""
        return open_run_folder(self.registry, path)

    def load_model(self, run: Run, checkpoint: str = "last", *, device: str = "cpu") -> nn.Module:
        """The model of a run in evaluation mode."""
        return run.load_model(checkpoint, device=device)

    def evaluate(
        self,
        run: RunFolder | str | Path,
        split: str = "test",
        *,
        checkpoint: str = "last",
        measures: Sequence[str] = (),
        roles: Mapping[str, RunFolder | str | Path] | None = None,
        options: Sequence[str] | Mapping[str, Any] = (),
        device: str = "auto",
        data: Any = None,
    ) -> dict[str, Any]:
        """Figures of a run on a split: `run`, `split`, `checkpoint`, `metrics`, `protocol`.

        Without `measures`, every default one that the model has the abilities for. `options` are
        `measure.key=value`. `data` replaces the run's own: what the run was trained on is cut as it
        was then; other data is measured whole.
        """
        return evaluate(
            self.registry,
            open_folder(run),
            split,
            checkpoint=checkpoint,
            measures=measures,
            roles=roles,
            options=options,
            device=device,
            data=data,
        )

    def diagnose(
        self,
        run: RunFolder | str | Path,
        split: str | None = None,
        *,
        checkpoint: str = "last",
        device: str = "auto",
        data: Any = None,
    ) -> list[Diagnosis]:
        """What looks wrong with a run, each finding with what was seen and what to try.

        `split` holds the images that the model has not seen: validation if there is one, else test.
        """
        from latentforge.workflows.diagnose import diagnose

        folder = open_folder(run)
        return diagnose(
            self.registry, folder, split, checkpoint=checkpoint, device=device, data=data
        )

    def explore(
        self,
        explorer: str,
        run: RunFolder | str | Path,
        *,
        checkpoint: str = "last",
        roles: Mapping[str, RunFolder | str | Path] | None = None,
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
        return explore(
            self.registry,
            explorer,
            open_folder(run),
            checkpoint=checkpoint,
            roles=roles,
            out=out,
            assignments=assignments,
            device=device,
            data=data,
            preset=preset,
            quiet=quiet,
            **options,
        )

    def report(
        self, *runs: RunFolder | str | Path, out: str | Path | None = None
    ) -> dict[str, Any]:
        """Write one self-contained HTML page of a run, of several side by side, or of a sweep, by
        its folder: `report`, its path, and what it shows. `out` is RUN/report.html by default; an
        earlier one is replaced."""
        from latentforge.rendering.report.write import report
        from latentforge.sweeps.folder import is_sweep, open_sweep

        path = Path(out) if out else None
        if len(runs) == 1 and not isinstance(runs[0], RunFolder) and is_sweep(Path(runs[0])):
            from latentforge.sweeps.comparison import report_of_sweep

            return report_of_sweep(open_sweep(self.registry, Path(runs[0])), path)
        return report([open_folder(run) for run in runs], self.registry, path)

    def export(
        self,
        run: RunFolder | str | Path,
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
        from latentforge.workflows.export_checks import export

        folder = Path(out) if out else None
        return export(
            self.registry, open_folder(run), part, format, checkpoint=checkpoint, out=folder
        )

    def encode(
        self,
        run: RunFolder | str | Path,
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
        from latentforge.workflows.export_checks import encode

        wanted = {"data": data, "options": options, "split": split}
        folder = open_folder(run)
        return encode(
            self.registry, folder, Path(out), **wanted, checkpoint=checkpoint, device=device
        )

    def decode(
        self,
        run: RunFolder | str | Path,
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
        from latentforge.workflows.export_checks import decode

        folder = open_folder(run)
        return decode(self.registry, folder, codes, Path(out), checkpoint=checkpoint, device=device)


def open_run(path: str | Path, *, plugins: Sequence[str | ModuleType | object] = ()) -> Run:
    """A run folder as a Run, with the installed plugins."""
    return Forge(plugins).open_run(path)
