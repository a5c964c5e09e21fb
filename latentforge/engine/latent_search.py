"""Latent search: moves codes by gradient steps until their decoded values satisfy an objective.

The search is an Ignite engine: an epoch is one round of starts, and an iteration is one gradient
step of all open requests. It needs no run, because any differentiable function can be the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from latentforge.engine.evaluator import quiet_engine
from latentforge.engine.optimizer import OPTIMIZERS
from latentforge.errors import RunFailed, UsageError
from latentforge.io.text import counted
from latentforge.seeding import generator

if TYPE_CHECKING:
    from latentforge.contracts import Objective


@dataclass(frozen=True)
class Found:
    """The best code of each of N requests, and how it was found.

    `z`: (N, *latent). `x`: (N, ...), the decoded `z`. `score`: (N,). `satisfied`: bool (N,).
    `round`, int64 (N,), is the start that led to `z`. `first_round` and `steps`, int64 (N,), are
    the round in which the request was first satisfied and the number of gradient steps until then,
    including earlier rounds. If the request was never satisfied, they describe `z` instead.
    `paths` contains, for each watched request, the codes (T, *latent) from the start to `z`,
    including the steps that settle.
    """

    z: Tensor
    x: Tensor
    score: Tensor
    satisfied: Tensor
    round: Tensor
    first_round: Tensor
    steps: Tensor
    paths: dict[int, Tensor]


def search(
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    start: Tensor,
    *,
    steps: int = 60,
    lr: float = 0.1,
    optimizer: str = "adam",
    noise: float = 0.0,
    scale: Tensor | float = 1.0,
    prior: Callable[[Tensor], Tensor] | None = None,
    prior_weight: float = 1.0,
    seed: int = 0,
    settle: int = 0,
    jitter: float = 0.0,
    solutions: int = 1,
    watch: Sequence[int] = (),
    attach: Callable[[Engine], None] | None = None,
) -> Found:
    """Move codes uphill on `objective.score(decode(z)) + prior_weight * prior(z)`.

    `start` (restarts, N, *latent): every request starts at `start[0]`. If `steps` gradient steps do
    not satisfy it, it restarts at `start[1]`, and so on. The steps end as soon as the request is
    satisfied. The code is then at the edge of the satisfying region, so `settle` more steps follow.
    Their gradients are computed after a random move by `jitter`, which leads to a code whose
    neighbours satisfy the request too. A request restarts until it has `solutions` solutions. The
    solution with the highest score is kept, or, without a solution, the code with the highest score
    plus prior. `decode` maps (B, *latent) to x, and `prior` maps z to a log density in nats (B,).

    `scale`, a number or one number for each latent dimension, is the unit of `lr`, `jitter` and
    `noise`. Gaussian `noise` is added after each step, decreases to zero over a round, and moves
    codes across plateaus without a gradient. `attach(engine)` may add handlers: an epoch is a
    round, and `engine.state.metrics["satisfied"]` is the fraction of satisfied requests so far.

    Gradients are enabled regardless of the caller's mode. Raises UsageError for a start that does
    not fit the objective, an unknown optimizer, or weights created in inference_mode, and RunFailed
    if a score is never finite. Sources: Nguyen et al. 2016 move codes by a classifier's gradient
    under a prior; the noise is simulated annealing (Kirkpatrick et al. 1983).
    """
    check_start(objective, start, watch)
    check_numbers({"steps": steps, "solutions": solutions}, least=1)
    options = {"settle": settle, "noise": noise, "jitter": jitter, "prior_weight": prior_weight}
    check_numbers(options, least=0)
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {optimizer!r}")
    # inference_mode disables gradients even inside enable_grad
    with torch.inference_mode(False), torch.enable_grad(), explain_inference_tensors():
        start, unit = start.clone(), torch.as_tensor(scale).to(start).clone()
        if not bool((unit > 0).all()) or not 0 < lr < math.inf:
            raise UsageError(f"lr and scale must be above 0, not {lr} and {scale}")

        def evaluate(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Return x, the score (B,), and the height (B,), which is the score plus the prior."""
            x = decode(z)
            score = objective.score(x, rows)
            return x, score, score if prior is None else score + prior_weight * prior(z)

        best = _Best(objective, start, watch)
        codes = _OpenCodes(unit, optimizer, lr, generator(start.device, "search", seed))
        rounds = _Rounds(evaluate, best, codes, start, steps, noise, settle, jitter, solutions)
        engine = quiet_engine(rounds.step)
        engine.add_event_handler(Events.EPOCH_STARTED, rounds.begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, rounds.end)
        if attach:
            attach(engine)
        engine.run(max_epochs=len(start), epoch_length=steps)
        with torch.no_grad():
            return best.result(decode)


