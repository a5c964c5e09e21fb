"""Contract checks for losses. A loss is tested with a model that has the capabilities in `needs`;
the model is built in or from the same plugin."""

from __future__ import annotations

import math

import torch
from torch import nn

from latentforge.conformance.assertions import (
    build,
    build_with_defaults,
    make_batch,
    make_step,
    parameters_without_gradient,
    require_unmodified,
    run_with_seeds,
    seed_torch,
    shapes_for,
    train_steps,
)
from latentforge.conformance.capabilities import needs_of, restrict_to_needs
from latentforge.conformance.fixtures import model_with
from latentforge.conformance.global_state import require_no_global_change
from latentforge.conformance.subject import CheckFailed, CheckSkipped, Subject, require
from latentforge.contracts import Batch, Step, Terms
from latentforge.data.images import ImageSplit
from latentforge.engine.evaluator import evaluation_mode
from latentforge.engine.loss_weights import HINT, find_alternation

COPIES = 4  # copies of a batch, with which terms must not grow in proportion
SEEDS = 24  # the number of seeds over which noisy terms are averaged
HINTS = {  # hints for the errors of Terms.check
    "0-d tensor": "return a mean over the batch: sum over pixels, then .mean()",
    "called 'loss'": "use another name; the core sums the terms",
    "per_dim": "return value.detach() of shape (D,), a mean over the batch",
    "a weight is given for": "give each weight the name of its term",
    "nothing to train on": "give one of the terms a weight other than 0",
}
PER_IMAGE = (
    "return means over the batch, in nats per image: sum over pixels, divide by len(batch.x)"
)


def terms_are_finite_scalars(subject: Subject) -> None:
    terms = _terms_of(subject)
    hint = "return latentforge.contracts.Terms({name: value})"
    require(isinstance(terms, Terms), f"it returns {type(terms).__name__}", hint)
    try:
        terms.check()
    except (TypeError, ValueError) as error:
        [hint] = [hint for text, hint in HINTS.items() if text in str(error)]
        raise CheckFailed(str(error), hint) from None
    _require_finite(terms, "", "fix the arithmetic")


def terms_do_not_grow_with_the_batch(subject: Subject) -> None:
    """Four copies of the images must not yield terms that are four times as large, like a sum over
    the batch. Some growth is correct: a contrastive term is larger for more images."""
    model, batch = _model_for(subject), make_batch(_shape_for(subject))
    once, more = (_averages(subject, model, b) for b in (batch, _repeat(batch)))
    for name, (one, error) in once.items():
        four, other_error = more[name]
        noise = 5 * math.hypot(COPIES * error, other_error) + 1e-3
        saw = f"term {name!r} is {one:.5g} for 6 images and {four:.5g} for {COPIES} copies of them"
        require(abs(four) < 0.75 * COPIES * abs(one) + noise, saw, PER_IMAGE)


def a_reconstruction_is_a_sum_over_pixels(subject: Subject) -> None:
    """For images with twice as many pixels, recon must be about twice as large."""
    shape = _shape_for(subject)
    recons = {}
    for image_shape in (shape, (*shape[:-1], 2 * shape[-1])):
        terms = _averages(subject, _model_for(subject, image_shape), make_batch(image_shape))
        if "recon" not in terms:
            raise CheckSkipped("it has no term called recon")
        recons[image_shape] = terms["recon"][0]
    (small, one), (large, two) = recons.items()
    saw = f"recon is {one:.5g} for images of {small} and {two:.5g} for {large}"
    require(1.5 < two / one < 2.7, saw, PER_IMAGE)


def gradients_reach_the_model_and_the_loss(subject: Subject) -> None:
    """Gradients of three steps are considered: an early, a middle and a late step."""
    model, loss, batch = _parts_for(subject)
    total = _call(loss, model, batch, make_step()).total()
    require(total.requires_grad, "the total has no gradient", "do not detach the terms")
    modules = nn.ModuleDict({"model": model, "loss": loss})
    left = parameters_without_gradient(modules, train_steps(model, loss, batch))
    trained = [f"model.{name}" for name, p in model.named_parameters() if p.requires_grad]
    require({*trained} - {*left}, "no gradient reaches the model", "call the model in forward")
    unused = [name.removeprefix("loss.") for name in left if name.startswith("loss.")]
    saw = f"no gradient reaches the loss's own {', '.join(unused)}"
    require(not unused, saw, "use them, remove them, or freeze them with requires_grad_(False)")


