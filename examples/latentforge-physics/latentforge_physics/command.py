"""The command `latentforge aim`."""

import json as js
from typing import Annotated

import typer

from latentforge.errors import UsageError


def aim(
    target: Annotated[list[str], typer.Option(metavar="X,Y", help="Target position; repeatable.")],
    restarts: Annotated[int, typer.Option(min=1, help="Number of starts for each target.")] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the velocity with which a probe reaches each target.

    Example: latentforge aim --target 3,0 --target=-2,2
    """
    import torch

    from latentforge import search

    from . import ArriveConfig
    from .objective import Arrive
    from .simulator import SECONDS, fly

    targets = tuple(map(point, target))
    objective = Arrive(ArriveConfig(targets=targets))
    noise = torch.randn(restarts, len(targets), 2, generator=torch.Generator().manual_seed(seed))
    noise[0] = 0  # the first start ignores the attraction
    start = torch.tensor(targets) / SECONDS + noise
    found = search(fly, objective, start, steps=200, lr=0.05, seed=seed)
    rows = [
        {"request": text, "velocity": z, "miss": -score, "steps": steps, "met": met}
        for text, z, score, steps, met in zip(
            objective.requests,
            found.z.tolist(),
            found.score.tolist(),
            found.steps.tolist(),
            found.satisfied.tolist(),
            strict=True,
        )
    ]
    if json:
        print(js.dumps({"flights": rows}))
        return
    for row in rows:
        vx, vy = row["velocity"]
        print(f"{row['request']:20} start with ({vx:6.3f}, {vy:6.3f}), {row['miss']:.4f} off")


def point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--target {text}: write X,Y, as in 3,0") from None
    return x, y