def check_start(objective: Objective, start: Tensor, watch: Sequence[int]) -> None:
    """Raise UsageError if starts do not fit the requests, or a watched request does not exist."""
    requests = len(objective.requests)
    if start.ndim < 3 or start.shape[1] != requests or not start.numel():
        raise UsageError(
            f"start must be (restarts, {requests}, *latent) for {counted(requests, 'request')}, "
            f"not {tuple(start.shape)}"
        )
    if not (start.is_floating_point() and bool(start.isfinite().all())):
        raise UsageError("start must contain finite floats")
    if unknown := [request for request in watch if not 0 <= request < requests]:
        raise UsageError(f"watch: no request {unknown[0]}: there are {requests}, from 0")


def check_numbers(numbers: Mapping[str, float], least: int) -> None:
    """Raise UsageError if one of the named numbers is below `least` or not finite."""
    for name, value in numbers.items():
        if not least <= value < math.inf:
            raise UsageError(f"{name} must be at least {least} and finite, not {value}")


@contextmanager
def explain_inference_tensors() -> Iterator[None]:
    """Turn torch's error into a UsageError if a tensor created in inference_mode, such as a
    decoder's weights, needs a gradient."""
    try:
        yield
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise UsageError(
            "the decoder, the objective or the prior contains tensors created inside "
            "torch.inference_mode(), which have no gradients",
            hint="create them under torch.no_grad(), or without a context",
        ) from None


def check_objective(objective: Objective, score: Tensor, count: int) -> None:
    """Raise UsageError if the score has a wrong shape or no gradient."""
    name = type(objective).__name__
    if score.shape != (count,):
        raise UsageError(
            f"objective {name}: score must have one number for each row of x, ({count},), "
            f"not {tuple(score.shape)}"
        )
    if torch.is_grad_enabled() and not score.requires_grad:
        raise UsageError(
            f"objective {name}: its score has no gradient, so a search cannot improve it",
            hint="score(x, request) must be differentiable in x: no .detach(), no .item()",
        )


@dataclass(frozen=True)
class _Rounds:
    """The handlers of the engine. `begin` starts a round, `step` runs until no request is open or
    `steps` steps are done, and `end` ends the round and lets the solutions settle."""

    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    best: _Best
    codes: _OpenCodes
    start: Tensor
    steps: int
    noise: float
    settle: int
    jitter: float
    solutions: int

    def begin(self, engine: Engine) -> None:
        open = (self.best.solutions < self.solutions).nonzero().squeeze(1)
        self.codes.begin(open, self.start[engine.state.epoch - 1, open])
        self.best.begin(engine.state.epoch - 1)

    def step(self, engine: Engine, _: None) -> None:
        height = self.record(engine.state.iteration - 1)
        codes = self.codes.z().detach()  # a copy: the step moves the codes in place
        self.codes.ascend(height)
        self.codes.add_noise(self.noise * (1.0 - self.codes.steps_done / self.steps))
        self.codes.end_solved(codes)
        engine.state.metrics = {"satisfied": self.best.share()}
        if not len(self.codes.rows):
            engine.terminate_epoch()

    def end(self, engine: Engine) -> None:
        if len(self.codes.rows):  # record the codes after the last step
            with torch.no_grad():
                self.record(engine.state.iteration)
            self.codes.end_solved(self.codes.z().detach())
        rows, z = self.codes.solutions()
        self.best.solutions[rows] += 1
        self.codes.begin(rows, z)
        if len(rows):
            self.settle_solutions(engine.state.iteration)
        engine.state.metrics = {"satisfied": self.best.share()}
        if bool((self.best.solutions >= self.solutions).all()):
            engine.terminate()

    def settle_solutions(self, steps: int) -> None:
        """Make `settle` steps; their gradients are computed after a random move by `jitter`."""
        height: Tensor | None = None
        for remaining in reversed(range(self.settle)):
            if height is None or self.jitter:
                height = self.evaluate(self.codes.z(self.jitter), self.codes.rows)[2]
            self.codes.ascend(height)
            with torch.set_grad_enabled(remaining > 0 and not self.jitter):
                height = self.record(steps)

    def record(self, steps: int) -> Tensor:
        """Record the codes after `steps` steps and what they solve; return their heights, (B,)."""
        codes = self.codes
        x, score, height = self.evaluate(z := codes.z(), codes.rows)
        if steps == 0:
            check_objective(self.best.objective, score, len(z))
        codes.solved = self.best.record(z, x, score, height, codes.rows, steps)
        return height


