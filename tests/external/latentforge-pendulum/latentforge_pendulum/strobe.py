"""A pendulum of 1 m, and its pictures: a red, a green and a blue flash, 0.15 s apart.

The pivot is the centre of the picture. The state is that of the green flash: the angle in radians,
0 at the bottom and positive to the right, and the speed in radians per second.
"""

import torch

from latentforge import Arrays

GRAVITY, FLASH = 9.81, 0.15


def simulate(angle, speed, seconds, steps):
    """The angles (steps + 1, N) in equal steps of time, by the velocity Verlet method."""
    dt, path = seconds / steps, [angle]
    for _ in range(steps):
        speed = speed - dt / 2 * GRAVITY * angle.sin()
        angle = angle + dt * speed
        speed = speed - dt / 2 * GRAVITY * angle.sin()
        path.append(angle)
    return torch.stack(path)


def places(side, like):
    return torch.linspace(-1, 1, side, dtype=like.dtype, device=like.device)


def draw(angle, speed, height, width):
    """The pictures (N, 3, height, width) of states (N,)."""
    before, after = (simulate(angle, way * speed, FLASH, 10)[-1] for way in (-1, 1))
    flashes = torch.stack([before, angle, after], 1)[:, :, None, None]  # (N, 3, 1, 1)
    across = places(width, angle) - 0.7 * flashes.sin()
    down = places(height, angle)[:, None] - 0.7 * flashes.cos()
    return torch.exp(-(across**2 + down**2) / (2 * 0.2**2))


def read(x):
    """The states (B,) of pictures (B, 3, H, W), from the centre of the light of each flash."""
    right = (x * places(x.shape[3], x)).sum((2, 3))
    down = (x * places(x.shape[2], x)[:, None]).sum((2, 3))
    before, angle, after = torch.atan2(right, down + 1e-6).unbind(1)
    turn = torch.remainder(after - before + torch.pi, 2 * torch.pi) - torch.pi
    # the mean speed between the outer flashes is below that at the middle one (Taylor series)
    return angle, turn / (2 * FLASH) / (1 - GRAVITY * angle.cos() * FLASH**2 / 6)


def load(config):
    random = torch.Generator().manual_seed(0)
    angle, speed = (torch.rand(2, config.images, generator=random) * 2 - 1).unbind()
    angle, speed = 1.2 * angle, 4.0 * speed
    return Arrays(draw(angle, speed, 24, 24), factors={"angle": angle.rad2deg(), "speed": speed})
