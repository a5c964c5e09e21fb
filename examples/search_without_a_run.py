"""A latent search without a run, model or image: throw a ball so that it reaches a given place.

A simulator replaces the decoder: z is the initial velocity, x the position of the ball after
one second. The search only needs x to be differentiable in z.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentforge import search

GRAVITY = torch.tensor([0.0, -9.81])  # m/s^2
DRAG = 0.05  # 1/m: the air slows the ball by drag |v| v
TARGETS = torch.tensor([[4.0, 3.0], [-6.0, 0.5], [0.0, -2.0], [9.0, -3.0]])  # m
STEPS = 50  # of the midpoint method


def throw(velocity: Tensor) -> Tensor:
    """Map initial velocities (B, 2) in m/s to positions (B, 2) in m after one second."""

    def acceleration(v: Tensor) -> Tensor:
        return GRAVITY - DRAG * v.norm(dim=1, keepdim=True) * v

    dt = 1.0 / STEPS
    position = torch.zeros_like(velocity)
    for _ in range(STEPS):
        middle = velocity + dt / 2 * acceleration(velocity)
        position = position + dt * middle
        velocity = velocity + dt * acceleration(middle)
    return position


class BeAt:
    """The objective: the ball must be within a centimetre of its target."""

    requests = tuple(f"be at ({x:g} m, {y:g} m)" for x, y in TARGETS.tolist())

    def distance(self, x: Tensor, request: Tensor) -> Tensor:
        return (x - TARGETS[request]).norm(dim=1)  # (B,)

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        return -self.distance(x, request)

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return self.distance(x, request) < 0.01


def main() -> None:
    objective = BeAt()
    torch.manual_seed(0)
    start = 5 * torch.randn(4, len(objective.requests), 2)  # (restarts, requests, 2)
    found = search(throw, objective, start, steps=300, lr=0.1)
    for i, text in enumerate(objective.requests):
        vx, vy = found.z[i].tolist()
        miss = -100 * float(found.score[i])
        end = f"{miss:.1f} cm off after {int(found.steps[i])} steps"
        print(f"{text:22} throw with ({vx:6.2f}, {vy:6.2f}) m/s, {end}")
    print(f"{int(found.satisfied.sum())} of {len(objective.requests)} within a centimetre")


if __name__ == "__main__":
    main()
