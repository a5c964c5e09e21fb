"""Builds the parts of a run: model, loss, images on the device, and the step runner.

Only `build_step_runner` chooses the strategy: eager, compiled, CUDA graph or data-parallel.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from latentforge.config.schema import Component, RunConfig
from latentforge.contracts import DataSpec
from latentforge.data.images import ImageSplit
from latentforge.data.layout import list_signal_layouts
from latentforge.data.splits import DataSplits
from latentforge.engine.compiled import CompiledStep
from latentforge.engine.cuda_graph import CudaGraphStep
from latentforge.engine.memory_format import set_memory_format
from latentforge.engine.step import StepRunner, Trainee
from latentforge.errors import LatentForgeError, PluginError
from latentforge.plugins.attribution import call_component
from latentforge.seeding import mix

if TYPE_CHECKING:
    from latentforge.runtime.process_group import ProcessGroup

INITIALIZE = (
    "`build` knows the data: give the layers their sizes, such as data.size, or call them once in "
    "`build` with torch.zeros(1, *data.shape)"
)


def build_trainee(config: RunConfig, splits: DataSplits) -> Trainee:
    """Build the model and the loss on the CPU, with initial weights that depend on the seed."""
    torch.manual_seed(mix("init", config.train.seed))
    conditional = "conditional" in config.model.entry.provides
    modules = build_modules(config, splits.spec, splits.preprocessing["layout"])
    trainee = Trainee(*modules, config.train.precision, conditional=conditional)
    set_memory_format(trainee, config.train)
    return trainee


def build_modules(
    config: RunConfig, spec: DataSpec, layout: str = ""
) -> tuple[nn.Module, nn.Module]:
    """Build the model and the loss on the CPU. Raises PluginError if one cannot be built. `layout`
    is that of the stored examples, if they are known, for the hint of a model of signals."""
    model, loss = config.model, config.loss
    try:
        network = model.call(f"building model {model.name!r}", build_module, model, spec)
    except LatentForgeError as error:
        add_signal_layouts(error, model, spec, layout)
        raise
    if (sampler := config.inference) is not None:
        doing = f"setting the inference options of model {model.name!r}"
        model.call(doing, setattr, network, "sampler", sampler)
    return network, loss.call(f"building loss {loss.name!r}", build_module, loss, spec)


def add_signal_layouts(
    error: LatentForgeError, model: Component, spec: DataSpec, layout: str
) -> None:
    """Add to the hint of an error from building a model whose example is a signal that the data can
    be read as signals. A shape without another reading as signals is suggested first."""
    example = model.entry.spec.example
    if example is None or example.kind != "signal":
        return
    layouts = list_signal_layouts(spec.shape, layout)
    options = " or ".join(f"--set data.layout={name}" for name in layouts)
    parts = [f"{options}, if the examples are signals" if options else "", error.hint]
    error.hint = ", or ".join(filter(None, parts if len(layouts) == 1 else parts[::-1]))


def build_module(component: Component, spec: DataSpec) -> nn.Module:
    roles = (component.roles,) if component.roles else ()
    module = component.entry.spec.build(component.options, spec, *roles)
    if not isinstance(module, nn.Module):
        raise TypeError(f"build returned {type(module).__name__}, not an nn.Module")
    if any(map(is_lazy, chain(module.parameters(), module.buffers()))):
        title = f"{component.entry.kind.singular} {component.name!r}"
        raise PluginError(f"{title} {describe_lazy_layers(module)}", hint=INITIALIZE)
    parts = {*module.modules()} if component.roles else set()
    for name, role in component.roles.items():
        if role.model in parts:  # its weights would be stored, averaged and trained as its own
            raise PluginError(
                f"{component.entry.kind.singular} {component.name!r} contains the model of its "
                f"role {name} as a submodule",
                hint=f"assign roles[{name!r}] to an attribute, and not roles[{name!r}].model",
            )
    return module


def describe_lazy_layers(module: nn.Module) -> str:
    """Return what is wrong with a built module some of whose parameters or buffers have no shape,
    which the optimizer and checkpoints need, or an empty string."""
    tensors = chain(module.named_parameters(), module.named_buffers())
    names = [name for name, tensor in tensors if is_lazy(tensor)]
    return f"has lazy layers that `build` does not initialize: {', '.join(names)}" if names else ""


def move_to_device(splits: DataSplits, device: torch.device) -> DataSplits:
    """Move the images to a device. Raises RunFailed if its memory is too small."""
    action, hint = "moving the images to the device", "--device cpu, or fewer images"
    return call_component(action, (), splits.to, device, save_memory=hint)


def build_step_runner(
    trainee: Trainee,
    images: ImageSplit,
    config: RunConfig,
    device: torch.device,
    processes: ProcessGroup | None = None,
) -> StepRunner:
    """Build the step runner for the configuration, the device and the process group."""
    arguments = trainee, images, config, device
    if not processes and not config.train.compile:
        return CudaGraphStep(*arguments) if device.type == "cuda" else StepRunner(*arguments)
    runner: StepRunner
    if processes:
        from latentforge.engine.data_parallel import CompiledDataParallelStep, DataParallelStep

        kind = CompiledDataParallelStep if config.train.compile else DataParallelStep
        runner = kind(*arguments, processes)
    else:
        runner = CompiledStep(*arguments)
    if device.type == "cuda":
        reason = "several processes share each step"
        runner.without_graph(reason if processes else "train.compile is on")
    return runner
