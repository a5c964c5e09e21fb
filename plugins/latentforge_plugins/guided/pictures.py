"""Figures of a guided search: the results, the paths on a map of the codes, and an animation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.engine.latent_search import Found
from latentforge.findings import FRAMES, Bars, Film, ImageGrid, Scatter
from latentforge.io.text import counted
from latentforge_plugins.walks import axis_names, code_quantiles, decode, principal_directions

POINTS = 2000  # maximum number of codes on the map
COLUMNS = 10  # maximum number of results in a row
MAX_NAME_LENGTH = 20  # characters; longer names are truncated in figures


class Map:
    """Maps codes (N, D) to positions (N, 2). Codes are unchanged if D is 2 and are projected onto
    their two principal directions if D is larger."""

    def __init__(self, codes: Tensor, names: Sequence[str] = ("z0", "z1")) -> None:
        self.axes, self.offset = (names[0], names[1]), torch.zeros_like(codes[0])
        self.directions = torch.eye(2, codes.shape[1]).to(codes)  # D = 1: points on a line
        if codes.shape[1] > 2:
            self.axes = ("first principal direction", "second principal direction")
            mean, directions, _ = principal_directions(codes)
            self.offset, self.directions = mean.to(codes), directions.to(codes)

    def __call__(self, codes: Tensor) -> Tensor:
        return (codes - self.offset) @ self.directions.T


def draw_results(context: ExploreContext, found: Found, first: Tensor, shown: int) -> ImageGrid:
    """Draw the start images of the first requests above the results, in several rows if there are
    many."""
    requests, names = context.objective.requests[:shown], path_names(context, shown)
    if names[0] == "#0":  # the map uses these numbers as names of the paths
        requests = [f"{name} {text}" for name, text in zip(names, requests, strict=True)]
    captions = [f"score {score:.1f}" for score in found.score[:shown].tolist()]
    if not getattr(context.objective, "open_ended", False):
        satisfied, steps = found.satisfied[:shown].tolist(), found.steps[:shown].tolist()
        captions = [
            f"satisfied after {counted(s, 'step')}" if m else "not satisfied"
            for m, s in zip(satisfied, steps, strict=True)
        ]
    parts = [slice(i, i + COLUMNS) for i in range(0, len(requests), COLUMNS)]
    to_unit = context.data.to_unit
    above = len(parts) == 1  # else a title would be above the results of several requests
    titles = [""] * len(requests) if above else requests
    return ImageGrid(
        "results",
        "Start images and results",
        [to_unit(images[part]) for part in parts for images in (first, found.x[:shown])],
        column_titles=requests if above else (),
        row_titles=["start", "found"] * len(parts),
        captions=[texts[part] for part in parts for texts in (titles, captions)],
    )


def draw_map(context: ExploreContext, found: Found, codes: Tensor, shown: int) -> Scatter:
    """Draw the paths of the first requests on the map of the training codes."""
    to_map = Map(codes, axis_names(context))
    names = path_names(context, shown)
    paths = {name: to_map(found.paths[request]) for request, name in enumerate(names)}
    title = "Search paths over the codes of training images"
    if len(names) > 1 and names[0] not in context.data.classes:
        texts = set(context.objective.requests[:shown])
        title += f": {texts.pop()}" if len(texts) == 1 else ""
        title += ", one colour per request"
    return replace(_codes_on(to_map, codes, context), name="walks", title=title, paths=paths)


def draw_film(
    context: ExploreContext, found: Found, codes: Tensor, request: int, sampled: int = 0
) -> Film:
    """Draw an animation of one request. It shows the map with the path so far, the decoded code
    and, if a classifier guides the search, its probabilities. The last frame shows the code after
    `sampled` Langevin steps, if there are any and a sample satisfied the request."""
    to_map, path = Map(codes, axis_names(context)), found.paths[request]  # (T, D)
    background, points = _codes_on(to_map, codes, context), to_map(path)
    moments = torch.linspace(0, len(path) - 1, min(FRAMES, len(path))).round().long()
    x = decode(context.model, path[moments])
    classifier = context.roles.get("classifier")
    p = classifier.model(x).softmax(1).cpu() if classifier else None  # (frames, classes)
    frames = []
    for frame, moment in enumerate(moments.tolist()):
        panels: list[ImageGrid | Scatter | Bars] = [
            replace(background, paths={"walk": points[: moment + 1]}),
            ImageGrid("image", "decoded", [context.data.to_unit(x[frame : frame + 1])]),
        ]
        if classifier and p is not None:
            heights = {"probability": p[frame].tolist()}
            panels.append(Bars("p", "p(class | image)", classifier.data.classes, heights, "p"))
        frames.append(panels)
    titles = [f"step {moment}" for moment in moments.tolist()]
    if sampled and not torch.equal(path[-1], path[-2]):
        titles[-1] = f"after {sampled} Langevin steps"
    return Film("walk", film_title(context, found, request), frames, titles)


def film_title(context: ExploreContext, found: Found, request: int) -> str:
    """Return a title that contains the request, whether it was satisfied, and the number of the
    start. The numbers of steps in other results also include the steps from earlier starts."""
    text, start = context.objective.requests[request], int(found.round[request])
    is_open = getattr(context.objective, "open_ended", False)
    is_satisfied = bool(found.satisfied[request])
    facts = []
    if not is_open:
        facts.append("satisfied" if is_satisfied else "not satisfied")
    if start:
        facts.append(f"start number {start + 1}")
    path = "Path" if is_open or is_satisfied else "Best path"
    in_brackets = f" ({', '.join(facts)})" if facts else ""
    return f"{path} of request {request}{in_brackets}: {text}"


def _codes_on(to_map: Map, codes: Tensor, context: ExploreContext) -> Scatter:
    """Draw codes at evenly spaced positions of the split on the map. If there are many, outliers
    are left out, because they would shrink all other points to a dot."""
    points, y = to_map(codes), context.images("train").y
    count = min(POINTS, len(points))
    selected = torch.linspace(0, len(points) - 1, count, device=points.device).long()
    shown = points[selected]
    if len(selected) == POINTS:
        low, high = code_quantiles(shown, torch.tensor([0.005, 0.995]).to(shown)).T
        selected = selected[((shown >= low) & (shown <= high)).all(1)]
    return Scatter(
        "map",
        "codes of training images",
        points[selected],
        labels=None if y is None else y[selected],
        classes=() if y is None else context.data.classes,
        axes=to_map.axes,
    )


def path_names(context: ExploreContext, shown: int) -> list[str]:
    """Return unique short names for the paths of the first requests: the requested class of the
    data, so that the path has its colour, else the part in which the request differs from the
    others or, if that is too long or not unique, the number of the request."""
    classes = getattr(context.objective, "classes", None)
    if classes is not None and context.data.classes:
        requested = [context.data.classes[label] for label in classes[:shown].tolist()]
        if len(set(requested)) > 1 or len(requested) == 1:
            first = [name not in requested[:i] for i, name in enumerate(requested)]
            return [name if first[i] else f"{name} (#{i})" for i, name in enumerate(requested)]
    names = strip_common_words(context.objective.requests[:shown])
    if len(set(names)) < len(names) or max(map(len, names)) > MAX_NAME_LENGTH:
        return [f"#{i}" for i in range(len(names))]
    return names


def strip_common_words(texts: Sequence[str]) -> list[str]:
    """Remove the common first words of the strings, except the last common word: `image 4`."""
    words = [text.split() for text in texts]
    columns = zip(*words, strict=False)  # up to the end of the shortest
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    return [" ".join(text_words[max(0, shared - 1) :]) for text_words in words]
