"""What a loss promises. It is tried with a model that has what it needs: one of its own plugin, or
a built-in one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latentforge.config import check_options
from latentforge.conformance.subject import CheckFailed, CheckSkipped, Subject, require
from latentforge.conformance.tiny import model_with
from latentforge.conformance.trying import (
    batch_of,
    build,
    data_of,
    nothing_global_changed,
    seeded,
    step_of,
)
from latentforge.contracts import Batch, Step, Terms
from latentforge.registry import Entry

SHAPE, TWICE = (1, 28, 28), (1, 28, 56)
SEEDS = 24  # over which terms that hold noise are averaged
PER_IMAGE = "means over the batch, in nats per image: sum over pixels, divide by len(batch.x)"


def terms_are_finite_numbers_on_their_own(subject: Subject) -> None:
    terms = terms_of(subject)
    require(
        isinstance(terms, Terms),
        f"it returns {type(terms).__name__}",
        "return latentforge.contracts.Terms({name: value})",
    )
    try:
        terms.check()
    except (TypeError, ValueError) as error:
        raise CheckFailed(str(error), PER_IMAGE) from None
    for name, value in terms.values.items():
        require(value.isfinite(), f"term {name!r} is {value.item()}", "mend the arithmetic")


def terms_do_not_grow_with_the_batch(subject: Subject) -> None:
    """Twice the same images give the same terms, up to the noise that they draw."""
    model = model_for(subject, SHAPE)
    once = averaged(subject, model, batch_of(SHAPE, 6))
    twice = averaged(subject, model, doubled(batch_of(SHAPE, 6)))
    for name, (mean, error) in once.items():
        other, other_error = twice[name]
        allowed = 0.2 * max(abs(mean), abs(other)) + 5 * math.hypot(error, other_error) + 1e-3
        require(
            abs(mean - other) <= allowed,
            f"term {name!r} is {mean:.5g} of 6 images and {other:.5g} of the same 6 twice",
            PER_IMAGE,
        )


def a_reconstruction_is_a_sum_over_pixels(subject: Subject) -> None:
    """Images twice as large cost about twice as much: a mean over pixels would not."""
    figures = {}
    for shape in (SHAPE, TWICE):
        model = model_for(subject, shape)
        found = averaged(subject, model, batch_of(shape), shape)
        if "recon" not in found:
            raise CheckSkipped("it has no term called recon")
        figures[shape] = found["recon"][0]
    ratio = figures[TWICE] / figures[SHAPE]
    require(
        1.5 < ratio < 2.7,
        f"recon is {figures[SHAPE]:.5g} for 28x28 pixels and {figures[TWICE]:.5g} for 28x56",
        PER_IMAGE,
    )


def gradients_reach_the_model_and_the_loss(subject: Subject) -> None:
    model, loss = model_for(subject, SHAPE), build(subject, SHAPE)
    total = called(loss, model, batch_of(SHAPE), step_of()).total()
    require(total.requires_grad, "the total has no gradient", "do not detach the terms")
    torch.autograd.backward(total)
    reached = [p.grad is not None and bool(p.grad.any()) for p in model.parameters()]
    require(any(reached), "no gradient reaches the model", "call the model in forward")
    finite = all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    require(finite, "a gradient is NaN or infinite", "mind 0 * log 0 and the square root of 0")
    own = [n for n, p in loss.named_parameters() if p.grad is None or not bool(p.grad.any())]
    require(not own, f"no gradient reaches its own {', '.join(own)}", "use them, or take them out")


def the_same_seed_gives_the_same_terms(subject: Subject) -> None:
    model, loss = model_for(subject, SHAPE), build(subject, SHAPE)
    one, other = (called(loss, model, batch_of(SHAPE), step_of()).values for _ in range(2))
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    require(
        not differ,
        f"under one seed {', '.join(differ)} differ from call to call",
        "draw from torch's default generator, and keep nothing from one call to the next",
    )


def terms_have_the_same_names_at_every_step(subject: Subject) -> None:
    model, loss = model_for(subject, SHAPE), build(subject, SHAPE)
    seen = {tuple(called(loss, model, batch_of(SHAPE), step_of(i)).values) for i in (0, 1, 50, 99)}
    require(len(seen) == 1, f"the names are now {' and now '.join(map(str, seen))}", "give all")


def a_batch_of_one_works(subject: Subject) -> None:
    terms = terms_of(subject, batch_of(SHAPE, 1))
    for name, value in terms.values.items():
        require(value.isfinite(), f"of one image, term {name!r} is {value.item()}", "mind n - 1")


def a_class_without_images_works(subject: Subject) -> None:
    batch = batch_of(SHAPE, 6)
    batch.y = torch.zeros_like(batch.index)  # all of the first class
    for name, value in terms_of(subject, batch).values.items():
        saw = f"of a batch with one class alone, term {name!r} is {value.item()}"
        require(value.isfinite(), saw, "a small batch need not hold every class")


def it_works_without_gradients(subject: Subject) -> None:
    """As evaluations call it, in evaluation mode, with the step at which the training ends."""
    model, loss = model_for(subject, SHAPE).eval(), build(subject, SHAPE).eval()
    with torch.no_grad():
        terms = called(loss, model, batch_of(SHAPE), step_of(100))
    for name, value in terms.values.items():
        require(value.isfinite(), f"at the last step, {name!r} is {value.item()}", "look at step")


def state_survives_saving_and_loading(subject: Subject) -> None:
    model = model_for(subject, SHAPE)
    one, other = build(subject, SHAPE, 0), build(subject, SHAPE, 1)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.01)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    before, after = (called(m, model, batch_of(SHAPE), step_of()).values for m in (one, other))
    differ = [name for name in before if not torch.equal(before[name], after[name])]
    require(
        not differ,
        f"the reloaded loss gives another {', '.join(differ)}",
        "what a loss needs is a parameter, a buffer (register_buffer) or an option",
    )


def it_waits_for_no_device(subject: Subject) -> None:
    """On torch's device without numbers: what looks at a value, or stays behind, is an error."""
    if torch.cuda.is_available():
        raise CheckSkipped("tests on the GPU see it")
    model = model_for(subject, SHAPE).to("meta")
    loss, batch = build(subject, SHAPE).to("meta"), batch_of(SHAPE)
    moved = Batch(batch.x.to("meta"), _moved(batch.y), batch.index.to("meta"))
    try:
        loss(model, moved, step_of())
    except (RuntimeError, NotImplementedError) as error:
        raise CheckFailed(
            str(error).partition("\n")[0],
            "no .item(), float() or `if` on a tensor after the first step; make tensors with "
            "device=batch.x.device",
        ) from None


