"""The classes of a resolved configuration, as a run stores it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le

from latentforge.config.validation import plain
from latentforge.contracts import RangeName
from latentforge.errors import UsageError
from latentforge.options import Count, Fraction, NonNegative, Positive, Seed, Size
from latentforge.plugins.attribution import call_component
from latentforge.plugins.registry import Entry

T = TypeVar("T")

DATASET = "digits"  # the default dataset
IN_MEMORY = "in-memory"  # the dataset name that stands for data passed in Python

PROTOCOL = 2
"""The current evaluation protocol, which determines the noise of evaluations: under protocol 2 it
is a function of the run's seed and the split, under protocol 1 of the seed only."""

AS_TRAINED = "as trained"  # describes the weights of a run without EMA


def describe_weights(train: TrainConfig) -> str:
    """Describe the weights of a run that are evaluated and explored."""
    return f"exponential moving average, decay {train.ema:g}" if train.ema else AS_TRAINED


class LayoutName:
    """Validates a layout, so that a wrong one is reported with the other faults."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError
        from pydantic_core.core_schema import no_info_after_validator_function

        def validate(name: str) -> str:
            letters = set(name)
            is_image = {*"NHW"} <= letters <= {*"NCDHW"} and not {*"CD"} <= letters
            complete = is_image or {*"NL"} <= letters <= {*"NCL"}
            if name not in ("auto", "signal") and not (complete and len(letters) == len(name)):
                text = (
                    "must be auto, signal, or name each axis once, as in NHWC or NCL: N, H, W and "
                    "C or D for images; N, L and C for signals"
                )
                raise PydanticCustomError("layout", text)
            return name

        return no_info_after_validator_function(validate, handler(source))


@dataclass(frozen=True)
class DataConfig:
    """The options of [data] for every dataset. `validation` is the fraction of the training images
    that becomes the validation split: by default 0 if there is an official test or validation
    split, else 0.1. `test` is the fraction that becomes the test split if there is no official one:
    0.2 by default. `split_seed` seeds the splits and `binarize`. `binarize` is threshold (at 0.5),
    fixed (each pixel is sampled once, with the grey value as probability) or dynamic (training
    images are sampled again each time they are used).

    `layout` names the axes of the images, as in NHWC: N images, C channels, D slices, H height, W
    width; L is the length of signals, as in NCL. auto recognises images and vectors, and signal
    recognises signals, where the shape has one reading. `black` and `white` are the stored
    values that become 0 and 1: by default 0 and 255 for uint8, 65535 for uint16, 1 for floats.

    `range` is the range of the values that a model sees: unit is from 0 (black) to 1 (white),
    signed from -1 to 1; counts are whole numbers from 0, and any are real numbers, both kept as
    they are stored. The default is that of the dataset, or else unit. `normalize` standardizes
    values of the range any, which is then the default: a model sees (x - mean) / deviation of each
    channel of images and signals, or of each value of vectors, in the training split. Decoded
    values have the units of the data again in figures and files.

    `stream` reads images on demand: auto if they take more than half of the free memory. `workers`
    is the number of processes that prefetch such images. 0 reads them in the training process,
    which needs no extra memory and no space in /dev/shm, and is fast enough for files of arrays.
    Decoding of image files benefits from workers.
    """

    validation: Fraction | None = None
    test: Fraction | None = None
    split_seed: Seed = 0
    binarize: Literal["none", "threshold", "fixed", "dynamic"] = "none"
    layout: Annotated[str, LayoutName()] = "auto"
    black: float | None = None
    white: float | None = None
    range: RangeName | None = None
    normalize: bool = False
    stream: Literal["auto", "always", "never"] = "auto"
    workers: Annotated[int, Ge(0), Le(256)] = 0

    def __post_init__(self) -> None:
        if fault := find_range_fault(self, self.requested_range or "unit"):
            raise ValueError(fault)

    @property
    def requested_range(self) -> RangeName | None:
        """`range`, which is "any" by default if the values are to be standardized."""
        return self.range or ("any" if self.normalize else None)


def find_range_fault(config: DataConfig, values: RangeName) -> str:
    """Return what is wrong with options that have no meaning for data of the range `values`, or an
    empty string."""
    levels = [f"data.{key}" for key in ("black", "white") if getattr(config, key) is not None]
    if levels and values in ("counts", "any"):
        return f"{' and '.join(levels)}: values of data.range={values} are kept as they are stored"
    if config.binarize != "none" and values != "unit":
        return f"data.binarize={config.binarize} needs data.range=unit, not {values}"
    if config.normalize and values != "any":
        return f"data.normalize=true needs data.range=any, not {values}"
    return ""


DEVICES = "auto, cpu, mps, cuda or cuda:N"


def is_device(name: str) -> bool:
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is not None


class DeviceName:
    """Validates the name of a device, so that a wrong one is reported with the other faults."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError
        from pydantic_core.core_schema import no_info_after_validator_function

        def validate(name: str) -> str:
            if not is_device(name):
                raise PydanticCustomError("device", f"must be {DEVICES}")
            return name

        return no_info_after_validator_function(validate, handler(source))