def it_uses_only_declared_capabilities(subject: Subject) -> None:
    shape = _shape_for(subject)
    model, entry = _model_for(subject, shape), subject.cache[f"model for {shape}"]
    with restrict_to_needs((model, entry.provides, needs_of(subject)), field="needs"):
        _terms_of(subject, model)


def it_works_without_labels(subject: Subject) -> None:
    if subject.entry.spec.labels:
        raise CheckSkipped("it has labels=True")
    batch = make_batch(_shape_for(subject))
    batch.y = batch.images = None
    hint = "set labels=True in its spec, or do not use batch.y"
    try:
        terms = _terms_of(subject, batch=batch)
    except Exception as error:
        saw = f"for a batch without labels it raises {subject.describe_error(error)}"
        raise CheckFailed(saw, hint) from error
    _require_finite(terms, "for a batch without labels, ", hint)


def it_works_without_factors(subject: Subject) -> None:
    """The data has labels, but no other factors."""
    if subject.entry.spec.factors:
        raise CheckSkipped("it has factors=True")
    shape, hint = _shape_for(subject), "set factors=True in its spec, or do not use batch.factors"
    batch = make_batch(shape)
    batch.images = None
    try:
        loss = build(subject, shape, factors=())
        terms = _call(loss, _model_for(subject), batch, make_step())
    except Exception as error:
        saw = f"for a batch without factors it raises {subject.describe_error(error)}"
        raise CheckFailed(saw, hint) from error
    _require_finite(terms, "for a batch without factors, ", hint)


def the_batch_is_not_modified(subject: Subject) -> None:
    batch = make_batch(_shape_for(subject))
    with require_unmodified(batch):
        _terms_of(subject, batch=batch)


def the_same_seed_gives_the_same_terms(subject: Subject) -> None:
    model = _model_for(subject)
    one, other = (_terms_of(subject, model).values for _ in range(2))
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    saw = f"two losses with the same seed return different values of {', '.join(differ)}"
    require(not differ, saw, "use torch's default generator, and store nothing outside the module")


def terms_have_the_same_names_at_every_step(subject: Subject) -> None:
    model, loss, batch = _parts_for(subject)
    names = {tuple(_call(loss, model, batch, make_step(i)).values) for i in (0, 1, 50, 99)}
    saw = f"the names differ between steps: {' and '.join(map(str, names))}"
    require(len(names) == 1, saw, "return all terms at every step")


def weights_do_not_alternate(subject: Subject) -> None:
    """The weights are read as before a training, in evaluation mode at the last steps."""
    model, loss, batch = _parts_for(subject)
    with evaluation_mode(model, loss):
        found = find_alternation(
            lambda index: loss(model, batch, make_step(index)).weights, make_step().total
        )
    require(found is None, str(found), HINT)


def a_batch_of_one_works(subject: Subject) -> None:
    """In evaluation mode, because the model's batch normalisation cannot train on one image."""
    terms = _terms_of(subject, _model_for(subject).eval(), make_batch(_shape_for(subject), 1))
    _require_finite(terms, "for one image, ", "do not divide by n - 1")


def a_batch_without_some_classes_works(subject: Subject) -> None:
    batch = make_batch(_shape_for(subject))
    batch.y = torch.zeros_like(batch.index)  # all of the first class
    hint = "handle classes without images"
    _require_finite(_terms_of(subject, batch=batch), "for a batch with only one class, ", hint)


def it_works_without_gradients(subject: Subject) -> None:
    """The loss is called as in an evaluation at the end of a run, in evaluation mode."""
    model, loss, batch = _parts_for(subject)
    with torch.no_grad():
        terms = _call(loss.eval(), model.eval(), batch, make_step(100))
    for name, value in terms.values.items():
        saw = f"at the last step, {name!r} is {value.item()}"
        require(value.isfinite(), saw, "check the use of step")


