"""What a guided search looks like: results, the walk over a map of the codes, and its film."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.engine.search import Found
from latentforge.findings import FRAMES, Bars, Film, ImageGrid, Scatter

POINTS = 2000  # codes on the map


class Map:
    """Codes (N, D) as places on a map, (N, 2): as they are where D is 2, else their two principal
    directions."""

    def __init__(self, codes: Tensor) -> None:
        self.mean, self.axes = codes.mean(0), ("z0", "z1")
        dimension = codes.shape[1]
        self.directions = torch.eye(dimension, 2).to(codes)
        if dimension == 1:  # one row of places
            self.directions = torch.tensor([[1.0, 0.0]]).to(codes)
        if dimension > 2:
            self.directions = torch.linalg.eigh(torch.cov(codes.T)).eigenvectors[:, [-1, -2]]
            self.axes = ("first principal direction", "second principal direction")
        self.offset = self.mean if dimension > 2 else torch.zeros_like(self.mean)

    def __call__(self, codes: Tensor) -> Tensor:
        return (codes - self.offset) @ self.directions


def results(context: ExploreContext, found: Found, first: Tensor, shown: int) -> ImageGrid:
    """Where the first requests began over what they came to."""
    requests = context.objective.requests[:shown]
    told = [
        f"{'met' if ok else 'not met'}, {steps} steps"
        for ok, steps in zip(
            found.satisfied[:shown].tolist(), found.steps[:shown].tolist(), strict=True
        )
    ]
    return ImageGrid(
        "results",
        "Where the search began, and what it found",
        [first, found.x[:shown]],
        column_titles=requests,
        row_titles=["start", "found"],
        captions=[[""] * len(requests), told],
    )


def walk_map(context: ExploreContext, found: Found, codes: Tensor, shown: int) -> Scatter:
    """The walks of the first requests over the map of the training codes."""
    place, some = Map(codes), _some(codes)
    images = context.images("train")
    paths = {
        f"{request}: {context.objective.requests[request]}": place(path.flatten(1))
        for request, path in found.paths.items()
        if request < shown
    }
    return Scatter(
        "walks",
        "Walks over the codes of training images",
        place(codes[some]),
        labels=None if images.y is None else images.y[some],
        classes=context.data.classes if images.y is not None else (),
        paths=paths,
        axes=place.axes,
    )


def walk_film(
    context: ExploreContext,
    found: Found,
    codes: Tensor,
    decode: Callable[[Tensor], Tensor],
    request: int,
) -> Film:
    """One request's walk: the map with the path so far, what the code decodes to, and, where a
    classifier steers, its probabilities."""
    place, some = Map(codes), _some(codes)
    images, path = context.images("train"), found.paths[request].flatten(1)
    moments = torch.linspace(0, len(path) - 1, min(FRAMES, len(path))).round().long()
    with torch.no_grad():
        x = decode(path[moments])
        classifier = context.roles.get("classifier")
        p = classifier.model(x).softmax(1).cpu() if classifier is not None else None
    points, walked = place(codes[some]), place(path)
    frames = []
    for frame, moment in enumerate(moments.tolist()):
        seen = Scatter(
            "map",
            "codes of training images",
            points,
            labels=None if images.y is None else images.y[some],
            classes=context.data.classes if images.y is not None else (),
            paths={"walk": walked[: moment + 1]},
            axes=place.axes,
        )
        panels: list[ImageGrid | Scatter | Bars] = [
            seen,
            ImageGrid("image", "decoded", [x[frame : frame + 1]]),
        ]
        if p is not None:
            names = classifier.data.classes
            panels.append(
                Bars("p", "p(class | image)", names, {"probability": p[frame].tolist()}, "p")
            )
        frames.append(panels)
    return Film(
        "walk",
        f"Searching for {context.objective.requests[request]}",
        frames,
        [f"step {moment}" for moment in moments.tolist()],
    )


def _some(codes: Tensor) -> Tensor:
    """The places of the codes on the map: evenly over the split, which is in no order."""
    return torch.linspace(0, len(codes) - 1, min(POINTS, len(codes)), device=codes.device).long()
