"""What a guided search looks like: results, the walk over a map of the codes, and its film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.engine.search import Found
from latentforge.findings import FRAMES, Bars, Film, ImageGrid, Scatter
from latentforge_plugins.walks import code_quantiles

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
    told = [f"score {score:.1f}" for score in found.score[:shown].tolist()]
    if not getattr(context.objective, "open_ended", False):
        met, steps = found.satisfied[:shown].tolist(), found.steps[:shown].tolist()
        told = [f"met after {s} steps" if m else "not met" for m, s in zip(met, steps, strict=True)]
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
    place, paths = Map(codes), {}
    for request, path in found.paths.items():
        name = _name(context, request)
        if request < shown:
            paths[f"{name} ({request})" if name in paths else name] = place(path)
    title = "Walks over the codes of training images"
    return replace(_codes_on(place, codes, context), name="walks", title=title, paths=paths)


def walk_film(
    context: ExploreContext,
    found: Found,
    codes: Tensor,
    decode: Callable[[Tensor], Tensor],
    request: int,
) -> Film:
    """One request's walk: the map with the path so far, what the code decodes to, and, where a
    classifier steers, its probabilities."""
    place, path = Map(codes), found.paths[request]  # (T, D)
    background, walked = _codes_on(place, codes, context), place(path)
    moments = torch.linspace(0, len(path) - 1, min(FRAMES, len(path))).round().long()
    x = decode(path[moments])
    classifier = context.roles.get("classifier")
    p = classifier.model(x).softmax(1).cpu() if classifier else None  # (frames, classes)
    frames = []
    for frame, moment in enumerate(moments.tolist()):
        panels: list[ImageGrid | Scatter | Bars] = [
            replace(background, paths={"walk": walked[: moment + 1]}),
            ImageGrid("image", "decoded", [x[frame : frame + 1]]),
        ]
        if classifier and p is not None:
            heights = {"probability": p[frame].tolist()}
            panels.append(Bars("p", "p(class | image)", classifier.data.classes, heights, "p"))
        frames.append(panels)
    titles = [f"step {moment}" for moment in moments.tolist()]
    return Film(
        "walk",
        f"Searching for {context.objective.requests[request]}: its best walk",
        frames,
        titles,
    )


def _codes_on(place: Map, codes: Tensor, context: ExploreContext) -> Scatter:
    """The codes on the map: some, evenly over the split, which is in no order, and of many without
    the few far out that would shrink all others to a dot."""
    points, y = place(codes), context.images("train").y
    some = torch.linspace(0, len(points) - 1, min(POINTS, len(points)), device=points.device).long()
    seen = points[some]
    if len(some) == POINTS:
        low, high = code_quantiles(seen, torch.tensor([0.005, 0.995]).to(seen)).T
        some = some[((seen >= low) & (seen <= high)).all(1)]
    return Scatter(
        "map",
        "codes of training images",
        points[some],
        labels=None if y is None else y[some],
        classes=() if y is None else context.data.classes,
        axes=place.axes,
    )


def _name(context: ExploreContext, request: int) -> str:
    """What a request asks for: a class of the data by its name, so that it gets that class's
    colour."""
    classes = getattr(context.objective, "classes", None)
    if classes is None or not context.data.classes:
        return str(context.objective.requests[request])
    return context.data.classes[int(classes[request])]
