"""The objective `match`: the distance to a target image, which a search minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from latentforge.contracts import ExploreContext
from latentforge.errors import UsageError, did_you_mean
from latentforge.findings import Finding, Findings, ImageGrid, NamedArrays
from latentforge_plugins.layers import output_of
from latentforge_plugins.objectives import CachedCall, describe_images, select_images
from latentforge_plugins.walks import title_role

from .config import MatchConfig

MAX_COLUMNS = 10  # maximum number of columns in the picture


class Match:
    """The score is log N(target; x, tolerance) over pixels or features without its constant:
    -n d / (2 tolerance) for n values with the mean squared distance d. A request is satisfied if
    d < tolerance.

    The score is in nats because a search adds the log density of a prior to it. Matching features
    is feature inversion (Mahendran and Vedaldi 2015) with a decoder instead of an image prior.
    """

    def __init__(self, config: MatchConfig, context: ExploreContext) -> None:
        self.config, self.data = config, context.data
        self.represent = make_representation(config.features, context)
        self.batch = select_images(context, config.split, config.images)
        self.located = context.images(config.split).locate(self.batch.index)
        names = describe_images(self.batch, config.split, context.data.classes)
        self.requests = [f"like {name}" for name in names]
        self.target = self.represent(self.batch.x).detach()  # (N, F)
        self.values = CachedCall(self.represent)

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        nats = self.target.shape[1] / (2 * self.config.tolerance)
        return -nats * self._distance(self.values.evaluate(x), request)

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        return self._distance(self.values.reuse(x), request) < self.config.tolerance

    def _distance(self, values: Tensor, request: Tensor) -> Tensor:
        return (values - self.target[request]).square().mean(1)  # (B,)

    def findings(self, x: Tensor) -> Findings:
        """Return the targets above the found images, and the distances between them."""
        metrics = {"match_mse_per_pixel": float((x - self.batch.x).square().mean())}
        protocol = (
            "match_mse_per_pixel: squared difference from the target, mean over requests and "
            f"{self.data.describe_values()}"
        )
        if self.config.features != "pixels":
            distance = (self.represent(x) - self.target).square().mean()
            metrics["match_mse_features"] = float(distance)
            protocol += (
                "; match_mse_features: squared difference from the target, mean over requests and "
                f"outputs of the classifier's layer {self.config.features}, which the search used"
            )
        items: list[Finding] = [NamedArrays("match-of", self.located)]
        if self.data.drawable:
            grid = ImageGrid(
                "match",
                f"Targets and found images, compared by {self.config.features}",
                rows=[self.data.to_unit(images[:MAX_COLUMNS]) for images in (self.batch.x, x)],
                column_titles=[f"image {i}" for i in self.batch.index[:MAX_COLUMNS].tolist()],
                row_titles=("target", "found"),
            )
            items.append(grid)
        return Findings(items, metrics, protocol)


def make_representation(features: str, context: ExploreContext) -> Callable[[Tensor], Tensor]:
    """Return the differentiable function from x (B, *data.shape) to the compared values (B, F).
    Raises UsageError for a layer if there is no classifier, and for an unknown layer."""
    if features == "pixels":
        return lambda x: x.flatten(1)
    if "classifier" not in context.roles:
        raise UsageError(
            f"features={features} is a layer of a classifier, but no classifier is given",
            hint="--with classifier=RUN, or --set features=pixels",
        )
    classifier: Any = context.roles["classifier"]
    known = ["pixels", *classifier.model.layers()]
    if features not in known:
        raise UsageError(
            f"features={features} is not a layer of {title_role('classifier', classifier)}",
            hint=did_you_mean(features, known) or f"choose from {', '.join(known)}",
        )
    return lambda x: output_of(features, classifier.model, x).flatten(1)
