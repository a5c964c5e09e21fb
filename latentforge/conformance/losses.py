"""Contract checks for losses. A loss is tested with a model that has the capabilities in `needs`;
the model is built in or from the same plugin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.conformance.assertions import (
    call_loss,
    find_refusal,
    make_step,
    parameters_without_gradient,
    require_unmodified,
    seed_torch,
    train_steps,
)
from latentforge.conformance.capabilities import needs_of, restrict_to_needs
from latentforge.conformance.examples import Examples, make_batch
from latentforge.conformance.fixtures import Host, build, build_other, find_host
from latentforge.conformance.global_state import require_no_global_change, restore_settings
from latentforge.conformance.subject import CheckFailed, CheckSkipped, Subject, require
from latentforge.conformance.training_roles import (
    require_declared_needs,
    require_unmodified_roles,
)
from latentforge.contracts import Batch, DataSpec, Terms
from latentforge.data.images import ImageSplit
from latentforge.engine.evaluator import evaluation_mode
from latentforge.engine.loss_weights import HINT, find_alternating_term
from latentforge.errors import UsageError
from latentforge.plugins.registry import Entry

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
    model, batch = _model_for(subject), _batch_for(subject)
    once, more = (_averages(subject, model, b) for b in (batch, _repeat(batch)))
    for name, (one, error) in once.items():
        four, other_error = more[name]
        noise = 5 * math.hypot(COPIES * error, other_error) + 1e-3
        saw = f"term {name!r} is {one:.5g} for 6 images and {four:.5g} for {COPIES} copies of them"
        require(abs(four) < 0.75 * COPIES * abs(one) + noise, saw, PER_IMAGE)


def a_reconstruction_is_a_sum_over_pixels(subject: Subject) -> None:
    """For images with twice as many pixels, the derivatives of recon by the decoded pixels must add
    up to about twice as much. Its value need not: a log density may have any sign. All decoded
    pixels are equal, because the scale of a network's output may depend on its size."""
    host = _host_for(subject)
    sums = {}
    for data in (host.examples.spec, host.examples.widened()):
        try:
            model = build_other(subject, host.entry, data)
        except UsageError as error:
            why = f"model {host.entry.name!r} does not support {data.shape}: {error.message}"
            raise CheckSkipped(why) from None
        sums[data.shape] = _sum_of_derivatives(build(subject, data), model, data)
    (small, one), (large, two) = sums.items()
    saw = f"the derivatives of recon add up to {one:.5g} for {small} and {two:.5g} for {large}"
    require(1.5 * one < two < 2.7 * one, saw, PER_IMAGE)


def gradients_reach_the_model_and_the_loss(subject: Subject) -> None:
    """Gradients of three steps are considered: an early, a middle and a late step."""
    model, loss, batch = _parts_for(subject)
    total = call_loss(loss, model, batch, make_step()).total()
    require(total.requires_grad, "the total has no gradient", "do not detach the terms")
    modules = nn.ModuleDict({"model": model, "loss": loss})
    left = parameters_without_gradient(modules, train_steps(model, loss, batch))
    trained = [f"model.{name}" for name, p in model.named_parameters() if p.requires_grad]
    require({*trained} - {*left}, "no gradient reaches the model", "call the model in forward")
    unused = [name.removeprefix("loss.") for name in left if name.startswith("loss.")]
    saw = f"no gradient reaches the loss's own {', '.join(unused)}"
    require(not unused, saw, "use them, remove them, or freeze them with requires_grad_(False)")


def it_uses_only_declared_capabilities(subject: Subject) -> None:
    model, provides = _model_for(subject), _host_for(subject).entry.provides
    with restrict_to_needs((model, provides, needs_of(subject)), field="needs"):
        _terms_of(subject, model)


def it_works_without_labels(subject: Subject) -> None:
    if subject.entry.spec.labels:
        raise CheckSkipped("it has labels=True")
    batch = _batch_for(subject)
    batch.y = batch.images = None
    hint = "set labels=True in its spec, or do not use batch.y"
    try:
        terms = _terms_of(subject, batch=batch)
    except Exception as error:
        saw = f"for a batch without labels it raises {subject.describe_error(error)}"
        raise CheckFailed(saw, hint) from error
    _require_finite(terms, "for a batch without labels, ", hint)


