"""The classes of a resolved configuration, as a run stores it: RunConfig, Component, DataConfig
and TrainConfig.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le

from latentforge.config.validation import plain
from latentforge.errors import UsageError
from latentforge.options import Count, Fraction, NonNegative, Positive, Seed, Size
from latentforge.plugins.attribution import call_component
from latentforge.plugins.registry import Entry

T = TypeVar("T")

IN_MEMORY = "in-memory"  # the data section's name when Python handed the data over

AS_TRAINED = "as trained"  # the weights of a run without an average


def weights_of(train: TrainConfig) -> str:
    """Which weights of a run are measured and explored, in words."""
    return f"exponential moving average, decay {train.ema:g}" if train.ema else AS_TRAINED


@dataclass(frozen=True)
class DataConfig:
    """What the core does with any dataset. `validation` is the share cut off for choosing: 0 by
    default where there is an official test split, else 0.1. `test` is cut off where there is no
    official one: 0.2 by default. `binarize`: threshold at 0.5, fixed: drawn once with the grey
    value as probability, dynamic: training images drawn anew each time.

    `stream` reads images as they are wanted: auto where they are more than half of the free memory.
    `workers` are processes that then read ahead. 0, reading in the training's own process, needs
    no more memory and no room in /dev/shm, and does for files of numbers; decoding wants some."""

    validation: Fraction | None = None
    test: Fraction | None = None
    split_seed: Seed = 0
    binarize: Literal["none", "threshold", "fixed", "dynamic"] = "none"
    stream: Literal["auto", "always", "never"] = "auto"
    workers: Annotated[int, Ge(0), Le(256)] = 0


DEVICES = "auto, cpu, mps, cuda or cuda:N"


def is_device(name: str) -> bool:
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is not None


class DeviceName:
    """The bound of a device's name, so that a wrong one is a fault among the others."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError
        from pydantic_core.core_schema import no_info_after_validator_function

        def checked(name: str) -> str:
            if not is_device(name):
                raise PydanticCustomError("device", f"must be {DEVICES}")
            return name

        return no_info_after_validator_function(checked, handler(source))


def check_device(name: str) -> None:
    """Raises UsageError for what no machine has; whether this one has it, the engine knows."""
    if not is_device(name):
        raise UsageError(f"device must be {DEVICES}, got {name!r}")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves. `epochs` is the schedule's own length, by default what
    train.epochs was at the start; `end` the share of lr that is left then; `step` multiplies by
    `factor` after `every` epochs. A linear warm-up may come first."""

    name: Literal["constant", "linear", "cosine", "exponential", "step"] = "constant"
    epochs: Count = 0
    warmup_epochs: NonNegative = 0.0
    end: Annotated[float, Gt(0), Le(1)] = 0.01
    every: Size = 10
    factor: Annotated[float, Gt(0), Le(1)] = 0.1


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `evaluate_every`: test figures every N epochs, 0 for the end only. `threads`:
    0 is torch's choice, all cores; fewer are faster where others use the cores too.

    `accumulate` cuts each batch in so many parts, to save memory. `clip_grad_norm` and `ema` (the
    decay of an average of the weights, which is then measured and explored) are off at 0. BEST is
    by the validation figure `monitor`; `patience` epochs without a better one end the training.

    A checkpoint is written at the end of every epoch, and after every `checkpoint_every` steps or
    `checkpoint_seconds` where these are not 0.

    `precision` bf16 multiplies matrices in bfloat16 while training; weights, losses and evaluation
    stay float32. `channels_last` stores convolutions by pixel, auto where there are any.
    `compile` hands the forward pass to torch.compile. `cuda_graph` replays the whole step as one
    graph on CUDA: auto for small models, and step by step where it cannot be; on refuses instead.
    """

    epochs: Size = 10
    batch_size: Size = 64
    lr: Positive = 1e-3
    optimizer: Literal[
        "adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam"
    ] = "adam"
    weight_decay: NonNegative = 0.0
    optimizer_options: dict[str, bool | int | float | list[float]] = field(default_factory=dict)
    seed: Seed = 0
    device: Annotated[str, DeviceName()] = "auto"
    threads: Annotated[int, Ge(0), Le(1024)] = 0
    log_every: Size = 50
    evaluate_every: Count = 0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clip_grad_norm: NonNegative = 0.0
    accumulate: Size = 1
    ema: Fraction = 0.0
    monitor: str = "loss"
    patience: Count = 0
    min_delta: NonNegative = 0.0
    checkpoint_every: Count = 0
    checkpoint_seconds: NonNegative = 0.0
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    cuda_graph: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True)
class Component:
    """A chosen plugin component with its checked options."""

    entry: Entry
    options: Any
    unasked: bool = False  # a default measure, which no user has named

    @property
    def name(self) -> str:
        return self.entry.name

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.entry.reference, **plain(self.options)}

    def call(self, doing: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call one of the component's functions; PluginError that names it if it raises."""
        return call_component(doing, [self.entry], function, *args, **options)


@dataclass(frozen=True)
class RunConfig:
    """A run's whole configuration, every default filled in and every value checked.

    `dataset` is None for data handed over in Python.
    """

    model: Component
    loss: Component
    dataset: Component | None
    data: DataConfig
    train: TrainConfig
    callbacks: tuple[Component, ...] = ()

    @property
    def data_name(self) -> str:
        return self.dataset.name if self.dataset else IN_MEMORY

    def components(self) -> list[Component]:
        named = (self.model, self.loss, self.dataset, *self.callbacks)
        return [component for component in named if component]

    def as_dict(self) -> dict[str, Any]:
        """The shape of the TOML file."""
        dataset = self.dataset.as_dict() if self.dataset else {"name": IN_MEMORY}
        return {
            "model": self.model.as_dict(),
            "loss": self.loss.as_dict(),
            "data": {**dataset, **plain(self.data)},
            "train": plain(self.train),
            "callbacks": [callback.as_dict() for callback in self.callbacks],
        }
