"""The objective `inpaint`: the likelihood of an image's known part, which a search maximises."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.findings import Finding, Findings, ImageGrid, NamedArrays
from latentforge.io.text import counted
from latentforge_plugins.objectives import select_images

from .baselines import NEIGHBOURS, compute_baselines
from .config import InpaintConfig
from .masks import known_mask

EPSILON = 1e-6  # minimum distance of decoded probabilities from 0 and 1, for a finite log
MAX_COLUMNS = 10  # maximum number of columns in the picture
GREY = 0.5  # the value shown for hidden pixels


class Inpaint:
    """The score is log p of the known values, summed, in nats. p is a Bernoulli distribution with
    the decoded probabilities. A request is never satisfied, because a likelier image is always
    possible, so a search uses all its steps."""

    open_ended = True

    def __init__(self, config: InpaintConfig, context: ExploreContext) -> None:
        self.config, self.context = config, context
        self.batch = select_images(context, config.split, config.images, config.n)
        self.requests = [f"complete {config.split} image {i}" for i in self.batch.index.tolist()]
        self.known = known_mask(config, context.data).flatten().to(context.device)  # bool (D,)
        self.truth = self.batch.x.flatten(1)  # (N, D)
        # hidden values are 0 in both, so that a step needs no mask
        self.white = self.truth * self.known
        self.black = (1 - self.truth) * self.known

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        p = x.flatten(1).clamp(EPSILON, 1 - EPSILON)
        return (self.white[request] * p.log() + self.black[request] * (1 - p).log()).sum(1)

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def findings(self, x: Tensor) -> Findings:
        """Return the completed images, the baselines, and the errors of their hidden parts."""
        completed = x.flatten(1)
        baselines = compute_baselines(self.context, self.batch, self.known, self.config.split)
        metrics = {
            "hidden_mse_per_pixel": self._mse(completed, ~self.known),
            "hidden_mse_class_mean": self._mse(baselines.class_mean, ~self.known),
            "hidden_mse_nearest": self._mse(baselines.nearest, ~self.known),
            "hidden_mse_neighbours": self._mse(baselines.neighbours, ~self.known),
            "known_mse_per_pixel": self._mse(completed, self.known),
        }
        mean = "class mean" if self.batch.y is not None else "mean image"
        count = baselines.indices.shape[1]
        rows = {
            "original": self.truth,
            "given": torch.where(self.known, self.truth, GREY),
            "search": self._combine(completed),
            mean: self._combine(baselines.class_mean),
            "nearest": self._combine(baselines.nearest),
            f"mean of {count}": self._combine(baselines.neighbours),
        }
        known = self.known.unflatten(0, self.context.data.shape)
        located = self.context.images(self.config.split).locate(self.batch.index)
        arrays = {**located, "known": known, "nearest": baselines.indices[:, 0]}
        items: list[Finding] = [NamedArrays("inpainting-of", arrays)]
        if self.context.data.drawable:
            shape = self.context.data.shape
            grid = ImageGrid(
                "inpainting",
                f"Completed images: {self.describe_mask()}",
                rows=[row[:MAX_COLUMNS].unflatten(1, shape) for row in rows.values()],
                column_titles=[f"image {i}" for i in self.batch.index[:MAX_COLUMNS].tolist()],
                row_titles=list(rows),
            )
            items.append(grid)
        names = {
            "hidden_mse_class_mean": mean,
            "hidden_mse_nearest": "nearest image",
            "hidden_mse_neighbours": f"mean of the {count} nearest images",
        }
        return Findings(items, metrics, self.protocol(), compare_with_baselines(metrics, names))

    def describe_mask(self) -> str:
        texts = {"box": f"box {list(self.config.box or ())}", "random": "random pixels"}
        return texts.get(self.config.mask, f"{self.config.mask} half") + " hidden"

    def protocol(self) -> str:
        class_text = "the target's true class, which only this baseline knows"
        share = float((~self.known).float().mean())
        return (
            f"means over {counted(len(self.truth), f'{self.config.split} image')} and their "
            f"values in [0, 1], {self.describe_mask()} ({share:.0%} of each); "
            "hidden_mse_per_pixel: squared error of the search result in the hidden part; "
            "hidden_mse_class_mean: the same for the mean of the training images"
            f"{'' if self.batch.y is None else f' of {class_text}'}; "
            "hidden_mse_nearest: the same for the training image with the smallest squared "
            f"distance on the known part; hidden_mse_neighbours: the same for the mean of the "
            f"{NEIGHBOURS} nearest training images; known_mse_per_pixel: squared error of the "
            "search result in the known part"
        )

    def _mse(self, image: Tensor, part: Tensor) -> float:
        return float((image - self.truth)[:, part].square().mean())

    def _combine(self, image: Tensor) -> Tensor:
        """Combine the known part of the targets with the hidden part of these images."""
        return torch.where(self.known, self.truth, image)


def compare_with_baselines(metrics: Mapping[str, float], baselines: Mapping[str, str]) -> list[str]:
    """Return a note for each of the `baselines` (metric: name) that is better than the search."""
    search_error = metrics["hidden_mse_per_pixel"]
    return [
        f"the hidden part is further from the truth than the {name}: mean squared difference "
        f"{search_error:.4f} against {metrics[metric]:.4f}"
        for metric, name in baselines.items()
        if search_error > metrics[metric]
    ]