def it_works_without_factors(subject: Subject) -> None:
    """The data may have labels, but no other factors."""
    if subject.entry.spec.factors:
        raise CheckSkipped("it has factors=True")
    data, batch = replace(_host_for(subject).examples.spec, factors=()), _batch_for(subject)
    hint = "set factors=True in its spec, or do not use batch.factors"
    batch.images = None
    try:
        terms = call_loss(build(subject, data), _model_for(subject), batch, make_step())
    except Exception as error:
        saw = f"for a batch without factors it raises {subject.describe_error(error)}"
        raise CheckFailed(saw, hint) from error
    _require_finite(terms, "for a batch without factors, ", hint)


def the_batch_is_not_modified(subject: Subject) -> None:
    batch = _batch_for(subject)
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
    names = {tuple(call_loss(loss, model, batch, make_step(i)).values) for i in (0, 1, 50, 99)}
    saw = f"the names differ between steps: {' and '.join(map(str, names))}"
    require(len(names) == 1, saw, "return all terms at every step")


def weights_do_not_alternate(subject: Subject) -> None:
    """The weights are read as before a training, in evaluation mode at the last steps."""
    model, loss, batch = _parts_for(subject)
    with evaluation_mode(model, loss):
        found = find_alternating_term(
            lambda index: call_loss(loss, model, batch, make_step(index)), make_step().total
        )
    require(found is None, str(found), HINT)


def a_batch_of_one_works(subject: Subject) -> None:
    """In evaluation mode, because the model's batch normalisation cannot train on one image."""
    terms = _terms_of(subject, _model_for(subject).eval(), _batch_for(subject, 1))
    _require_finite(terms, "for one image, ", "do not divide by n - 1")


def a_batch_without_some_classes_works(subject: Subject) -> None:
    batch = _batch_for(subject)
    batch.y = torch.zeros_like(batch.index)  # all of the first class
    hint = "handle classes without images"
    _require_finite(_terms_of(subject, batch=batch), "for a batch with only one class, ", hint)


def it_works_without_gradients(subject: Subject) -> None:
    """The loss is called as in an evaluation at the end of a run, in evaluation mode."""
    model, loss, batch = _parts_for(subject)
    with torch.no_grad():
        terms = call_loss(loss.eval(), model.eval(), batch, make_step(100))
    for name, value in terms.values.items():
        saw = f"at the last step, {name!r} is {value.item()}"
        require(value.isfinite(), saw, "check the use of step")


def state_survives_saving_and_loading(subject: Subject) -> None:
    """The state is saved after a few steps, which may change more than the weights."""
    model, one, batch = _parts_for(subject)
    other = build(subject, _host_for(subject).examples.spec, 1)
    list(train_steps(_model_for(subject), one, batch))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    model.eval()
    before, after = (
        call_loss(loss.eval(), model, batch, make_step()).values for loss in (one, other)
    )
    differ = [name for name in before if not torch.equal(before[name], after[name])]
    hint = "store what it needs as a parameter, a buffer (register_buffer) or an option"
    require(not differ, f"terms of the reloaded loss differ: {', '.join(differ)}", hint)


def it_does_not_synchronize_the_device(subject: Subject) -> None:
    """The loss runs on torch's device `meta`, whose tensors have no values. Reading a value, or
    using a tensor on another device, raises an error."""
    model, loss, batch = _parts_for(subject)
    if subject.entry.spec.roles or _host_for(subject).entry.spec.roles:
        raise CheckSkipped("the runs in its roles are on the CPU")
    model, loss = model.to("meta"), loss.to("meta")
    y = None if batch.y is None else batch.y.to("meta")
    assert isinstance(batch.images, ImageSplit)
    moved = Batch(batch.x.to("meta"), y, batch.index.to("meta"), batch.images.to("meta"))
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
    with restore_settings():  # the search for data calls the loss too
        model = _model_for(subject)
    with require_no_global_change("building and calling it"):
        _terms_of(subject, model)


def it_uses_only_declared_capabilities_of_its_roles(subject: Subject) -> None:
    data = _host_for(subject).examples.spec
    require_declared_needs(subject, data, lambda: list(train_steps(*_parts_for(subject))))


