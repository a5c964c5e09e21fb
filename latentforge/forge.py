"""`Forge`, the Python API: a thin facade over workflows and sweeps. Imports torch on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentforge.config.request import draft_request
from latentforge.config.resolve import resolve, resolve_dataset
from latentforge.config.schema import PROTOCOL
from latentforge.config.suggestions import check_keywords
from latentforge.errors import UsageError
from latentforge.plugins.discovery import from_environment
from latentforge.plugins.loading import load_plugins
from latentforge.plugins.registry import Registry
from latentforge.plugins.running import running_registry, runs_plugins
from latentforge.runs.compatibility import build_draft, open_training_roles, resolve_resumed_config
from latentforge.runs.folder import RunFolder, open_folder
from latentforge.runtime.python_form import python_api, python_form, python_function
from latentforge.workflows.evaluate import evaluate
from latentforge.workflows.explore import explore, open_explored
from latentforge.workflows.run import Run
from latentforge.workflows.run import open_run as open_run_folder

if TYPE_CHECKING:
    from torch import nn

    from latentforge.data.splits import DataSplits
    from latentforge.engine.diagnostics import Diagnosis
    from latentforge.sweeps.folder import Sweep


@python_api
@runs_plugins
class Forge:
    """The Python API: loads plugins, and trains, sweeps, evaluates and explores with them.

    `plugins` are modules, objects with hooks, `./file.py` or `package.module`; `off` contains the
    names of plugins to disable; `discover=False` ignores all installed plugins, also built-ins."""

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
        roles: Mapping[str, RunFolder | str | Path] | None = None,
        sampler: Mapping[str, Any] | None = None,
        run: str | Path | None = None,
        quiet: bool = False,
        **keywords: Any,
    ) -> Run:
        """Train a model and return its run.

        Give exactly one of the model's `name`, a `config` file and a `preset`; `data`, `loss`,
        `model`, `train` and `callbacks` override its settings. `data` is the name of a dataset, a
        mapping like the section [data], or the data itself: an array or tensor (N, H, W),
        (N, C, H, W) or (N, D), a pair (x, y), a map-style dataset, or a dict of these by split:
        {"train": ..., "test": ...}. A number in this dict is the fraction to split off:
        {"train": x, "validation": 0.2}. `roles` are other runs that the model, loss or dataset
        uses, and `sampler` are inference options of the model, which the methods below may replace.
        `run` is the new run's folder, `runs/<model>-<data>-<n>` by default. Raises ConfigError with
        every invalid option, PluginError, RunFailed, or Interrupted."""
        check_keywords(self.registry, name, keywords)
        request: dict[str, Any] = {"config": config, "preset": preset, "data": data, "loss": loss}
        request |= {"model": model, "train": train, "callbacks": callbacks, "roles": roles}
        draft, data = draft_request(self.registry, name, **request, sampler=sampler)
        resolved = resolve(draft, self.registry, in_memory=data is not None)
        resolved = open_training_roles(self.registry, resolved)
        from latentforge.workflows.train import train as train_run

        folder = Path(run) if run else None
        return train_run(self.registry, resolved, run=folder, quiet=quiet, data=data)

    def resume(
        self,
        run: Run | str | Path,
        *,
        checkpoint: str = "last",
        train: Mapping[str, Any] | None = None,
        data: Any = None,
        quiet: bool = False,
    ) -> Run:
        """Resume a run from a checkpoint, which may be in the middle of an epoch. The result is
        bit-identical to the result of an uninterrupted run, for the same numbers of threads and
        processes, device type, torch version and plugin versions.

        `train` may increase `epochs` and change `threads`, `log_every`, `checkpoint_every` and
        `checkpoint_seconds`; any other change raises a ConfigError. `data` is the original data of
        a run that was trained on data passed in Python.
        """
        run = run if isinstance(run, Run) else self.open_run(run)
        draft = build_draft(run)
        data = draft.add_data(data)
        draft.update("train", train or {}, "train=")
        config = resolve_resumed_config(self.registry, run, draft)
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
        """Train one member for each combination of a grid's values, or for each trial of a search,
        and return the sweep.

        `grid` maps keys to lists: {"loss.beta": [1, 2, 4], "train.seed": [0, 1]}. Arguments that
        are not described here are those of `train`. `out` is the folder of the new sweep,
        `runs/sweep-<model>-<data>-<n>` by default; it contains a run folder for each member.

        `search` is the number of trials. Optuna chooses their values from `space`, which maps keys
        to ranges and lists: {"train.lr": "log(1e-4, 1e-2)", "model.latent_dim": "int(2, 32)"}.
        `objective` is the validation metric to optimize, by default the metric `train.monitor`;
        `storage` is an Optuna storage URL, by default a file in the sweep's folder.

        `together` trains members that differ only in numbers as one model, if a few test steps give
        the same results as separate models; docs/sweeps.md lists the conditions. `jobs` is the
        number of members, or groups of them, that are trained at the same time, each in its own
        process with a part of the threads.

        A member that fails does not stop the others; `failed` of the sweep lists it. Raises the
        errors of `train` for an invalid request, MissingError for a search without Optuna or with
        an unusable storage, and Interrupted after Ctrl-C."""
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
        """Resume a sweep. Finished members are skipped, and failed ones too unless `retry` is set.
        Stopped members continue from their last checkpoint, and the others start. `jobs` defaults
        to the previous value. Pass `storage` again if its URL contains a password, which is never
        stored."""
        from latentforge.sweeps.start import resume_sweep

        options: dict[str, Any] = {"retry": retry, "jobs": jobs, "quiet": quiet, "data": data}
        return resume_sweep(self.registry, Path(sweep), storage=storage, **options)

    def load_data(self, data: Any, options: Sequence[str] | Mapping[str, Any] = ()) -> DataSplits:
        """Load the splits of `data`: the name of a dataset, or data as in `train`. `options` are
        those of the section [data]."""
        from latentforge.data.loading import load_data

        return load_data(self.registry, data, options)

    def describe_data(
        self,
        data: Any,
        options: Sequence[str] | Mapping[str, Any] = (),
        *,
        out: str | Path | None = None,
    ) -> dict[str, Any]:
        """Return the sizes, classes and range of `data`, and draw examples of each class as a PNG
        at `out`, by default the first unused `data-<name>-<n>.png`. Its path is `picture`."""
        splits = self.load_data(data, options)
        from latentforge.rendering.dataset_preview import describe_data

        return describe_data(splits, data, Path(out) if out else None)

    def fetch_data(self, name: str, options: Sequence[str] | Mapping[str, Any] = ()) -> Path:
        """Download a dataset and return its folder. Raises UsageError if it has no download."""
        dataset, _ = resolve_dataset(self.registry, name, options)
        fetch = dataset.entry.spec.fetch
        if fetch is None:
            message = f"dataset {name!r} has no files to download"
            raise UsageError(message, hint=f"latentforge show dataset {name}")
        return Path(dataset.call(f"fetching dataset {name!r}", fetch, dataset.options))

    def open_run(self, path: str | Path) -> Run:
        """Open a run folder. Raises MissingError if there is none."""
        return open_run_folder(self.registry, path)

    def load_model(self, run: Run, checkpoint: str = "last", *, device: str = "cpu") -> nn.Module:
        """Load the model of a run, in evaluation mode."""
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
        sampler: Sequence[str] | Mapping[str, Any] = (),
        protocol: int = PROTOCOL,
    ) -> dict[str, Any]:
        """Evaluate a run on a split. The result contains `metrics` and the `protocol` of each.

        Without `measures`, every default measure that the model supports is computed. `options` are
        `measure.key=value` and `data.key=value`. `data`, a dataset's name or data, replaces the
        run's own. It is split as in training if it is the same, otherwise only if requested.
        `sampler` replaces inference options of the run, as a mapping or as `sampler.key=value`.
        `protocol` is the version of the evaluation protocol. If a measure fails while the others
        are computed, its error is raised at the end, and `result` of the error has the others."""
        request: Any = {"measures": measures, "roles": roles, "options": options, "data": data}
        request |= {"checkpoint": checkpoint, "device": device, "protocol": protocol}
        request["sampler"] = sampler
        return evaluate(self.registry, open_folder(run), split, **request)

    def diagnose(
        self,
        run: RunFolder | str | Path,
        split: str | None = None,
        *,
        checkpoint: str = "last",
        device: str = "auto",
        data: Any = None,
        options: Sequence[str] | Mapping[str, Any] = (),
    ) -> list[Diagnosis]:
        """Find probable problems of a run and return each with the observation and a suggestion.
        `split` contains images that were not trained on: by default validation, or test if the run
        has no validation images. `options` are those of the data."""
        from latentforge.workflows.diagnose import diagnose

        request = {"checkpoint": checkpoint, "device": device, "data": data, "options": options}
        found = diagnose(self.registry, open_folder(run), split, **request)
        return [replace(finding, attempt=python_form(finding.attempt)) for finding in found]

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
        condition: int | None = None,
        sampler: Sequence[str] | Mapping[str, Any] = (),
        quiet: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Run an explorer and write its findings. The result contains `out`, `files` and `metrics`.

        Options of the explorer are keywords (`steps=5`) or `key=value` strings in `assignments`;
        they override those of a `preset`. `out` is `RUN/explore/<explorer>` by default, with a
        number appended if that folder exists. `condition` is the number of a class: a conditional
        model then works under it, on images of the class. `sampler` as in `evaluate`."""
        options |= {"checkpoint": checkpoint, "roles": roles, "out": out, "device": device}
        options |= {"assignments": assignments, "data": data, "preset": preset, "quiet": quiet}
        options |= {"condition": condition, "sampler": sampler}
        return explore(self.registry, explorer, open_explored(explorer, run), **options)

    def report(
        self, *runs: RunFolder | str | Path, out: str | Path | None = None
    ) -> dict[str, Any]:
        """Write one self-contained HTML page about a run, several runs side by side, or a sweep
        given by its folder: `out`, or RUN/report.html, which is replaced if it exists. Returns its
        path as `report`, and what the page shows."""
        from latentforge.rendering.report.write import report
        from latentforge.sweeps.comparison import write_sweep_report
        from latentforge.sweeps.folder import is_sweep, open_sweep

        path = Path(out) if out else None
        if len(runs) == 1 and not isinstance(runs[0], RunFolder) and is_sweep(Path(runs[0])):
            return write_sweep_report(open_sweep(self.registry, Path(runs[0])), path)
        return report([open_folder(run) for run in runs], self.registry, path)

    def export(
        self,
        run: RunFolder | str | Path,
        part: str | None = None,
        *,
        format: str = "onnx",
        checkpoint: str = "last",
        out: str | Path | None = None,
        sampler: Sequence[str] | Mapping[str, Any] = (),
    ) -> dict[str, Any]:
        """Export the encoder, decoder or classifier as "onnx" with a dynamic batch size, or,
        without a `part`, the weights of the whole model as "safetensors". Returns `out`, `files`,
        and the contents of export.json. `out` is `RUN/export/<part>-onnx` by default, or
        `RUN/export/model-safetensors`, with a number appended if that folder exists. `sampler` is
        as in `evaluate`."""
        from latentforge.workflows.export_checks import export

        where: dict[str, Any] = {"checkpoint": checkpoint, "out": Path(out) if out else None}
        return export(self.registry, open_folder(run), part, format, **where, sampler=sampler)

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
        sampler: Sequence[str] | Mapping[str, Any] = (),
    ) -> dict[str, Any]:
        """Write the codes of a split, or of "all" splits, to the new file `out` (.parquet or .npz).
        Returns `images`, `columns` and `latent_shape`. `data` replaces the
        run's own data: the name of a dataset, with its `options`, or data as in `evaluate`."""
        from latentforge.workflows.export_checks import encode

        request: Any = {"data": data, "options": options, "split": split, "checkpoint": checkpoint}
        request |= {"device": device, "sampler": sampler}
        return encode(self.registry, open_folder(run), Path(out), **request)

    def decode(
        self,
        run: RunFolder | str | Path,
        codes: Any,
        out: str | Path,
        *,
        condition: int | None = None,
        checkpoint: str = "last",
        device: str = "auto",
        sampler: Sequence[str] | Mapping[str, Any] = (),
    ) -> dict[str, Any]:
        """Decode codes into images in the new folder `out`. Returns `images`, `pictures`, `files`.
        `codes` is an .npz or .parquet file that contains `z`, or an array or tensor, (N, D) or
        (N, *latent.shape). A conditional model decodes them under the class `condition` or, by
        default, under the labels in a file of `encode`."""
        from latentforge.workflows.export_checks import decode

        request: Any = {"condition": condition, "checkpoint": checkpoint, "device": device}
        request["sampler"] = sampler
        return decode(self.registry, open_folder(run), codes, Path(out), **request)


@python_function
def open_run(path: str | Path, *, plugins: Sequence[str | ModuleType | object] = ()) -> Run:
    """Open a run folder with `plugins` and the installed plugins or, in a component, those of the
    Forge that runs it."""
    return open_run_folder(running_registry(plugins), path)
