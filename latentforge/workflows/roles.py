"""Other runs in the roles of a run: their frozen models, their codes, and the copies of them that
the run keeps in its own folder."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from latentforge.contracts import Batch, DataSpec, Step, at_once
from latentforge.data.images import ImageSplit
from latentforge.data.memory import MAX_FRACTION
from latentforge.data.splits import DataSplits
from latentforge.errors import RunFailed
from latentforge.io.atomic import read_json
from latentforge.io.paths import write_error, write_json
from latentforge.latent import DiagonalGaussian, GivenClass, Point
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.folder import MANIFEST, ROLES, RunFolder
from latentforge.runtime.memory import device_memory, host_memory
from latentforge.seeding import callers_state_kept, mix, noise_like
from latentforge.specs import Role

BATCH = 1000  # examples in a pass over a split
SAMPLES = 20_000  # codes of which the deviation is known to 0.5 %
CODES = "codes.json"
"""The file in the copy of a run that contains the mean and the deviation of its codes."""
STORED_GROUPS = ("model", "loss", "ema-model", "ema-loss")
"""The tensors of a checkpoint that a copy contains; only resuming needs the others."""


@dataclass(frozen=True)
class LoadedModel:
    """A run's model and loss in evaluation mode, and the checkpoint they come from."""

    run: RunFolder
    model: nn.Module
    loss: nn.Module
    data: DataSpec
    checkpoint: str
    step: Step
    digest: str  # of the weights
    provides: frozenset[str]  # the capabilities of the model

    @property
    def name(self) -> str:
        return self.run.name


class Posteriors(NamedTuple):
    """The posteriors of a split: their modes and, if they are Gaussians, their standard deviations,
    (N, *latent.shape) each. `sampled` is whether samples can be drawn from these."""

    mode: Tensor
    deviation: Tensor | None
    sampled: bool


