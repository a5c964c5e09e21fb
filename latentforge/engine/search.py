"""Latent search: moves codes so that what they decode to meets an objective.

An Ignite engine whose epoch is one round of starts and whose iteration is one gradient step of all
requests that are still open. It needs no run: a decoder is any differentiable function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from latentforge.engine.evaluator import quiet_engine
from latentforge.engine.step import OPTIMIZERS
from latentforge.errors import RunFailed, UsageError
from latentforge.seeding import generator

if TYPE_CHECKING:
    from latentforge.contracts import Objective


@dataclass(frozen=True)
class Found:
    """The best code of each of N requests, and how it was found.

    `z` (N, *latent), `x` (N, ...) what it decodes to, `score` (N,), `satisfied` bool (N,).
    `round` int64 (N,): the start that `z` came from; `steps` int64 (N,): gradient steps that led
    there, those of all rounds before included and settling left out. `evaluations` counts decoded
    codes. `paths` holds for each watched request the codes (T, *latent) from the start of that
    round to `z`.
    """

    z: Tensor
    x: Tensor
    score: Tensor
    satisfied: Tensor
    round: Tensor
    steps: Tensor
    evaluations: int
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
    watch: Sequence[int] = (),
    attach: Callable[[Engine], None] | None = None,
) -> Found:
    """Move codes uphill on `objective.score(decode(z)) + prior_weight * prior(z)`.

    `start` (restarts, N, *latent): every request begins at `start[0]`; those that `steps` gradient
    steps do not satisfy begin again at `start[1]`, and so on, and a request is left alone as soon
    as it is satisfied. In the end these make `settle` more steps without noise, because where a
    walk first meets its request is at the edge of what does. The code with the highest score is
    kept. `decode`: (B, *latent) to x; `prior`: z to a log density in nats (B,).

    Steps of size `lr` are in units of `scale`, one number or one for each latent dimension. So is
    Gaussian `noise`, added after each step and falling to zero over a round, which carries codes
    over plateaus that have no gradient. `attach(engine)` may add handlers: an epoch is a round, and
    `engine.state.metrics` has `satisfied`, the share so far.

    Raises UsageError for a start that does not fit the objective and for an unknown optimizer,
    RunFailed where a score is never finite. Nguyen et al. 2016 move codes by a classifier's
    gradient under a prior; the noise is simulated annealing (Kirkpatrick et al. 1983).
    """
    requests = len(objective.requests)
    if start.ndim < 3 or start.shape[1] != requests or not start.numel():
        raise UsageError(
            f"start must be (restarts, {requests}, *latent) for {requests} requests, "
            f"not {tuple(start.shape)}"
        )
    if not bool(start.isfinite().all()):
        raise UsageError("start holds NaN or infinity")
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {optimizer!r}")
    best = _Best(decode, objective, start, watch)
    walk = _Walk(torch.as_tensor(scale).to(start), optimizer, lr)
    draw = generator(start.device, "search", seed)

    def climb(round: int, made: int, shake: float) -> Tensor:
        """One step of the open requests after `made` others; which of them are satisfied."""
        z = walk.z()
        score, met = best.look(z, walk.rows, round, made)
        aim = score.sum() if prior is None else (score + prior_weight * prior(z)).sum()
        walk.move(aim, shake, draw)
        return met

    def step(engine: Engine, _: None) -> None:
        made = engine.state.iteration - 1
        met = climb(engine.state.epoch - 1, made, noise * (1.0 - made % steps / steps))
        if bool(met.any()):
            walk.keep(~met)
        engine.state.metrics = {"satisfied": float(best.satisfied.float().mean())}
        if not len(walk.rows):
            engine.terminate()

    engine = quiet_engine(step)

    @engine.on(Events.EPOCH_STARTED)
    def begin() -> None:
        open = (~best.satisfied).nonzero().squeeze(1)
        walk.begin(open, start[engine.state.epoch - 1, open])
        best.begin()

    @engine.on(Events.EPOCH_COMPLETED)
    def look() -> None:  # at where the last step led
        if len(walk.rows):
            best.look(walk.z(), walk.rows, engine.state.epoch - 1, engine.state.iteration)
        engine.state.metrics = {"satisfied": float(best.satisfied.float().mean())}
        if bool(best.satisfied.all()):
            engine.terminate()

    if attach:
        attach(engine)
    with torch.enable_grad():
        engine.run(max_epochs=len(start), epoch_length=steps)
        rows = best.satisfied.nonzero().squeeze(1)
        if settle and len(rows):
            walk.begin(rows, best.z[rows])
            for _ in range(settle):
                climb(0, 0, 0.0)
            best.look(walk.z(), rows, 0, 0)
    return best.found()


class _Walk:
    """The codes of the open requests in one round, and the optimizer that moves them."""

    def __init__(self, scale: Tensor, optimizer: str, lr: float) -> None:
        self.scale, self.optimizer, self.lr = scale, optimizer, lr

    def begin(self, rows: Tensor, z: Tensor) -> None:
        """Start the requests `rows`, int64 (B,), at z (B, *latent), without moments."""
        self.rows = rows
        self._hold(z / self.scale, {})

    def _hold(self, u: Tensor, state: dict[str, Tensor]) -> None:
        self.u = u.detach().clone().requires_grad_()
        self.by = OPTIMIZERS[self.optimizer]([self.u], lr=self.lr)  # type: ignore[call-arg]
        self.by.state[self.u].update(state)

    def z(self) -> Tensor:
        return self.u * self.scale  # (B, *latent)

    def move(self, aim: Tensor, noise: float, draw: torch.Generator) -> None:
        """One step up `aim`, then noise of this size, in units of the scale."""
        self.u.grad = None
        (-aim).backward()  # type: ignore[no-untyped-call]
        self.by.step()
        if noise:
            shake = torch.randn(self.u.shape, generator=draw, device=draw.device)
            self.u.data.add_(shake.to(self.u), alpha=noise)

    def keep(self, keep: Tensor) -> None:
        """Only these rows go on, each with its moments."""
        state = {
            name: value[keep] if value.shape == self.u.shape else value
            for name, value in self.by.state[self.u].items()
        }
        self.rows = self.rows[keep]
        self._hold(self.u[keep], state)


class _Best:
    """The best of every request so far, and the walks of those that are watched."""

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        objective: Objective,
        start: Tensor,
        watch: Sequence[int],
    ) -> None:
        count, device = start.shape[1], start.device
        self.decode, self.objective = decode, objective
        self.z = start[0].clone()
        self.score = torch.full((count,), -math.inf, dtype=start.dtype, device=device)
        self.satisfied = torch.zeros(count, dtype=torch.bool, device=device)
        self.round = torch.zeros(count, dtype=torch.int64, device=device)
        self.steps = torch.zeros(count, dtype=torch.int64, device=device)
        self.evaluations = 0
        self.walked: dict[int, list[Tensor]] = {request: [] for request in watch}
        self.paths: dict[int, Tensor] = {}

    def begin(self) -> None:
        for walk in self.walked.values():
            walk.clear()

    def look(self, z: Tensor, rows: Tensor, round: int, steps: int) -> tuple[Tensor, Tensor]:
        """Decode, score and remember: the scores (B,), differentiable, and which are satisfied."""
        x = self.decode(z)
        score = self.objective.score(x, rows)
        self.evaluations += len(rows)
        with torch.no_grad():
            met = self.objective.satisfied(x, rows)
            # a satisfied code before any other, then the higher score
            done, higher = self.satisfied[rows], score > self.score[rows]
            new = ((met & ~done) | (higher & (met | ~done))).nonzero().squeeze(1)
            better, first = rows[new], rows[new[~done[new]]]
            self.z[better] = z[new].detach()
            self.score[better] = score[new].detach().to(self.score)
            self.satisfied[better] = met[new]
            self.round[first] = round  # settling changes neither
            self.steps[first] = steps
            self._watch(z.detach(), rows, better)
        return score, met

    def _watch(self, z: Tensor, rows: Tensor, better: Tensor) -> None:
        for request, walk in self.walked.items():
            for row in (rows == request).nonzero().flatten().tolist():
                walk.append(z[row].clone())  # a copy: the next step moves the codes in place
                if bool((better == request).any()):
                    self.paths[request] = torch.stack(walk)

    def found(self) -> Found:
        lost = (~self.score.isfinite()).nonzero().flatten().tolist()
        if lost:
            raise RunFailed(
                f"the score of request {self.objective.requests[lost[0]]!r} was never finite",
                remedy="check the decoder and the objective for NaN and infinity",
            )
        with torch.no_grad():
            x = self.decode(self.z)
        return Found(
            self.z,
            x,
            self.score,
            self.satisfied,
            self.round,
            self.steps,
            self.evaluations,
            self.paths,
        )