def check_device(name: str) -> None:
    """Raise UsageError for an invalid name. The engine checks whether the device exists."""
    if not is_device(name):
        raise UsageError(f"device must be {DEVICES}, got {name!r}")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning-rate schedule. `epochs` is the length of the schedule, by default the initial
    value of train.epochs; `end` is the fraction of lr that remains at its end; `step` multiplies lr
    by `factor` after `every` epochs. The schedule may begin with a linear warm-up over
    `warmup_epochs`."""

    name: Literal["constant", "linear", "cosine", "exponential", "step"] = "constant"
    epochs: Count = 0
    warmup_epochs: NonNegative = 0.0
    end: Annotated[float, Gt(0), Le(1)] = 0.01
    every: Size = 10
    factor: Annotated[float, Gt(0), Le(1)] = 0.1


@dataclass(frozen=True)
class TrainConfig:
    """The options of [train]. Test metrics are computed every `evaluate_every` epochs, with 0 only
    at the end. `threads` 0 lets torch use all cores; fewer threads are faster if other processes
    use the cores too.

    `accumulate` divides each batch into this many parts, to save memory. `clip_grad_norm` and `ema`
    are off at 0. `ema` is the decay of a moving average of the weights; the average is then
    evaluated and explored. The checkpoint BEST is selected by the validation metric `monitor`;
    training stops after `patience` epochs without improvement, unless this is 0.

    A checkpoint is written at the end of every epoch, and after every `checkpoint_every` steps or
    `checkpoint_seconds` if these are not 0.

    `precision` bf16 multiplies matrices in bfloat16 while training; weights, losses and evaluation
    stay float32. `channels_last` stores convolutions in that memory format; auto does so if the
    model contains any. `compile` passes the forward pass to torch.compile. `cuda_graph` replays the
    whole step as one CUDA graph: auto does so for small models where it is possible; on raises an
    error where it is not.
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
    """A selected component of a plugin, with its validated options."""

    entry: Entry
    options: Any
    is_default: bool = False  # a default measure that the user did not name
    roles: Mapping[str, Any] = field(default_factory=dict, compare=False)  # loaded, by role

    def with_roles(self, loaded: Mapping[str, Any]) -> Component:
        """Return the component with those of the loaded runs that its spec names."""
        return replace(self, roles={role: loaded[role] for role in self.entry.spec.roles or ()})

    @property
    def name(self) -> str:
        return self.entry.name

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.entry.reference, **plain(self.options)}

    def call(self, doing: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call one of its functions. An error becomes a PluginError that names the component."""
        return call_component(doing, [self.entry], function, *args, **options)


@dataclass(frozen=True)
class OtherData:
    """Data that replaces the own data of a run: a dataset, or `data` that was passed in Python with
    options. It is split only if `split` is set. `scaled` is whether the request gives its levels or
    its range."""

    dataset: Component | None
    config: DataConfig
    split: bool = False
    scaled: bool = False
    data: Any = None


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run: every default filled in, every value validated. `roles`
    are the folders of the other runs that it uses, as they were requested; `role_runs` are their
    opened folders and configurations.

    `sampler` are the inference options of the run, or None if its model has none. `other_sampler`
    replaces them where the run is used, without a new training."""

    model: Component
    loss: Component
    dataset: Component | None  # None for data that was passed in Python
    data: DataConfig
    train: TrainConfig
    callbacks: tuple[Component, ...] = ()
    roles: Mapping[str, Path] = field(default_factory=dict)
    role_runs: Mapping[str, tuple[Any, RunConfig]] = field(default_factory=dict, compare=False)
    sampler: Any = None
    other_sampler: Any = field(default=None, compare=False)

    @property
    def inference(self) -> Any:
        """The inference options that the model uses, or None if it has none."""
        return self.sampler if self.other_sampler is None else self.other_sampler

    @property
    def data_name(self) -> str:
        return self.dataset.name if self.dataset else IN_MEMORY

    @property
    def loaded_roles(self) -> dict[str, Any]:
        """The loaded runs of all components, by role; empty until they are loaded."""
        parts = (part for part in (self.model, self.loss, self.dataset) if part)
        return {role: run for part in parts for role, run in part.roles.items()}

    def components(self) -> list[Component]:
        selected = (self.model, self.loss, self.dataset, *self.callbacks)
        return [component for component in selected if component]

    def as_dict(self) -> dict[str, Any]:
        """The configuration with the structure of the TOML file."""
        dataset = self.dataset.as_dict() if self.dataset else {"name": IN_MEMORY}
        roles = {role: str(path) for role, path in self.roles.items()}
        return {
            "model": self.model.as_dict(),
            "loss": self.loss.as_dict(),
            "data": {**dataset, **plain(self.data)},
            "train": plain(self.train),
            "callbacks": [callback.as_dict() for callback in self.callbacks],
            **({"roles": roles} if roles else {}),
            **({} if self.sampler is None else {"sampler": plain(self.sampler)}),
        }