class LoadedRole:
    """The run in a role: an `OtherRun` of the contracts."""

    def __init__(
        self,
        role: Role,
        loaded: LoadedModel,
        device: torch.device,
        load_data: Callable[[], DataSplits],
        seed: int,
    ) -> None:
        self.role, self.device, self.seed = role, device, seed
        self.run, self.loss = loaded.run, loaded.loss
        self.model: Any = loaded.model
        self.data, self.checkpoint, self.digest = loaded.data, loaded.checkpoint, loaded.digest
        self.provides = loaded.provides
        self._load_data = load_data
        self._splits: DataSplits | None = None
        self._select: Callable[[str], ImageSplit] | None = None  # replaces `_splits`
        self._posteriors: WeakKeyDictionary[ImageSplit, Posteriors] = WeakKeyDictionary()
        self._scale: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> LoadedRole:
        return self  # a moving average of a model shares its frozen parts

    @property
    def name(self) -> str:
        return self.run.name

    def use(self, splits: DataSplits) -> None:
        """Use the data of the run that has this role, if the role requires the same kind."""
        if self.role.same_data:
            self._splits = splits

    def given_class(self, label: Tensor, images: Callable[[str], ImageSplit]) -> LoadedRole:
        """Return the run under one class, int64 (): a conditional model is a view. `images(split)`
        are the images of the class in the run that has this role."""
        given = copy.copy(self)
        if "conditional" in self.provides:
            given.model = GivenClass(self.model, label)
            given.provides = self.provides - {"conditional"}
            given._posteriors = WeakKeyDictionary()
        if self.role.same_data:
            given._select = images
        return given

    def images(self, split: str) -> ImageSplit:
        if self._select is not None:
            return self._select(split)
        if self._splits is None:
            self._splits = self._load_data()
        return self._splits.split(split)

    # ------------------------------------------------------------ codes

    def codes(self, split: str, *, sample: bool = False) -> Tensor:
        images = self.images(split)
        parts = (self.encode(batch, sample=sample) for batch in self._batches(images))
        return torch.cat(list(parts))

    def encode(self, batch: Batch, *, sample: bool = False) -> Tensor:
        stored = self._stored(batch.images)
        if stored is None or (sample and not stored.sampled):
            posterior = self._encode(batch.x)
            z: Tensor = posterior.sample() if sample else posterior.mode()
        else:
            index = batch.index.to(self.device)
            z = stored.mode.index_select(0, index)
            if sample and stored.deviation is not None:
                z = torch.addcmul(z, stored.deviation.index_select(0, index), noise_like(z))
        if not self.role.standardize:
            return z
        mean, deviation = self.scale
        return (z - mean) / deviation

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.model.decode(self._restore(z))
        return x

    def decode_logits(self, z: Tensor) -> Tensor:
        logits: Tensor = self.model.decode_logits(self._restore(z))
        return logits

    @property
    def scale(self) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation of samples of the posteriors of the training
        examples, which are wider than their modes. Tensors that broadcast against codes, with one
        value for each channel of a spatial code, or for each dimension of another one."""
        if self._scale is None:
            self._scale = self._compute_scale()
        return self._scale

    def _compute_scale(self) -> tuple[Tensor, Tensor]:
        count, total, squares = 0, 0.0, 0.0
        images = self.images("train")
        repeats = math.ceil(SAMPLES / len(images))
        with callers_state_kept(self.device):
            torch.manual_seed(mix("codes of a role", self.seed))
            for batch in self._batches(images):
                posterior = self._encode(batch.x)
                for _ in range(repeats):
                    z = posterior.sample().double()
                    axes = [0, *range(2, z.ndim)]
                    count += z.numel() // z.shape[1]
                    total = total + z.sum(axes, keepdim=True)
                    squares = squares + z.square().sum(axes, keepdim=True)
        mean = torch.as_tensor(total / count)
        deviation = (torch.as_tensor(squares / count) - mean.square()).clamp(min=0).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)  # a dimension without variance
        return mean[0].float(), deviation[0].float()

    def read_scale(self, folder: Path) -> None:
        """Read the scale from a copy of the run. Raises RunFailed if it is damaged."""
        try:
            content = read_json(folder / CODES)
            mean, deviation = (torch.tensor(content[key]) for key in ("mean", "deviation"))
            if mean.shape != deviation.shape or not bool((deviation > 0).all()):
                raise ValueError("mean and deviation do not fit")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunFailed(
                f"{folder / CODES} is damaged: {error}", hint="restore it, or train a new run"
            ) from None
        self._scale = mean.to(self.device), deviation.to(self.device)

    def _restore(self, z: Tensor) -> Tensor:
        if not self.role.standardize:
            return z
        mean, deviation = self.scale
        return z * deviation + mean

    def _encode(self, x: Tensor) -> Any:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.model.encode(x.to(self.device))

    def _batches(self, images: ImageSplit) -> Any:
        return images.batches(at_once(self.data, BATCH))

    def _stored(self, images: Any) -> Posteriors | None:
        """The posteriors of a split, or None if they are not stored: they do not fit into memory,
        or the values of an example differ in each epoch."""
        if images is None or images.dynamic:
            return None
        if images not in self._posteriors:
            z = self._encode(images.batch_at([0]).x).mode()
            size = 2 * len(images) * z.numel() * z.element_size()
            cuda = self.device.type == "cuda"
            if size > MAX_FRACTION * (device_memory(self.device) if cuda else host_memory()):
                return None
            self._posteriors[images] = self._compute_posteriors(images)
        return self._posteriors[images]

    def _compute_posteriors(self, images: ImageSplit) -> Posteriors:
        modes, deviations, kinds = [], [], set()
        for batch in self._batches(images):
            posterior = self._encode(batch.x)
            kinds.add(type(posterior))
            modes.append(posterior.mode())
            if isinstance(posterior, DiagonalGaussian):
                deviations.append((0.5 * posterior.log_var).exp())
        deviation = torch.cat(deviations) if deviations else None
        return Posteriors(torch.cat(modes), deviation, kinds <= {DiagonalGaussian, Point})


def store_roles(roles: dict[str, LoadedRole], folder: Path) -> dict[str, Any]:
    """Copy the configuration and the weights of each role into the folder of a new run. Return what
    run.json says about them. Raises RunFailed, and removes the copies, if the disk fails."""
    about = {}
    try:
        for name, role in roles.items():
            target = folder / ROLES / name
            target.mkdir(parents=True)
            write_json(target / MANIFEST, role.run.manifest)
            saved = CheckpointStore(role.run.path / "checkpoints").load(role.checkpoint)
            groups = [group for group in STORED_GROUPS if group in saved.groups]
            tensors = {group: saved.tensors(group) for group in groups}
            CheckpointStore(target / "checkpoints").save(saved.name, tensors, saved.state)
            if role.role.standardize:
                mean, deviation = (values.cpu().tolist() for values in role.scale)
                write_json(target / CODES, {"mean": mean, "deviation": deviation})
            if (role.run.path / ROLES).is_dir():
                shutil.copytree(role.run.path / ROLES, target / ROLES)
            about[name] = {
                "source": str(role.run.path.absolute()),
                "model": role.run.config["model"]["name"],
                "checkpoint": saved.name,
                "digest": role.digest,
            }
    except BaseException as error:
        shutil.rmtree(folder / ROLES, ignore_errors=True)
        if isinstance(error, OSError):
            raise write_error(folder, error) from None
        raise
    return about