def the_runs_in_its_roles_are_not_modified(subject: Subject) -> None:
    data = _host_for(subject).examples.spec
    require_unmodified_roles(subject, data, lambda: list(train_steps(*_parts_for(subject))))


def _host_for(subject: Subject) -> Host:
    """A model with the capabilities in `needs`, and data that both it and the loss support."""

    def refusal_of(entry: Entry, examples: Examples) -> str:
        if subject.entry.spec.labels and not examples.spec.classes:
            return "the data has no labels"
        model = build_other(subject, entry, examples.spec)
        return find_refusal(partial(build, subject, examples.spec), model, examples.batch())

    return subject.once("host", lambda: find_host(subject, needs_of(subject), refusal_of))


def _model_for(subject: Subject) -> nn.Module:
    """A new model, always with the same weights."""
    host = _host_for(subject)
    seed_torch(0, "init")
    return build_other(subject, host.entry, host.examples.spec)


def _batch_for(subject: Subject, count: int = 6) -> Batch:
    return _host_for(subject).examples.batch(count)


def _parts_for(subject: Subject) -> tuple[nn.Module, nn.Module, Batch]:
    """A new model, a new loss and a batch for both."""
    model = _model_for(subject)
    return model, build(subject, _host_for(subject).examples.spec), _batch_for(subject)


def _terms_of(
    subject: Subject, model: nn.Module | None = None, batch: Batch | None = None
) -> Terms:
    """The terms that a new loss returns for a batch."""
    model = _model_for(subject) if model is None else model
    loss = build(subject, _host_for(subject).examples.spec)
    return call_loss(loss, model, batch or _batch_for(subject), make_step())


def _require_finite(terms: Terms, prefix: str, hint: str) -> None:
    for name, value in terms.values.items():
        require(value.isfinite(), f"{prefix}term {name!r} is {value.item()}", hint)


def _averages(subject: Subject, model: nn.Module, batch: Batch) -> dict[str, tuple[float, float]]:
    """Return the mean of each term over SEEDS seeds, and the standard error of the mean."""
    loss = build(subject, _host_for(subject).examples.spec)
    samples: dict[str, list[float]] = {}
    with torch.no_grad():
        for seed in range(SEEDS):
            for name, value in call_loss(loss, model, batch, make_step(), seed).values.items():
                samples.setdefault(name, []).append(value.item())
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in samples.items()}
    return {name: (float(v.mean()), float(v.std() / SEEDS**0.5)) for name, v in tensors.items()}


def _sum_of_derivatives(loss: nn.Module, model: nn.Module, data: DataSpec) -> float:
    """The sum of the absolute derivatives of the term recon by the outputs of the decoder, or its
    absolute value if it has no gradient. Raises CheckSkipped if there is no such term."""
    outputs: list[Tensor] = []
    middle = float(data.from_unit(torch.tensor(0.5)))
    for name, value in (("decode", middle), ("decode_logits", 0.0)):
        if hasattr(model, name):
            setattr(model, name, _replaced(getattr(model, name), value, outputs))
    recon = call_loss(loss, model, make_batch(data), make_step()).values.get("recon")
    if recon is None:
        raise CheckSkipped("it has no term called recon")
    if not recon.requires_grad or not outputs:
        return float(recon.abs())
    gradients = torch.autograd.grad(recon, outputs, allow_unused=True)
    # decode may call decode_logits: the outer call returns last
    return next((float(g.abs().sum()) for g in reversed(gradients) if g is not None), 0.0)


def _replaced(
    decode: Callable[..., Tensor], value: float, outputs: list[Tensor]
) -> Callable[..., Tensor]:
    """Return a function whose results have the shape of those of `decode` and one value. It appends
    those with a gradient to `outputs`."""

    def replace(*arguments: Any, **keywords: Any) -> Tensor:
        decoded = decode(*arguments, **keywords)
        constant = torch.full_like(decoded, value)
        if decoded.requires_grad:
            outputs.append(constant.requires_grad_())
        return constant

    return replace


def _repeat(batch: Batch) -> Batch:
    assert isinstance(batch.images, ImageSplit)
    images = batch.images.select(batch.index.repeat(COPIES))
    return images.batch(torch.arange(len(images)))
