"""An objective without images, parameters or a run: throw a ball so that it is somewhere in time.

The simulator stands where a decoder would: z is a velocity, x is where the ball is. It exists to
prove the contracts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentforge import ObjectiveSpec, Positive, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

GRAVITY = 9.81  # m/s^2


@dataclass(frozen=True)
class BasketsConfig:
    """`targets` are points in metres, `tolerance` how near to one the ball must be."""

    targets: tuple[tuple[float, float], ...] = ((4.0, 3.0), (-6.0, 0.5), (0.0, -2.0))
    tolerance: Positive = 0.01


class Throw:
    """Where a ball thrown from the origin is after `seconds`: Newton's law by Heun's steps."""

    def __init__(self, drag: float = 0.0, seconds: float = 1.0, steps: int = 100) -> None:
        self.drag, self.dt, self.steps = drag, seconds / steps, steps  # drag: 1/s, Stokes

    def acceleration(self, velocity: Tensor) -> Tensor:
        return velocity.new_tensor([0.0, -GRAVITY]) - self.drag * velocity

    def __call__(self, z: Tensor) -> Tensor:
        """Velocities (B, 2) in m/s to positions (B, 2) in m, differentiable."""
        position, velocity = z * 0, z
        for _ in range(self.steps):
            before = self.acceleration(velocity)
            after = self.acceleration(velocity + self.dt * before)
            position = position + self.dt * velocity + self.dt**2 / 2 * before
            velocity = velocity + self.dt / 2 * (before + after)
        return position


class Baskets:
    def __init__(self, config: BasketsConfig) -> None:
        self.config = config
        self.requests = tuple(f"be at ({x:g} m, {y:g} m)" for x, y in config.targets)

    def distance(self, x: Tensor, request: Tensor) -> Tensor:
        return (x - x.new_tensor(self.config.targets)[request]).norm(dim=1)  # (B,)

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        return -self.distance(x, request)

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return self.distance(x, request) < self.config.tolerance


def build(config: BasketsConfig, context: Any) -> Baskets:
    return Baskets(config)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="baskets",
        summary="Be at these places, one second after the throw",
        build=build,
        config=BasketsConfig,
    )
