import torch

from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, Lines, Table

from .strobe import draw, read, simulate


class Swing:
    def __init__(self, config, context):
        if context is not None and (context.data.kind, context.data.shape[0]) != ("image", 3):
            message = "swing reads a pendulum from colour images"
            raise UsageError(message, hint="train a run with --data pendulum")
        self.config, self.steps = config, max(1, round(config.after / 0.05))
        self.requests = [f"at {angle:g}° after {config.after:g} s" for angle in config.angles]

    def paths(self, x):
        return simulate(*read(x), self.config.after, self.steps)  # (steps + 1, B), radians

    def error(self, x, request):
        """How far each pendulum ends from the wanted angle, in degrees."""
        miss = self.paths(x)[-1].rad2deg() - x.new_tensor(self.config.angles)[request]
        return torch.remainder(miss + 180, 360) - 180

    def score(self, x, request):
        """log N(wanted; simulated, tolerance) without its constant."""
        return -0.5 * (self.error(x, request) / self.config.tolerance).square()

    def satisfied(self, x, request):
        return self.error(x, request).abs() <= self.config.tolerance

    def findings(self, x):
        angle, speed = read(x)
        error = self.error(x, torch.arange(len(x), device=x.device))
        time = torch.linspace(0, self.config.after, self.steps + 1)
        paths = dict(zip(self.requests, self.paths(x).rad2deg().T, strict=True))
        columns = ("request", "angle (degrees)", "speed (rad/s)", "error (degrees)")
        states = angle.rad2deg().tolist(), speed.tolist(), error.tolist()
        rows = zip(self.requests, *states, strict=True)
        shown = ImageGrid(
            "swing_pendulums",
            "Decoded images, and pendulums in these states",
            [x, draw(angle, speed, *x.shape[2:])],
            column_titles=self.requests,
            row_titles=["decoded", "drawn"],
        )
        lines = Lines("swing_paths", "The pendulums found", time, paths, "seconds", "degrees")
        table = Table("swing_states", "States in the images", columns, [list(row) for row in rows])
        return Findings(
            [shown, lines, table],
            {"swing_error": float(error.abs().mean())},
            f"swing_error: mean distance from the wanted angle {self.config.after:g} s after the "
            "green flash, in degrees, simulated from the state in the decoded image",
        )