def nothing_global_is_changed(subject: Subject) -> None:
    model = model_for(subject, SHAPE)
    with nothing_global_changed("building and calling it"):
        called(build(subject, SHAPE), model, batch_of(SHAPE), step_of())


CHECKS = (
    terms_are_finite_numbers_on_their_own,
    terms_do_not_grow_with_the_batch,
    a_reconstruction_is_a_sum_over_pixels,
    gradients_reach_the_model_and_the_loss,
    the_same_seed_gives_the_same_terms,
    terms_have_the_same_names_at_every_step,
    a_batch_of_one_works,
    a_class_without_images_works,
    it_works_without_gradients,
    state_survives_saving_and_loading,
    it_waits_for_no_device,
    nothing_global_is_changed,
)


def model_for(subject: Subject, shape: tuple[int, ...]) -> nn.Module:
    """A new model that has what the loss needs."""
    needs = subject.entry.spec.needs
    needs = needs(subject.config) if callable(needs) else needs
    entry: Entry = subject.once(f"model for {shape}", lambda: model_with(subject, needs, shape))
    seeded(0, "init")
    model: nn.Module = entry.spec.build(check_options(entry.spec.config, {}, ""), data_of(shape))
    return model


def called(loss: nn.Module, model: nn.Module, batch: Batch, step: Step) -> Terms:
    seeded(0)
    terms: Terms = loss(model, batch, step)
    return terms


def terms_of(subject: Subject, batch: Batch | None = None) -> Terms:
    model = model_for(subject, SHAPE)
    return called(build(subject, SHAPE), model, batch or batch_of(SHAPE), step_of())


def averaged(
    subject: Subject, model: nn.Module, batch: Batch, shape: tuple[int, ...] = SHAPE
) -> Mapping[str, tuple[float, float]]:
    """Each term's mean over draws of its noise, and the mean's standard error."""
    loss = build(subject, shape)
    drawn: dict[str, list[float]] = {}
    with torch.no_grad():
        for seed in range(SEEDS):
            seeded(seed)
            for name, value in loss(model, batch, step_of()).values.items():
                drawn.setdefault(name, []).append(value.item())
    found = {name: torch.tensor(values, dtype=torch.float64) for name, values in drawn.items()}
    return {name: (float(v.mean()), float(v.std() / SEEDS**0.5)) for name, v in found.items()}


def doubled(batch: Batch) -> Batch:
    assert batch.y is not None
    return Batch(batch.x.repeat(2, 1, 1, 1), batch.y.repeat(2), torch.arange(2 * len(batch.x)))


def _moved(y: Tensor | None) -> Tensor | None:
    return None if y is None else y.to("meta")
