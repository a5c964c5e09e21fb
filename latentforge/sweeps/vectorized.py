"""Trains several members as one stacked model, each in its own run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.config.schema import RunConfig
from latentforge.data.images import ImageSplit
from latentforge.data.loading import load_splits
from latentforge.engine.build import build_trainee, move_to_device
from latentforge.engine.trainer import Trainer
from latentforge.engine.vectorized.equivalence import find_obstacle
from latentforge.engine.vectorized.trainer import Group, MemberTrainer
from latentforge.errors import Interrupted, LatentForgeError, one_line
from latentforge.plugins.registry import Registry
from latentforge.runs.folder import create_run_folder, lock_run, remove_temporary_files
from latentforge.runs.manifest import build_manifest
from latentforge.runtime.device import select_training_device
from latentforge.runtime.threads import use_threads
from latentforge.seeding import callers_state_kept
from latentforge.workflows.run import Run
from latentforge.workflows.session import TrainingSession
from latentforge.workflows.train import compute_facts

if TYPE_CHECKING:
    from latentforge.data.splits import DataSplits
    from latentforge.engine.step import Trainee


class VectorizedJob:
    """Trains a member for each of `configs`, in the folders `paths`. At the end of each member,
    `on_end` receives its index and its error, or None if it is done."""

    def __init__(
        self,
        registry: Registry,
        paths: Sequence[Path],
        configs: Sequence[RunConfig],
        on_end: Callable[[int, BaseException | None], None],
        *,
        quiet: bool,
        data: Any,
    ) -> None:
        self.registry, self.paths, self.configs, self.on_end = registry, paths, configs, on_end
        self.quiet, self.data = quiet, data
        self.stacks: dict[Trainer, tuple[int, ExitStack]] = {}
        self.stopped: Interrupted | None = None

    def train(self) -> str:
        """Train all members. If they cannot be trained together, start none and return the reason.

        Raises Interrupted after a signal. A member's error is passed to `on_end`, not raised.
        """
        config = self.configs[0]
        try:  # each member reports an invalid request when it is trained alone
            device = select_training_device(config.train.device)
            splits = move_to_device(load_splits(config.dataset, config.data, self.data), device)
            images = splits.split("train")
        except Exception as error:
            return format_reason(error)
        if type(images) is not ImageSplit:
            return "the images are streamed"
        with use_threads(config.train.threads), callers_state_kept(device):
            try:
                trainees = [build_trainee(each, splits).to(device) for each in self.configs]
            except Exception as error:  # memory may suffice for one member, but not for all
                return format_reason(error)
            if reason := find_obstacle(trainees, self.configs, images, device, splits.spec):
                return reason
            try:
                self._train(trainees, splits, device)
            finally:
                for trainer in list(self.stacks):  # any left only if the whole group stopped
                    self._end(trainer, sys.exc_info()[1])
        if self.stopped:
            raise self.stopped
        return ""

    def _train(self, trainees: Sequence[Trainee], splits: DataSplits, device: Any) -> None:
        for index, trainee in enumerate(trainees):
            try:
                self._begin(index, trainee, splits, device)
            except Interrupted as stop:
                self.on_end(index, stop)
                raise KeyboardInterrupt from None  # the others end in the same way
            except Exception as error:
                self.on_end(index, error)
        trainers = [t for t in self.stacks if isinstance(t, MemberTrainer)]
        if not trainers:
            return
        stream = None if self.quiet else sys.stderr
        group = Group(trainers, on_failed=self._end, on_done=self._end, stream=stream)
        try:
            group.fit()
        except Exception as error:
            for trainer in list(self.stacks):
                self._end(trainer, error)

    def _begin(self, index: int, trainee: Trainee, splits: DataSplits, device: Any) -> None:
        config, path = self.configs[index], self.paths[index]
        with ExitStack() as stack:
            facts = compute_facts(trainee, config, splits)
            create_run_folder(path, path.parent, "")
            others = [other.name for other in self.paths if other != path]
            content = build_manifest(config, splits, device)
            content |= {"facts": facts, "together_with": others}
            run = Run(path, content, self.registry)
            if self.data is not None:
                run.in_memory = splits
            run.write_first()
            stack.enter_context(lock_run(path))
            remove_temporary_files(path)
            run.training = True
            session = TrainingSession(
                run, config, splits, trainee, device, quiet=True, trainer=MemberTrainer
            )
            trainer = stack.enter_context(session).trainer
            session.begin()
            self.stacks[trainer] = (index, stack.pop_all())

    def _end(self, trainer: Trainer, error: BaseException | None = None) -> None:
        """End a member's session, with its error if there is one, and report the end to
        `on_end`."""
        index, stack = self.stacks.pop(trainer)
        try:
            if error is None:
                stack.close()
            elif not stack.__exit__(type(error), error, error.__traceback__):
                raise error
        except Interrupted as stop:
            self.stopped = stop
            self.on_end(index, stop)
        except Exception as failure:
            self.on_end(index, failure)
        else:
            self.on_end(index, None)


def format_reason(error: Exception) -> str:
    return error.message if isinstance(error, LatentForgeError) else one_line(error)