def state_survives_saving_and_loading(subject: Subject) -> None:
    """The state is saved after a few steps, which may change more than the weights."""
    shape = _shape_for(subject)
    model = _model_for(subject, shape)
    one, other = build(subject, shape, 0), build(subject, shape, 1)
    list(train_steps(_model_for(subject, shape), one, make_batch(shape)))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    model.eval()
    before, after = (
        _call(loss.eval(), model, make_batch(shape), make_step()).values for loss in (one, other)
    )
    differ = [name for name in before if not torch.equal(before[name], after[name])]
    hint = "store what it needs as a parameter, a buffer (register_buffer) or an option"
    require(not differ, f"terms of the reloaded loss differ: {', '.join(differ)}", hint)


def it_does_not_synchronize_the_device(subject: Subject) -> None:
    """The loss runs on torch's device `meta`, whose tensors have no values. Reading a value, or
    using a tensor on another device, raises an error."""
    model, loss, batch = _parts_for(subject)
    model, loss = model.to("meta"), loss.to("meta")
    assert batch.y is not None
    x, y, index = (values.to("meta") for values in (batch.x, batch.y, batch.index))
    assert isinstance(batch.images, ImageSplit)
    moved = Batch(x, y, index, batch.images.to("meta"))
    try:
        loss(model, moved, make_step())
    except (RuntimeError, NotImplementedError) as error:
        raise CheckFailed(
            subject.describe_error(error),
            "use no .item(), float() or `if` on a tensor after the first step; make tensors with "
            "device=batch.x.device; give torch.distributions validate_args=False, because they "
            "otherwise read their arguments",
        ) from None


def global_state_is_unchanged(subject: Subject) -> None:
    model = _model_for(subject)
    with require_no_global_change("building and calling it"):
        _terms_of(subject, model)


def _shape_for(subject: Subject) -> tuple[int, ...]:
    """The first test shape that some model with the capabilities in `needs` supports."""

    def find() -> tuple[int, ...]:
        for shape in shapes_for(subject):
            try:
                _model_for(subject, shape)
            except CheckSkipped as why:
                refusal = why
            else:
                return shape
        raise refusal

    return subject.once("shape", find)


def _model_for(subject: Subject, shape: tuple[int, ...] = ()) -> nn.Module:
    """Build a model with the capabilities in `needs`, for `shape` or, by default, the shape that
    the loss is tested with."""
    shape = shape or _shape_for(subject)
    key, needs = f"model for {shape}", needs_of(subject)
    entry = subject.once(key, lambda: model_with(subject, needs, shape))
    seed_torch(0, "init")
    return build_with_defaults(entry, shape)


def _parts_for(subject: Subject) -> tuple[nn.Module, nn.Module, Batch]:
    """A new model, a new loss and a batch for both."""
    shape = _shape_for(subject)
    return _model_for(subject), build(subject, shape), make_batch(shape)


def _call(loss: nn.Module, model: nn.Module, batch: Batch, step: Step) -> Terms:
    seed_torch(0)
    terms: Terms = loss(model, batch, step)
    return terms


def _terms_of(
    subject: Subject, model: nn.Module | None = None, batch: Batch | None = None
) -> Terms:
    """The terms that a new loss returns for a batch."""
    model = _model_for(subject) if model is None else model
    shape = _shape_for(subject)
    return _call(build(subject, shape), model, batch or make_batch(shape), make_step())


def _require_finite(terms: Terms, prefix: str, hint: str) -> None:
    for name, value in terms.values.items():
        require(value.isfinite(), f"{prefix}term {name!r} is {value.item()}", hint)


def _averages(subject: Subject, model: nn.Module, batch: Batch) -> dict[str, tuple[float, float]]:
    """Return the mean of each term over SEEDS seeds, and the standard error of the mean."""
    loss = build(subject, tuple(batch.x.shape[1:]))
    samples: dict[str, list[float]] = {}
    with torch.no_grad():
        for terms in run_with_seeds(range(SEEDS), lambda: loss(model, batch, make_step())):
            for name, value in terms.values.items():
                samples.setdefault(name, []).append(value.item())
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in samples.items()}
    return {name: (float(v.mean()), float(v.std() / SEEDS**0.5)) for name, v in tensors.items()}


def _repeat(batch: Batch) -> Batch:
    assert isinstance(batch.images, ImageSplit)
    images = batch.images.select(batch.index.repeat(COPIES))
    return images.batch(torch.arange(len(images)))