class _OpenCodes:
    """The codes of the open requests in one round, and the optimizer that moves them."""

    def __init__(self, scale: Tensor, optimizer: str, lr: float, draw: torch.Generator) -> None:
        self.scale, self.optimizer_name, self.lr, self.draw = scale, optimizer, lr, draw

    def begin(self, rows: Tensor, z: Tensor) -> None:
        """Start the requests `rows`, int64 (B,), at z (B, *latent), with no optimizer state."""
        self.rows, self.steps_done = rows, 0
        self.solved = torch.zeros_like(rows, dtype=torch.bool)
        self.ended: list[tuple[Tensor, Tensor]] = []
        self._set_codes(z / self.scale, {})

    def _set_codes(self, u: Tensor, state: dict[str, Tensor]) -> None:
        self.u = u.detach().clone().requires_grad_()
        self.optimizer = OPTIMIZERS[self.optimizer_name]([self.u], lr=self.lr)  # type: ignore[call-arg]
        self.optimizer.state[self.u].update(state)

    def z(self, jitter: float = 0.0) -> Tensor:
        """The codes (B, *latent), each moved by Gaussian `jitter` in units of the scale."""
        return (self.u + self._noise(jitter) if jitter else self.u) * self.scale

    def ascend(self, height: Tensor) -> None:
        # not backward(), which would leave gradients in the caller's decoder
        (self.u.grad,) = torch.autograd.grad(-height.sum(), self.u)
        self.optimizer.step()
        self.steps_done += 1

    def add_noise(self, noise: float) -> None:
        if noise:
            self.u.data.add_(self._noise(noise))

    def _noise(self, size: float) -> Tensor:
        return size * torch.randn(self.u.shape, generator=self.draw, device=self.u.device)

    def end_solved(self, z: Tensor) -> None:
        """End the solved requests at z; the others continue with their optimizer state."""
        solved = self.solved
        if not bool(solved.any()):
            return
        self.ended.append((self.rows[solved], z[solved]))
        state = {
            name: value[~solved] if value.shape == self.u.shape else value
            for name, value in self.optimizer.state[self.u].items()
        }
        self.rows = self.rows[~solved]
        self._set_codes(self.u[~solved], state)

    def solutions(self) -> tuple[Tensor, Tensor]:
        """Return the requests that were solved since `begin`, (B,), and their codes."""
        ended = self.ended or [(self.rows[:0], self.z()[:0])]
        rows, z = zip(*ended, strict=True)
        return torch.cat(rows), torch.cat(z)


class _Best:
    """The best code of every request so far, and the paths of the watched requests."""

    def __init__(self, objective: Objective, start: Tensor, watch: Sequence[int]) -> None:
        count, device = start.shape[1], start.device
        self.objective = objective
        self.z = start[0].detach().clone()
        self.score = torch.full((count,), -math.inf, dtype=start.dtype, device=device)
        self.height = self.score.clone()
        self.satisfied = torch.zeros(count, dtype=torch.bool, device=device)
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        self.solutions, self.round = zeros, zeros.clone()
        self.first_round, self.steps = zeros.clone(), zeros.clone()
        self.trajectories: dict[int, list[Tensor]] = {request: [] for request in watch}
        self.paths: dict[int, Tensor] = {}
        self.current_round = 0

    def begin(self, round: int) -> None:
        self.current_round = round
        for path in self.trajectories.values():
            path.clear()

    def share(self) -> float:
        return float(self.satisfied.float().mean())

    @torch.no_grad()
    def record(
        self, z: Tensor, x: Tensor, score: Tensor, height: Tensor, rows: Tensor, steps: int
    ) -> Tensor:
        """Record codes that are better than earlier ones; return which are satisfied, bool (B,)."""
        satisfied = self.objective.satisfied(x, rows) & score.isfinite()
        done = self.satisfied[rows]
        higher = torch.where(done, score > self.score[rows], height > self.height[rows])
        new = ((satisfied & ~done) | (higher & (satisfied | ~done))).nonzero().squeeze(1)
        better, first = rows[new], rows[new[~done[new]]]
        self.z[better] = z[new]
        self.score[better] = score[new].to(self.score)
        self.height[better] = height[new].to(self.height)
        self.satisfied[better] = satisfied[new]
        self.round[better] = self.current_round
        self.first_round[first] = self.current_round
        self.steps[first] = steps
        for request, path in self.trajectories.items():
            for row in (rows == request).nonzero().flatten().tolist():
                path.append(z[row].clone())  # a copy: the next step moves the codes in place
                if bool((better == request).any()):
                    self.paths[request] = torch.stack(path)
        return satisfied

    def result(self, decode: Callable[[Tensor], Tensor]) -> Found:
        if unscored := (~self.score.isfinite()).nonzero().flatten().tolist():
            raise RunFailed(
                f"the score of request {self.objective.requests[unscored[0]]!r} was never finite",
                hint="check the decoder and the objective for NaN and infinity",
            )
        return Found(
            z=self.z,
            x=decode(self.z),
            score=self.score,
            satisfied=self.satisfied,
            round=self.round,
            first_round=self.first_round,
            steps=self.steps,
            paths=self.paths,
        )
