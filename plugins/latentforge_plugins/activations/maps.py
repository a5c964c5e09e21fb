"""Mean activation maps by class, and histograms, skewness and kurtosis of features."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from latentforge.contracts import ExploreContext, Images
from latentforge.errors import UsageError
from latentforge.findings import Findings, Histogram, ImageGrid, NamedArrays
from latentforge.io.text import are, counted
from latentforge_plugins.layers import capture_outputs
from latentforge_plugins.measures import BATCH

from .config import ActivationsConfig
from .layers import describe_layer, last_feature_layer, pool, select_layers

MAX_CLASSES = 20  # maximum number of classes in a figure unless `classes` is given


def activations(context: ExploreContext, config: ActivationsConfig) -> Findings:
    images = context.images(config.split)
    classes, notes = select_classes(images, config)
    layers = select_layers(context.model, config.layers)
    source = last_feature_layer(context.model)
    means, values = collect_activations(context, images, layers, source, config.grid)
    if flat := [layer for layer in layers if layer not in means]:
        notes.append(f"{', '.join(flat)}: the output has no height and width, so no map is drawn")
    if not layers:
        notes.append("no layer of the model has maps; only histograms of hidden units are drawn")
    names = [context.data.classes[c] for c in classes]
    pictures = []
    for layer, maps in means.items():
        kind = describe_layer(context.model, layer)
        living = find_living(maps)
        pictures.append(
            draw_maps(layer, kind, maps[classes].float(), names, living[: config.channels])
        )
        if dead := maps.shape[1] - len(living):
            notes.append(
                f"{layer}: {dead} of {counted(maps.shape[1], 'channel')} {are(dead)} the same "
                "for all classes"
            )
        if config.channels < len(living):
            shown = f"the first {config.channels} of {counted(len(living), 'channel')}"
            notes.append(f"{layer}: only {shown} are shown")
    metrics, constant = feature_statistics(values.flatten(1).double())
    size = values[0].numel()
    if constant:
        notes.append(
            f"{constant} of {counted(size, 'feature')} {are(constant)} constant and "
            f"{are(constant)} left out of skewness and kurtosis"
        )
    cells = "" if values.ndim == 2 else " averaged to {}x{} cells".format(*values.shape[2:])
    protocol = (
        "means of the absolute skewness m3 / m2^(3/2) and of the absolute excess kurtosis "
        "m4 / m2^2 - 3 (both are 0 for a normal distribution) over "
        f"{counted(size, 'feature')}, the output of {source}{cells}, on the "
        f"{counted(len(images), 'image')} of the split {config.split}"
    )
    arrays = {f"mean_{safe_name(layer)}": maps for layer, maps in means.items()}
    arrays["features"] = values
    histogram = draw_histogram(values, source, cells, config)
    items = [*pictures, histogram, NamedArrays("activations", arrays)]
    return Findings(items, metrics, protocol, notes)


def collect_activations(
    context: ExploreContext, images: Images, layers: list[str], source: str, grid: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the mean maps of all layers with 4-d outputs, float64 (classes, C, H, W) with NaN for
    a class without images, and the features of every image, (N, C, h, w) or (N, F)."""
    count = torch.bincount(images.y, minlength=len(context.data.classes))
    sums: dict[str, Tensor] = {}
    features = []
    with capture_outputs(context.model, {*layers, source}) as captured:
        for batch in images.batches(BATCH):
            context.model(batch.x)
            features.append(pool(captured[source], grid).cpu())
            for layer in layers:
                maps = captured[layer].double()
                if maps.ndim == 4:
                    total = sums.setdefault(layer, maps.new_zeros(len(count), *maps.shape[1:]))
                    total.index_add_(0, batch.y, maps)
    means = {layer: total / count[:, None, None, None] for layer, total in sums.items()}
    return means, torch.cat(features)


def select_classes(images: Images, config: ActivationsConfig) -> tuple[list[int], list[str]]:
    """Return the classes to show, which all have images in the split, and notes on the others."""
    for label in config.classes:
        if not len(images.of_class(label)):
            raise UsageError(f"the split {config.split!r} has no image of class {label}")
    if config.classes:
        return list(config.classes), []
    present = images.y.unique().tolist()
    if len(present) > MAX_CLASSES:
        return present[:MAX_CLASSES], [
            f"only the first {MAX_CLASSES} of {len(present)} classes are shown; "
            "select others with classes=[...]"
        ]
    return present, []


def find_living(maps: Tensor) -> list[int]:
    """Return the channels of mean maps (classes, C, H, W) that differ between classes, or all if
    there are none. A dead channel is 0, or is active only at the border, where images are padded.
    """
    maps = maps[~maps.isnan().flatten(1).any(1)]
    span = (maps - maps.mean(0)).abs().amax((0, 2, 3))
    living = span > 1e-6 * maps.abs().amax((0, 2, 3))
    return living.nonzero().flatten().tolist() or list(range(maps.shape[1]))


def draw_maps(
    layer: str, kind: str, maps: Tensor, names: list[str], channels: list[int]
) -> ImageGrid:
    """Draw maps (n, C, H, W) as a grid with a row for each of the `channels` and a column for each
    class. Each channel is scaled separately."""
    rows, titles = [], []
    for c in channels:
        low, high = float(maps[:, c].min()), float(maps[:, c].max())
        rows.append((maps[:, c : c + 1] - low) / max(high - low, 1e-12))
        titles.append(f"channel {c}: {low:.2g} to {high:.2g}")
    return ImageGrid(
        name=f"maps-{safe_name(layer)}",
        title=f"Mean activation after {layer} ({kind}) by class, each channel on its own scale",
        rows=rows,
        column_titles=names,
        row_titles=titles,
        colours="heat",
    )


def safe_name(layer: str) -> str:
    """Return the name of a layer in a form that can be used in a file name."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", layer)


def draw_histogram(values: Tensor, source: str, cells: str, config: ActivationsConfig) -> Histogram:
    """Draw histograms of the first features, each with its fitted normal density."""
    columns = enumerate(values.flatten(1).T[: config.features])
    panels = {feature_title(i, values.shape[1:]): column for i, column in columns}
    return Histogram(
        name="features",
        title=f"Output of {source}{cells}: the first {counted(len(panels), 'feature')} and their "
        "normal fits",
        panels=panels,
        x_title="activation",
        normal=True,
    )


def feature_title(index: int, shape: torch.Size) -> str:
    """Return the title of a feature: its unit or channel, and its cell if there are several."""
    if len(shape) == 1:
        return f"unit {index}"
    height, width = shape[1:]
    channel, cell = divmod(index, height * width)
    if height * width == 1:
        return f"channel {channel}"
    return f"channel {channel}, cell {cell // width},{cell % width}"


def feature_statistics(features: Tensor) -> tuple[dict[str, float], int]:
    """Compute the mean absolute skewness and excess kurtosis of features (N, F), float64. Constant
    features are left out; their number is also returned."""
    centred = features - features.mean(0)
    variance = centred.square().mean(0)
    varying = variance > 1e-12 * features.square().mean(0)  # smaller variances are rounding errors
    centred, variance = centred[:, varying], variance[varying]
    skewness = (centred**3).mean(0) / variance**1.5
    kurtosis = (centred**4).mean(0) / variance.square() - 3
    constant = int((~varying).sum())
    if not bool(varying.any()):
        return {}, constant
    return {
        "mean_abs_skewness": float(skewness.abs().mean()),
        "mean_abs_excess_kurtosis": float(kurtosis.abs().mean()),
    }, constant
