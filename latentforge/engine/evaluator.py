"""Evaluates a model on a split in an Ignite engine: one pass for all measures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from latentforge.config.condition import CONDITIONAL
from latentforge.config.schema import PROTOCOL, Component
from latentforge.contracts import Batch, EvaluateContext, Measure, Seen, Step, at_once
from latentforge.contracts.views import TRUE_LABELS
from latentforge.data.splits import DataSplits
from latentforge.errors import LatentForgeError, PluginError, UsageError
from latentforge.latent import given
from latentforge.seeding import Noise

log = logging.getLogger("latentforge")
BATCH = 1000  # images; a larger batch is no faster on a CPU and uses more memory


def quiet_engine(process: Callable[[Engine, Any], Any]) -> Engine:
    """Build an Ignite engine that does not log exceptions: LatentForge reports them itself."""
    engine = Engine(process)
    engine.logger = logging.Logger("latentforge.engine", logging.CRITICAL)
    return engine


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Use evaluation mode without gradients in the block, then restore each module's mode."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.train(training)


class Evaluator:
    """Runs measures on a split. Callbacks attach to `engine`, whose state contains the metrics."""

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        data: DataSplits,
        measures: Sequence[Component],
        *,
        seed: int,
        device: torch.device,
        roles: Mapping[str, Any] | None = None,
        version: int = PROTOCOL,
        provides: Set[str] = frozenset(),
        failures: list[LatentForgeError] | None = None,
    ) -> None:
        """With `failures`, a measure that fails after it was built does not end the evaluation of
        the others: its error is added to the list."""
        self.failures = failures
        self.model, self.loss, self.data = model, loss, data
        self.measures = [*measures]
        self.seed, self.device, self.roles = seed, device, roles or {}
        self.version = version  # of the evaluation protocol
        self.provides = provides  # the capabilities of the model
        self.noise: Noise  # of the evaluated split
        self.engine = quiet_engine(self._update)
        # added first, so that the handlers of callbacks find the metrics in state.metrics
        self.engine.add_event_handler(Events.COMPLETED, self._compute)
        self._running: list[tuple[Component, Measure]] = []
        self.protocol: dict[str, str] = {}  # by metric

    def noise_of(self, split: str) -> Noise:
        """The noise of evaluations on a split: a function of the run's seed, the split and the
        evaluation protocol."""
        purpose = "evaluate" if self.version == 1 else f"evaluate {split}"
        return Noise(self.device, purpose, self.seed)

    def run(self, split: str, step: Step) -> dict[str, float]:
        """Compute every measure on `split`, in evaluation mode and without gradients."""
        images = self.data.split(split)
        self.noise = self.noise_of(split)
        context = EvaluateContext(
            model=self.model,
            loss=self.loss,
            data=self.data.spec,
            images=self.data.split,
            split=split,
            preprocessing=self.data.preprocessing,
            fingerprint=self.data.fingerprint,
            step=step,
            seed=self.seed,
            roles=self.roles,
            provides=self.provides,
        )
        self._running = []
        with evaluation_mode(self.model, self.loss):
            for measure in [*self.measures]:
                self.noise.reseed(0)  # batches use the numbers from 1
                instance = self._build(measure, context)
                if instance is not None:
                    self._running.append((measure, instance))
            size = at_once(self.data.spec, BATCH)
            batches = math.ceil(len(images) / size)
            setattr(self.engine.state, "split", split)  # noqa: B010  (State takes any name)
            self.engine.run(images.batches(size), max_epochs=1, epoch_length=batches)
        return dict(self.engine.state.metrics)

    def compute_loss(self, batch: Batch, step: Step) -> float:
        """Compute the loss of one batch, in evaluation mode and without gradients."""
        self.noise_of("train").reseed(1)
        with evaluation_mode(self.model, self.loss):
            return float(self.loss(self._view(batch), batch, step).total())

    def reconstructions(self, count: int) -> tuple[Tensor, Tensor]:
        """The first n <= `count` held-out examples and their reconstructions, each (n, *shape).
        Images are pictures in [0, 1]."""
        images = self.data.split("validation" if "validation" in self.data.splits else "test")
        batch = images.batch_at(list(range(min(count, len(images)))))
        model = self._view(batch)
        with evaluation_mode(self.model):
            recons = model.decode(model.encode(batch.x).mode())
        if images.spec.kind != "image":
            return batch.x, recons
        return images.spec.to_unit(batch.x), images.spec.to_unit(recons)

    def _view(self, batch: Batch) -> Any:
        """The model, under the labels of the batch if it is conditional."""
        return given(self.model, batch.y, self.provides)

    def _update(self, engine: Engine, batch: Batch) -> None:
        seen = Seen(self._view(batch), batch)
        for measure, instance in [*self._running]:
            # a measure's noise does not depend on which other measures run
            self.noise.reseed(engine.state.iteration)
            self._call("measure", measure, instance.update, seen)

    def _compute(self, engine: Engine) -> None:
        metrics: dict[str, float] = {}
        for measure, instance in [*self._running]:
            self.noise.reseed(0)
            values = self._call("measure", measure, compute_metrics, instance, metrics)
            if values is not None:
                metrics |= values
                protocol = getattr(instance, "protocol", measure.entry.spec.protocol)
                protocol = self.data.spec.adapt(protocol)
                if measure.entry.spec.likelihood and self.data.spec.scaling:
                    protocol += "; of standardized values"
                if self._compares_codes_with_labels(measure):
                    protocol += f"; {TRUE_LABELS}"
                self.protocol |= dict.fromkeys(values, protocol)
        engine.state.metrics = metrics

    def _build(self, measure: Component, context: EvaluateContext) -> Measure | None:
        """Build a measure, or return None if it is skipped. An error says that it came before any
        metric was computed, and which measures can be requested without this one."""
        try:
            built = self._call("building measure", measure, build_measure, measure, context)
        except (PluginError, UsageError) as error:
            others = ", ".join(other.name for other in self.measures if other is not measure)
            if self.failures is not None and others:
                refused = f"no metric was computed; requested besides {measure.name}: {others}"
                error.details = (*error.details, refused)
            raise
        return cast("Measure | None", built)

    def _compares_codes_with_labels(self, measure: Component) -> bool:
        """Whether a measure reads the labels or factors of codes that depend on the labels."""
        spec = measure.entry.spec
        reads = spec.labels or spec.factors
        return reads and "encode" in spec.needs and CONDITIONAL in self.provides

    def _call(
        self, action: str, measure: Component, function: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a measure's function. If a third-party measure that runs by default raises, remove
        it and log a warning: it runs for every model, so a failure must not abort the run."""
        try:
            return measure.call(f"{action} {measure.name!r}", function, *args)
        except (PluginError, UsageError) as error:  # a UsageError refuses this model or data
            if not measure.is_default or measure.entry.plugin.builtin:
                others = [other for other, _ in self._running if other is not measure]
                if self.failures is None or action != "measure" or not others:
                    raise
                self.failures.append(error)
                self._running = [pair for pair in self._running if pair[0] is not measure]
                return None
            owner = "" if repr(measure.name) in error.message else f"measure {measure.name!r}: "
            log.warning("%s%s; the measure is skipped", owner, error.message)
            self.measures.remove(measure)
            self._running = [pair for pair in self._running if pair[0] is not measure]
            return None


def build_measure(measure: Component, context: EvaluateContext) -> Measure:
    instance: Measure | None = measure.entry.spec.build(measure.options, context)
    if instance is None:
        raise TypeError("build returned None, not a measure")
    return instance


def compute_metrics(measure: Measure, others: Mapping[str, float]) -> dict[str, float]:
    """Compute the metrics of a measure. Raises ValueError if `others` has one of its names."""
    metrics = {name: float(value) for name, value in measure.compute().items()}
    if duplicates := sorted(metrics.keys() & others):
        raise ValueError(f"another measure already provides a metric {duplicates[0]!r}")
    return metrics
