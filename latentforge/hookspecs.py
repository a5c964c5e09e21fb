"""All hooks of LatentForge. Each docstring contains a complete plugin, which a test runs.

The component hooks are called once, take no arguments and yield specs. The order in which plugins
are called does not matter. Put heavy imports inside `build`. The last three hooks observe runs:
they are called when a run starts, finishes or fails. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

from latentforge.specs import (
    CallbackSpec,
    DatasetSpec,
    ExplorerSpec,
    LossSpec,
    MeasureSpec,
    ModelSpec,
    ObjectiveSpec,
    PresetSpec,
)

if TYPE_CHECKING:
    from latentforge.contracts import RunInfo

PROJECT = "latentforge"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def latentforge_models() -> Iterable[ModelSpec]:
    """Models: networks to train.

    from dataclasses import dataclass
    from latentforge import DataSpec, LatentSpec, ModelSpec, Size, hookimpl

    @dataclass(frozen=True)
    class LinearConfig:
        latent_dim: Size = 8

    def build(config: LinearConfig, data: DataSpec):
        from torch import nn
        from latentforge.latent import Point

        class Linear(nn.Module):
            def __init__(self):
                super().__init__()
                self.latent = LatentSpec((config.latent_dim,))
                self.down = nn.Linear(data.size, config.latent_dim)
                self.up = nn.Linear(config.latent_dim, data.size)

            def encode(self, x):
                return Point(self.down(x.flatten(1)))

            def decode_logits(self, z):
                return self.up(z).unflatten(1, data.shape)

            def decode(self, z):
                return self.decode_logits(z).sigmoid()

        return Linear()

    @hookimpl
    def latentforge_models():
        yield ModelSpec(
            name="linear-ae",
            summary="Linear autoencoder: PCA by gradient descent",
            build=build,
            config=LinearConfig,
            provides={"encode", "decode", "decode_logits"},
            default_loss="reconstruction",
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_losses() -> Iterable[LossSpec]:
    """Losses: training objectives, in nats per image.

    from latentforge import LossSpec, hookimpl

    def build(config, data):
        from torch import nn
        from latentforge.contracts import Terms

        class Absolute(nn.Module):
            def forward(self, model, batch, step):
                recon = model.decode(model.encode(batch.x).sample())
                return Terms({"l1": (recon - batch.x).abs().flatten(1).sum(1).mean()})

        return Absolute()

    @hookimpl
    def latentforge_losses():
        yield LossSpec(
            name="absolute",
            summary="Sum of absolute differences (a Laplace likelihood of scale 1, no constant)",
            build=build,
            needs={"encode", "decode"},
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_datasets() -> Iterable[DatasetSpec]:
    """Datasets of images or vectors.

    from latentforge import Arrays, DatasetSpec, hookimpl

    def load(config, split):
        import numpy as np

        grid = np.arange(16)
        discs = [(grid - 8) ** 2 + (grid[:, None] - 8) ** 2 < r * r for r in range(2, 8)] * 50
        return Arrays(x=np.stack(discs).astype("float32"), y=np.arange(300) % 6)

    @hookimpl
    def latentforge_datasets():
        yield DatasetSpec(name="discs", summary="Discs of six sizes", load=load, splits=("train",))
    """
    raise NotImplementedError


@hookspec
def latentforge_explorers() -> Iterable[ExplorerSpec]:
    """Explorers: they examine a latent space and return findings, but write no files.

    from latentforge import ExplorerSpec, hookimpl

    def explore(context, config):
        from latentforge.findings import Findings, ImageGrid

        seen = context.images("test").batch_at([0, 1, 2, 3])
        recon = context.model.decode(context.model.encode(seen.x).mode())
        grid = ImageGrid(name="pairs", title="Images over reconstructions", rows=(seen.x, recon))
        return Findings([grid])

    @hookimpl
    def latentforge_explorers():
        yield ExplorerSpec(
            name="pairs",
            summary="Four test images over their reconstructions",
            explore=explore,
            needs={"encode", "decode"},
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_objectives() -> Iterable[ObjectiveSpec]:
    """Objectives: what a latent search maximises.

    from latentforge import ObjectiveSpec, hookimpl

    class Bright:
        requests = ("a bright image",)

        def score(self, x, request):
            return x.flatten(1).mean(1)

        def satisfied(self, x, request):
            return self.score(x, request) > 0.3

    @hookimpl
    def latentforge_objectives():
        yield ObjectiveSpec(
            name="bright", summary="Mean pixel above 0.3", build=lambda config, context: Bright()
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_measures() -> Iterable[MeasureSpec]:
    """Measures: metrics of a trained model, each with its protocol.

    from latentforge import MeasureSpec, hookimpl

    def build(config, context):
        from latentforge.metrics import MeanPerImage

        return MeanPerImage("code_norm", lambda seen: seen.z.flatten(1).norm(dim=1))

    @hookimpl
    def latentforge_measures():
        yield MeasureSpec(
            name="code_norm",
            summary="Length of the codes",
            build=build,
            protocol="mean Euclidean norm of the posterior mode",
            needs={"encode"},
            default=False,
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_callbacks() -> Iterable[CallbackSpec]:
    """Callbacks: handlers of Ignite events during training.

    from latentforge import CallbackSpec, hookimpl

    class WeightNorm:
        def attach(self, engines):
            from ignite.engine import Events

            @engines.trainer.on(Events.EPOCH_COMPLETED)
            def log():
                norm = sum(p.detach().norm() ** 2 for p in engines.model.parameters()) ** 0.5
                engines.log("weight_norm", float(norm))

    @hookimpl
    def latentforge_callbacks():
        yield CallbackSpec(
            name="weight-norm",
            summary="Logs the norm of all weights after each epoch",
            build=lambda config: WeightNorm(),
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_presets() -> Iterable[PresetSpec]:
    """Presets: named config files inside a package.

    # tiny-ae.toml, beside this module:
    # [model]
    # name = "ae"
    # hidden = [16]
    # latent_dim = 3
    #
    # [train]
    # epochs = 1

    from pathlib import Path
    from latentforge import PresetSpec, hookimpl

    @hookimpl
    def latentforge_presets():
        yield PresetSpec(
            name="tiny-ae",
            summary="A very small autoencoder",
            path=Path(__file__).with_name("tiny-ae.toml"),
        )
    """
    raise NotImplementedError


@hookspec
def latentforge_run_started(run: RunInfo) -> None:
    """Called when a run starts or resumes; the run folder exists, and no step has run yet. This
    hook only observes: an exception is reported with the plugin's name and does not end the run,
    and the return value is ignored. In a distributed run, only the process of rank 0 calls it.

    from latentforge import hookimpl

    @hookimpl
    def latentforge_run_started(run):
        (run.path / "notes.txt").write_text(f"began {run.name}: {run.config['model']['name']}")
    """


@hookspec
def latentforge_run_finished(run: RunInfo, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Called when a run has finished successfully and all files are written. `metrics` contains the
    last metrics of each split. This hook only observes, like `latentforge_run_started`.

    import json
    from latentforge import hookimpl

    @hookimpl
    def latentforge_run_finished(run, metrics):
        (run.path / "last.json").write_text(json.dumps(metrics["test"]))
    """


@hookspec
def latentforge_run_failed(run: RunInfo, error: BaseException) -> None:
    """Called when an error or a signal has ended a run early; for a signal, `error` is an
    Interrupted. This hook only observes, like `latentforge_run_started`.

    from latentforge import hookimpl

    @hookimpl
    def latentforge_run_failed(run, error):
        (run.path / "why.txt").write_text(str(error))
    """
