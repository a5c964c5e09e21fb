"""Checks of what a finished run has learnt: answers and reconstructions that do not depend on the
image, labels that the images do not determine, and the learning rate, which is tried again."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import Any

import torch

from latentforge.config.schema import TrainConfig
from latentforge.contracts import Step, at_once
from latentforge.data.images import ImageSplit
from latentforge.engine.data_checks import QUERIES, neighbour_labels, select, select_batch
from latentforge.engine.diagnostics import BATCH, Diagnosis
from latentforge.engine.evaluator import evaluation_mode
from latentforge.engine.optimizer import build_optimizer
from latentforge.engine.step import Trainee, followed_by
from latentforge.errors import one_line
from latentforge.latent import given
from latentforge.seeding import callers_state_kept, generator

EXPLAINED = 0.15  # least fraction of the variance that reconstructions explain
CHANCE = 0.05  # accepted excess of an accuracy over that of a constant answer
DISAGREEMENT = 0.12  # accepted excess of the neighbours' agreement over the accuracy
CONSTANT = 1e-3  # spread of the logits of a network that does not see its input
STEPS, SAMPLE = 20, 500  # steps with another learning rate, and images for their loss
MOST_RATES = 6  # that are tried in one direction
GAIN = 0.4  # improvement by these steps, as a fraction of that by the whole training


@dataclass(frozen=True)
class Answers:
    """A classifier's answers on some held-out images, beside those of the nearest training
    images."""

    accuracy: float
    neighbours: float  # accuracy of the neighbours
    agreement: float  # fraction of images for which both give the same class
    chance: float  # accuracy of the most frequent class
    spread: float  # standard deviation of the logits over images


def compare_with_neighbours(model: Any, train: ImageSplit, held_out: ImageSplit) -> Answers:
    x, y = select(held_out, QUERIES)
    assert y is not None
    with evaluation_mode(model):
        logits = torch.cat([model(part) for part in torch.split(x, at_once(train.spec, BATCH))])
    answers, near = logits.argmax(1), neighbour_labels(train, x)
    counts = y.bincount()
    return Answers(
        accuracy=float((answers == y).double().mean()),
        neighbours=float((near == y).double().mean()),
        agreement=float((near == answers).double().mean()),
        chance=float(counts.max()) / len(y),
        spread=float(logits.double().std(0).mean()) if len(y) > 1 else math.inf,
    )


def check_answers(answers: Answers, split: str) -> Iterator[Diagnosis]:
    """Find a classifier at chance, with its cause, and labels that are partly wrong."""
    if answers.chance == 1:
        return
    limit = answers.chance + CHANCE
    saw = (
        f"accuracy {answers.accuracy:.3f} on the {split} images, where the most frequent class "
        f"has {answers.chance:.3f}"
    )
    if answers.accuracy <= limit and answers.neighbours <= limit:
        yield Diagnosis(
            "labels",
            "warning",
            f"{saw} and the labels of the nearest training images have {answers.neighbours:.3f}",
            "check that each label belongs to its image: they seem to be shuffled or random",
        )
    elif answers.accuracy <= limit:
        constant = "; its answer does not depend on the image" * (answers.spread < CONSTANT)
        yield Diagnosis(
            "chance",
            "warning",
            f"{saw}, and the labels of the nearest training images have "
            f"{answers.neighbours:.3f}{constant}",
            "train again with another learning rate"
            if not constant
            else "train again with a smaller train.lr: the network no longer reacts to its input",
        )
    elif answers.agreement - answers.accuracy > DISAGREEMENT:
        share = 1 - answers.accuracy / answers.agreement
        yield Diagnosis(
            "labels",
            "warning",
            f"{saw}, but {answers.agreement:.3f} of its answers are those of the nearest training "
            "images",
            f"check the labels: about {share:.0%} of them seem to be wrong",
        )


def check_reconstructions(
    model: Any, train: ImageSplit, held_out: ImageSplit, split: str, provides: Set[str]
) -> Iterator[Diagnosis]:
    """Find an autoencoder whose reconstructions hardly depend on the image."""
    x, y = select(held_out, QUERIES)
    mean = select(train, QUERIES)[0].double().mean(0)
    recon = []
    with evaluation_mode(model):
        places = torch.arange(len(x), device=x.device)
        for part in torch.split(places, at_once(train.spec, BATCH)):
            view = given(model, None if y is None else y[part], provides)
            recon.append(view.decode(view.encode(x[part]).mode()))
    error = float((torch.cat(recon).double() - x.double()).square().mean())
    baseline = float((mean - x.double()).square().mean())
    explained = 1 - error / baseline if baseline else 1.0
    if explained < EXPLAINED:
        yield Diagnosis(
            "reconstructions",
            "warning",
            f"a squared error of {error:.3g} per value on the {split} images, and the mean "
            f"training image has {baseline:.3g}: the reconstructions explain "
            f"{max(explained, 0):.0%} of the variance",
            "look at them with `latentforge explore reconstruct RUN`; then another train.lr, more "
            "epochs, or a smaller weight of the KL if there is one",
        )


def check_rate(
    trainee: Trainee, initial: Trainee, images: ImageSplit, config: TrainConfig, step: Step
) -> Iterator[Diagnosis]:
    """Train copies of the model for some steps with other learning rates. If a smaller or a larger
    rate improves the loss by a large fraction of what the whole training has improved it from that
    of the `initial` weights, the rate was too high, or too low. If the training has made the loss
    worse, smaller rates start from the initial weights, as no rate may repair the present ones."""
    try:
        before, start = (mean_loss(each, images, step) for each in (trainee, initial))
        wanted = max(GAIN * (start - before), 1e-6)
        is_worse = before > start
        tried = {
            factor: search_rate(weights, images, config, step, factor, before - wanted)
            for factor, weights in ((0.1, initial if is_worse else trainee), (10.0, trainee))
        }
    except Exception as error:  # of a model that cannot be copied or trained again
        saw = f"the learning rate could not be checked: {one_line(error)}"
        yield Diagnosis("learning rate", "note", saw, "nothing, if the metrics are good")
        return
    (_, smaller), (_, larger) = tried.values()
    direction = ""
    if is_worse or before - smaller > wanted:
        direction, (rate, loss) = "high", tried[0.1]
    elif before - larger > wanted:
        direction, (rate, loss) = "low", tried[10.0]
    if direction:
        change, steps = "improved", f"{STEPS} more steps"
        if is_worse:
            change, steps = "raised", f"{STEPS} steps from the initial weights"
        yield Diagnosis(
            "learning rate",
            "warning",
            f"training has {change} the loss from {start:.5g} to {before:.5g}, and {steps} with "
            f"the rate {rate:g} give {loss:.5g}",
            f"train.lr={rate:g}: the rate {config.lr:g} seems to be too {direction}",
        )


def search_rate(
    trainee: Trainee,
    images: ImageSplit,
    config: TrainConfig,
    step: Step,
    factor: float,
    wanted: float,
) -> tuple[float, float]:
    """Return the rate with the smallest loss after some steps, and this loss. The rate is
    multiplied by `factor` once or, if that does not lower the loss to `wanted`, twice, and then
    as long as the loss falls."""
    best = float(f"{config.lr * factor:.3g}"), math.inf
    for number in range(1, MOST_RATES + 1):
        rate = float(f"{config.lr * factor**number:.3g}")
        loss = try_rate(trainee, images, replace(config, lr=rate), step)
        if loss < best[1]:
            best = rate, loss
        elif number > 1:
            break
        if number > 1 and best[1] > wanted:
            break
    return best


def mean_loss(trainee: Trainee, images: ImageSplit, step: Step) -> float:
    """The loss of a sample of the images, in evaluation mode, with the same noise in each call."""
    batch = select_batch(images, min(SAMPLE, at_once(images.spec, SAMPLE)))
    device = batch.x.device
    with callers_state_kept(device), evaluation_mode(trainee):
        torch.manual_seed(0)
        total = trainee(batch, step).total()
    return float(total) if math.isfinite(float(total)) else math.inf


def try_rate(trainee: Trainee, images: ImageSplit, config: TrainConfig, step: Step) -> float:
    """The loss after STEPS steps on a copy of the weights."""
    tried = copy.deepcopy(trainee)
    tried.requires_grad_(True)
    tried.train()
    optimizer = build_optimizer(tried, config)
    update = followed_by(optimizer.step, tried.step_hooks)
    order = torch.randperm(len(images), generator=generator("cpu", "try rate")).to(images.device)
    size = min(config.batch_size, len(images))
    with callers_state_kept(images.device), torch.enable_grad():
        torch.manual_seed(1)
        for number in range(STEPS):
            places = torch.arange(number * size, (number + 1) * size, device=images.device)
            total = tried(images.batch(order[places % len(images)]), step).total()
            if not torch.isfinite(total):
                break
            optimizer.zero_grad()
            total.backward()
            update()
    return mean_loss(tried, images, step)
