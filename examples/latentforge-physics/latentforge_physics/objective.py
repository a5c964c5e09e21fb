"""The objective `arrive`: the flight must end close to the target."""

from torch import Tensor


class Arrive:
    def __init__(self, config) -> None:
        self.config = config
        self.requests = [f"be at ({x:g}, {y:g})" for x, y in config.targets]

    def distance(self, x: Tensor, request: Tensor) -> Tensor:
        return (x - x.new_tensor(self.config.targets)[request]).norm(dim=1)  # (B,)

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        return -self.distance(x, request)

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return self.distance(x, request) < self.config.tolerance
