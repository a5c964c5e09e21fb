"""Checks of the data of a run: its range, blank images, copies between splits, splits that differ,
and labels that the images do not determine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import Batch, at_once
from latentforge.data.images import ImageSplit
from latentforge.data.levels import NARROW, NARROW_LOW, suggest_levels
from latentforge.engine.diagnostics import Diagnosis
from latentforge.io.text import counted
from latentforge.latent import Bernoulli, Gaussian
from latentforge.neighbours import majority, topk
from latentforge.seeding import generator

BATCH = 1000
SHARE = 0.005  # fraction of images from which blank images and copies are a warning
MARGIN = 0.9  # fraction of values from which constant ones are a warning: a margin may be wide
DARK = 0.6  # largest value of images that use only a part of [0, 1]
SHIFT = 0.02  # accepted squared difference of two mean images, in variances of a pixel
SMALL, LARGE = 0.01, 100.0  # standard deviations of real numbers that a network can learn
NEIGHBOURS = 5
REFERENCES, QUERIES = 5000, 1000  # images whose labels are compared

Levels = tuple[float, float] | None


def check_training_images(
    images: ImageSplit, likelihood: Any, *, kl: bool, levels: Levels = (0.0, 1.0)
) -> list[Diagnosis]:
    """Check a sample of the training images before training, and return the warnings."""
    split = ImageSplit(select(images, at_once(images.spec, BATCH))[0], None, images.spec)
    found = [
        *check_value_range(split, likelihood, kl=kl, levels=levels),
        *find_blank_images(split, "training"),
    ]
    return [each.adapt(images.spec) for each in found if each.severity == "warning"]


def select(images: ImageSplit, most: int) -> tuple[Tensor, Tensor | None]:
    """Return at most `most` images, evenly spaced over the split, and their labels."""
    batch = select_batch(images, most)
    return batch.x, batch.y


def select_batch(images: ImageSplit, most: int) -> Batch:
    """Return at most `most` examples, evenly spaced over the split."""
    indices = torch.arange(min(most, len(images)), device=images.device)
    return images.batch(indices * len(images) // len(indices))


def check_value_range(
    images: ImageSplit, likelihood: Any, *, kl: bool, levels: Levels = (0.0, 1.0)
) -> Iterator[Diagnosis]:
    """Check the data's range and spread against the likelihood. `kl`: the loss has a KL term.
    `levels` are the stored values of black and white, or None if all values are kept."""
    low, high, std, grey, second = value_statistics(images, scaled=levels is not None)
    black, white = images.spec.extent if levels else (0.0, 1.0)
    shown, std = [black + (white - black) * value for value in (low, high)], std * (white - black)
    fact = "the training values go from {:g} to {:g}, standard deviation {:.3g}".format(*shown, std)
    if low == high:
        hint = "look at the data: `latentforge data show`"
        yield Diagnosis("range", "warning", f"all training values are {shown[0]:g}", hint)
    elif levels is None:
        if images.spec.range is None and not SMALL < std < LARGE:
            hint = "data.normalize=true standardizes the values"
            yield Diagnosis("range", "warning", f"{fact}, but a network expects about 1", hint)
    elif low == black == 0 and 0 < high - second < min(0.1, second):  # close, and far from 0
        saw = f"the training values that are not 0 go from {second:.4g} to {high:.4g}"
        hint = "replace the zeros if they mark missing values, and set data.black and data.white"
        yield Diagnosis("range", "warning", saw, hint)
    elif high <= DARK or low >= NARROW_LOW or high - low < NARROW:
        black, white = levels
        stored = [float(f"{black + value * (white - black):.6g}") for value in (low, high)]
        options = suggest_levels(*stored)
        hint = " and ".join(f"data.{key}={value:.10g}" for key, value in options.items())
        hint += ", if these are the smallest and the largest possible values"
        if high <= 1 / 255:
            hint += "; were the values divided by 255 twice?"
        yield Diagnosis("range", "warning", fact, hint)
    if isinstance(likelihood, Bernoulli) and grey > 0.01:
        yield Diagnosis(
            "range",
            "note",
            f"{grey:.0%} of the values are grey, but a Bernoulli likelihood assumes black and "
            "white: its values are cross-entropies, not log-likelihoods",
            "compare them only with results on grey images, or train with data.binarize=threshold",
        )
    sigma = likelihood.sigma if kl and isinstance(likelihood, Gaussian) else None
    if isinstance(sigma, float) and sigma > 2 * std > 0:
        yield Diagnosis(
            "range",
            "warning",
            f"the Gaussian likelihood's sigma {sigma:g} is far above the values' standard "
            f"deviation {std:.3g}, so better reconstructions hardly outweigh their KL",
            f"loss.sigma={std / 2:.2g}, or loss.learn_sigma=true",
        )


def value_statistics(
    images: ImageSplit, *, scaled: bool = True
) -> tuple[float, float, float, float, float]:
    """Return the values' minimum, maximum and standard deviation, the fraction of grey ones, and
    the smallest value that is not 0. `scaled` values go from 0 (black) to 1 (white)."""
    low, high, total, squares, grey, count = math.inf, -math.inf, 0.0, 0.0, 0, 0
    second = math.inf
    for batch in images.batches(at_once(images.spec, BATCH)):
        x = images.spec.to_unit(batch.x) if scaled else batch.x
        x = x.cpu().double()  # Apple's GPUs have no float64
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        second = min(second, float(torch.where(x == 0, math.inf, x).min()))
        total += float(x.sum())
        squares += float(x.square().sum())
        grey += int(((x > 0) & (x < 1)).sum())
        count += x.numel()
    mean = total / count
    return low, high, math.sqrt(max(squares / count - mean**2, 0.0)), grey / count, second


def find_constant_pixels(images: ImageSplit) -> Iterator[Diagnosis]:
    """Find values that are the same in every training image. The check is called "constant values"
    if the data is not images."""
    size = at_once(images.spec, BATCH)
    extremes = [batch.x.aminmax(dim=0) for batch in images.batches(size)]
    low = torch.stack([extreme.min for extreme in extremes]).amin(0)
    high = torch.stack([extreme.max for extreme in extremes]).amax(0)
    constant, count = int((low == high).sum()), low.numel()
    check = "constant pixels" if images.spec.kind == "image" else "constant values"
    if constant == count:
        fact = f"all {len(images)} training examples are the same"
        hint = "look at the data: `latentforge data show`"
        yield Diagnosis(check, "warning", fact, hint)
    elif constant:
        cause, remedy = "a margin", "crop the images"
        if images.spec.kind != "image":
            cause = "known to be constant, such as units that are never active"
            remedy = "leave them out"
        hint = f"nothing if they are {cause}; otherwise {remedy} or check how they are loaded"
        yield Diagnosis(
            check,
            "note" if constant < MARGIN * count else "warning",
            f"{constant} of {count} values never change over the training split",
            hint,
        )


def find_blank_images(images: ImageSplit, split: str) -> Iterator[Diagnosis]:
    """Find images that have the same value everywhere."""
    blank = 0
    for batch in images.batches(at_once(images.spec, BATCH)):
        low, high = batch.x.flatten(1).aminmax(dim=1)
        blank += int((low == high).sum())
    if blank and images.spec.size > 1:
        yield Diagnosis(
            "blank images",
            "warning" if blank >= SHARE * len(images) else "note",
            f"{blank} of {len(images)} {split} images have the same value everywhere",
            "remove them, or find out why they could not be read: `latentforge data show`",
        )


def find_copies(train: ImageSplit, held_out: ImageSplit, split: str) -> Iterator[Diagnosis]:
    """Find held-out images that are also training images, value by value."""
    if held_out.same_as(train):
        copies = len(held_out)
    else:
        copies = int(torch.isin(hash_images(held_out), hash_images(train)).sum())
    if copies:
        yield Diagnosis(
            "copies",
            "warning" if copies >= SHARE * len(held_out) else "note",
            f"{copies} of {len(held_out)} {split} images are also training images",
            "remove them from one of the two splits: metrics on copies are not those of new images",
        )


def hash_images(images: ImageSplit) -> Tensor:
    """Return a 64-bit hash of each image that is not blank, int64 (n,), on the CPU."""
    weights = torch.randint(
        -(2**62), 2**62, (images.spec.size,), generator=generator("cpu", "hash"), dtype=torch.int64
    )
    weights = 2 * weights + 1
    hashes = []
    for batch in images.batches(at_once(images.spec, BATCH)):
        x = batch.x.flatten(1).cpu()
        low, high = x.aminmax(dim=1)
        bits = x[low < high].contiguous().view(torch.int32).long()
        hashes.append((bits * weights).sum(1))  # overflow wraps around
    return torch.cat(hashes)


def find_shift(train: ImageSplit, held_out: ImageSplit, split: str) -> Iterator[Diagnosis]:
    """Find held-out images that were prepared in another way than the training images, as their
    mean image shows: inverted, shifted or different."""
    (mean, variance), (other, _) = mean_image(train), mean_image(held_out)
    scale = float(variance.mean())
    if not scale:
        return
    limit = SHIFT + 10 * (1 / len(train) + 1 / len(held_out))
    distance = float((other - mean).square().mean()) / scale
    if distance <= limit:
        return
    how = (
        "differ from the training images: their mean image is "
        f"{math.sqrt(distance):.2g} standard deviations of a pixel away"
    )
    low, high = train.spec.extent
    is_bounded = train.spec.limits is None
    if is_bounded and float((low + high - other - mean).square().mean()) < distance * scale / 4:
        inverse = "one minus their mean image" if low == 0 else "the negative of their mean image"
        how = f"seem to be inverted: {inverse} is that of the training images"
    elif train.spec.kind == "image":
        place, best = find_offset(mean, other)
        if best < distance * scale / 4:
            down, right = place
            how = f"seem to be shifted by {counted(down, 'pixel')} down and {right} to the right"
    yield Diagnosis(
        "shift",
        "warning",
        f"the {split} images {how}",
        "prepare all splits in the same way; compare their pictures with `latentforge data show`",
    )


def mean_image(images: ImageSplit) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of each value over the images that are not blank, float64,
    on the CPU."""
    total = squares = torch.zeros(images.spec.shape, dtype=torch.float64)
    count = 0
    for batch in images.batches(at_once(images.spec, BATCH)):
        low, high = batch.x.flatten(1).aminmax(dim=1)
        x = batch.x[low < high].cpu().double()
        total, squares, count = total + x.sum(0), squares + x.square().sum(0), count + len(x)
    mean = total / max(1, count)
    return mean, (squares / max(1, count) - mean.square()).clamp(min=0)


def find_offset(mean: Tensor, other: Tensor) -> tuple[tuple[int, int], float]:
    """Return the offset, in pixels, that moves the image `mean` (C, H, W) onto `other`, and the
    mean squared difference that remains."""
    downs, rights = (torch.arange(-(size // 4), size // 4 + 1) for size in mean.shape[-2:])
    # products of the shifted image and the other one, for every offset; the largest is the nearest
    products = torch.fft.ifft2(torch.fft.fft2(mean).conj() * torch.fft.fft2(other)).real.sum(0)
    row, column = divmod(int(products[downs][:, rights].argmax()), len(rights))
    offset = int(downs[row]), int(rights[column])
    return offset, float((mean.roll(offset, (-2, -1)) - other).square().mean())


# ---------------------------------------------------------------- labels


def neighbour_labels(train: ImageSplit, x: Tensor) -> Tensor:
    """Return the label of the majority of the nearest training images by pixels, (B,)."""
    references, labels = select(train, REFERENCES)
    assert labels is not None
    _, found = topk(x.flatten(1), references.flatten(1), NEIGHBOURS)
    return majority(labels[found], len(train.spec.classes))
