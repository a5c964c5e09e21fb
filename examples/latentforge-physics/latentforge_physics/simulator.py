"""A differentiable simulator of motion among fixed bodies, by the velocity Verlet method."""

import torch
from torch import Tensor

BODIES = ((1.5, 1.0, 1.0), (-1.0, -1.5, 1.5))  # x, y and G times the mass of each
SOFT = 0.5  # size of a body, within which the attraction no longer grows (Plummer 1911)
SECONDS = 2.0  # duration of a flight


def acceleration(position: Tensor) -> Tensor:
    """Return the acceleration (B, 2) that all bodies cause at positions (B, 2)."""
    *places, masses = position.new_tensor(BODIES).T  # x, y and G m, one for each body
    way = torch.stack(places, dim=1) - position[:, None]  # (B, bodies, 2)
    distance = (way.square().sum(2) + SOFT**2).sqrt()
    return ((masses / distance**3)[..., None] * way).sum(1)


def fly(velocity: Tensor, seconds: float = SECONDS, steps: int = 50) -> Tensor:
    """The final positions (B, 2) of probes that start at the origin with velocities (B, 2)."""
    dt = seconds / steps
    position = torch.zeros_like(velocity)
    pull = acceleration(position)
    for _ in range(steps):
        position = position + dt * velocity + dt**2 / 2 * pull
        later = acceleration(position)
        velocity = velocity + dt / 2 * (pull + later)
        pull = later
    return position
