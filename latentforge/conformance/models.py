"""Contract checks for models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.conformance.assertions import (
    CLASSES,
    batch_of,
    build,
    build_with_defaults,
    elsewhere,
    left_as_it_is,
    only_for,
    require_same,
    require_tensor,
    seeded,
    step_of,
    stepping,
    taken_shape,
    takes,
    under,
    without_gradient,
)
from latentforge.conformance.capabilities import OF_MODELS, OF_POSTERIORS
from latentforge.conformance.global_state import as_it_was, nothing_global_changed
from latentforge.conformance.subject import CheckSkipped, Subject, require
from latentforge.contracts import LatentSpec
from latentforge.errors import UsageError

DRAWS = 400  # samples of a posterior, to estimate its KL
Shape = tuple[int, ...]


def it_has_what_it_provides(subject: Subject) -> None:
    """The attributes of the model and its posteriors that the other checks use."""
    model, provides = _built(subject).eval(), subject.entry.spec.provides
    _lacks(model, OF_MODELS, provides, "the model")
    if provides & {"encode", "decode"}:
        _latent_of(model)
    if "encode" in provides:
        with torch.no_grad():
            posterior = model.encode(batch_of(taken_shape(subject)).x)
        whose = f"the {type(posterior).__name__} that `encode` returns"
        _lacks(posterior, {"encode": ("mode", "sample"), **OF_POSTERIORS}, provides, whose)
    if "layers" in provides:
        names = {name for name, _ in model.named_modules()}
        unknown = [name for name in model.layers() if name not in names]
        saw = f"layers() returns {unknown}, which are not submodules"
        require(not unknown, saw, "fix layers()")


def codes_and_images_have_their_shapes(subject: Subject, shape: Shape) -> None:
    try:
        model = build(subject, shape).eval()
    except UsageError as error:
        raise CheckSkipped(f"it does not support that shape: {error.message}") from None
    provides = subject.entry.spec.provides
    x = batch_of(shape).x
    with takes(subject, shape), torch.no_grad():
        if "encode" in provides:
            latent = _latent_of(model)
            posterior = model.encode(x)
            require_tensor(posterior.mode(), (6, *latent.shape), "the mode", torch.float32)
            require_tensor(posterior.sample(), (6, *latent.shape), "a sample", torch.float32)
        if "decode" in provides:
            image = model.decode(torch.randn(6, *_latent_of(model).shape))
            require_tensor(image, (6, *shape), "a decoded image", torch.float32)
            low, high = float(image.min()), float(image.max())
            require(
                low >= 0 and high <= 1,
                f"decoded values go from {low:.3g} to {high:.3g}",
                "end decode with a sigmoid or another map into [0, 1]",
            )
        if "decode_logits" in provides:
            z = torch.randn(6, *_latent_of(model).shape)
            require_tensor(model.decode_logits(z), (6, *shape), "the logits", torch.float32)
        if "classify" in provides:
            require_tensor(model(x), (6, len(CLASSES)), "the logits", torch.float32)


def it_leaves_the_batch_as_it_is(subject: Subject) -> None:
    shape = taken_shape(subject)
    model, batch = build(subject, shape), batch_of(shape)
    with left_as_it_is(batch):
        _inferred(subject, model.train(), batch.x)
        _inferred(subject, model.eval(), batch.x)


def gradients_reach_every_parameter(subject: Subject) -> None:
    """Under its default loss, in training mode, within three steps: in the first step, a layer that
    is initialised with zeros passes no gradient to the layers before it."""
    shape = taken_shape(subject)
    model, loss = build(subject, shape), _default_loss(subject, shape)
    untouched = without_gradient(model, stepping(model, loss, batch_of(shape)))
    require(
        not untouched,
        f"no gradient of loss {subject.entry.spec.default_loss!r} reaches {', '.join(untouched)}",
        "use them, remove them, or freeze them with requires_grad_(False)",
    )


def ten_steps_lower_the_default_loss(subject: Subject) -> None:
    shape = taken_shape(subject)
    model, loss, batch = build(subject, shape), _default_loss(subject, shape), batch_of(shape)
    first, *_, last = stepping(model, loss, batch, steps=[step_of()] * 11)
    before, after = first.item(), last.item()
    require(
        after < before,
        f"ten steps of Adam change the loss from {before:.5g} to {after:.5g}",
        "check the sign of the loss and the scale of the first activations",
    )


def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    shape = taken_shape(subject)
    one, same, other = (build(subject, shape, seed).state_dict() for seed in (0, 0, 1))
    differ = [name for name in one if not torch.equal(one[name], same[name])]
    require(
        not differ,
        f"built twice with the same seed, {', '.join(differ)} differ",
        "draw weights from torch's default generator and from no other",
    )
    weights = [name for name, value in one.items() if value.is_floating_point()]
    require(
        not weights or any(not torch.equal(one[name], other[name]) for name in weights),
        "another seed gives the same weights",
        "draw them from torch's default generator; do not seed it",
    )


def inference_draws_nothing(subject: Subject) -> None:
    """In evaluation mode, the posterior's mode and its decoded image are the same each time."""
    model, x = _built(subject).eval(), batch_of(taken_shape(subject)).x
    one, other = under((0, 1), lambda: _inferred(subject, model, x))
    for name, value in one.items():
        require(
            torch.equal(value, other[name]),
            f"{name} differs from one call to the next",
            "return the mean in mode(), not a sample; use dropout and noise only in training mode",
        )


def the_mode_is_the_mean(subject: Subject) -> None:
    only_for(subject, "diagonal_gaussian")
    posterior = _posterior_of(subject)
    require_same(posterior.mean, posterior.mode(), "mode() is not the mean", "return self.mean")


def samples_follow_the_seed(subject: Subject) -> None:
    only_for(subject, "kl")
    one, same, other = under((0, 0, 1), _posterior_of(subject).sample)
    require(
        torch.equal(one, same),
        "two samples with the same seed differ",
        "use torch.randn_like or latentforge.latent.noise_like",
    )
    require(
        not torch.equal(one, other),
        "all samples are equal",
        "sample() must be random; only mode() is deterministic",
    )


def the_kl_is_that_of_its_posterior(subject: Subject) -> None:
    """Compared with an estimate from its samples and log_prob, for the prior N(0, I), within five
    standard errors."""
    only_for(subject, "kl")
    latent = _latent_of(_built(subject))
    posterior = _posterior_of(subject)
    kl = posterior.kl()
    require_tensor(kl, (6, *latent.shape), "kl()", torch.float32)
    saw = f"it provides kl, but latent.prior is {latent.prior!r}"
    require(latent.prior == "normal", saw, "prior='normal'")
    only_for(subject, "log_prob")
    from latentforge.latent import standard_normal_log_prob

    seeded(0)
    values = []
    with torch.no_grad():
        for _ in range(DRAWS):
            z = posterior.sample()
            values.append(posterior.log_prob(z) - standard_normal_log_prob(z))
    drawn = torch.stack(values).double()  # (draws, 6)
    mean, error = drawn.mean(0), drawn.std(0) / math.sqrt(len(drawn))
    off = (mean - kl.detach().flatten(1).sum(1)).abs() - 5 * error - 1e-3 * mean.abs() - 1e-3
    require(
        bool((off < 0).all()),
        f"kl() sums to {kl.flatten(1).sum(1).tolist()}, "
        f"its estimate from samples is {mean.tolist()}",
        "kl() is KL(q || p) in nats for each latent dimension; log_prob(z) is log q(z|x)",
    )


def decode_is_the_sigmoid_of_its_logits(subject: Subject) -> None:
    only_for(subject, "decode_logits")
    only_for(subject, "decode")
    model = _built(subject).eval()
    z = torch.randn(6, *_latent_of(model).shape)
    with torch.no_grad():
        require_same(
            model.decode(z),
            model.decode_logits(z).sigmoid(),
            "sigmoid(decode_logits(z)) is not decode(z)",
            "call decode_logits in decode",
        )


def images_are_differentiable_in_the_code(subject: Subject) -> None:
    only_for(subject, "decode")
    model = _built(subject).eval()
    z = torch.randn(3, *_latent_of(model).shape, requires_grad=True)
    image = model.decode(z)
    require(image.requires_grad, "decode(z) has no gradient", "do not detach z in decode")
    [gradient] = torch.autograd.grad(image.sum(), z, allow_unused=True)
    require(
        gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any()),
        "the image has no finite non-zero gradient in z",
        "a search follows this gradient: keep decode differentiable",
    )


def a_batch_of_one_works(subject: Subject) -> None:
    model, batch = _built(subject).eval(), batch_of(taken_shape(subject))
    for name, value in _inferred(subject, model, batch.x[:1]).items():
        require(len(value) == 1, f"{name} of one image has {len(value)} rows", "do not squeeze")


def an_image_does_not_depend_on_its_batch(subject: Subject) -> None:
    model, batch = _built(subject).eval(), batch_of(taken_shape(subject))
    alone, together = (_inferred(subject, model, x) for x in (batch.x[2:3], batch.x))
    for name, value in together.items():
        require_same(
            value[2:3],
            alone[name],
            f"{name} of an image depends on the other images of its batch",
            "in evaluation mode normalise with running statistics, not with those of the batch",
        )


def state_survives_saving_and_loading(subject: Subject) -> None:
    """After a few steps, which may change more state than the weights."""
    shape = taken_shape(subject)
    one, other = build(subject, shape, 0), build(subject, shape, 1)
    list(stepping(one, _default_loss(subject, shape), batch_of(shape)))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    x = batch_of(shape).x
    before, after = (_inferred(subject, model.eval(), x) for model in (one, other))
    for name, value in before.items():
        require_same(
            value,
            after[name],
            f"{name} of the reloaded model differs",
            "store what it needs as a parameter, a buffer (register_buffer) or an option",
        )


def it_moves_to_another_device(subject: Subject) -> None:
    with elsewhere(MOVES) as device:
        model = _built(subject).eval().to(device)
        x = batch_of(taken_shape(subject)).x.to(device)
        for name, value in _inferred(subject, model, x).items():
            require(value.device.type == device.type, f"{name} is on {value.device}", MOVES)


def nothing_global_is_changed(subject: Subject) -> None:
    with as_it_was():
        shape = taken_shape(subject)
    x = batch_of(shape).x  # before the model can change the default dtype
    with nothing_global_changed("building and running it"):
        _inferred(subject, build(subject, shape).eval(), x)


def two_models_share_nothing(subject: Subject) -> None:
    one, other = (_built(subject, seed) for seed in (0, 1))
    places = {value.data_ptr() for value in (*one.parameters(), *one.buffers())}
    shared = [name for name, p in other.named_parameters() if p.data_ptr() in places]
    require(not shared, f"two models share {', '.join(shared)}", "make the layers inside build")


MOVES = "register buffers, and make tensors with device=x.device (x.new_zeros, torch.zeros_like)"


def _lacks(value: Any, names: Mapping[str, Sequence[str]], provides: Set[str], whose: str) -> None:
    """Raise CheckFailed if a value lacks an attribute of a capability that is provided."""
    for ability in (name for name in names if name in provides):
        for name in names[ability]:
            # every module inherits a forward, which raises unless a subclass overrides it
            theirs = getattr(value, name, None) is not None and (
                getattr(type(value), name, None) is not nn.Module.forward
            )
            require(
                theirs,
                f"it provides {ability!r}, but {whose} has no {name}",
                f"define {name}, or remove {ability!r} from `provides`",
            )


def _built(subject: Subject, seed: int = 0) -> Any:
    """A new model for a shape that it supports."""
    return build(subject, taken_shape(subject), seed)


def _posterior_of(subject: Subject) -> Any:
    """q(z|x) of six images, from a new model."""
    return _built(subject).eval().encode(batch_of(taken_shape(subject)).x)


def _latent_of(model: nn.Module) -> LatentSpec:
    latent = getattr(model, "latent", None)
    require(
        isinstance(latent, LatentSpec),
        f"model.latent is {type(latent).__name__}",
        "set self.latent = LatentSpec(shape=(latent_dim,), prior='normal') in __init__",
    )
    assert isinstance(latent, LatentSpec)
    return latent


def _inferred(subject: Subject, model: Any, x: Tensor) -> dict[str, Tensor]:
    """What an explorer gets from the model for images, by name. Raises CheckSkipped if there is
    nothing."""
    provides = subject.entry.spec.provides
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        if "encode" in provides:
            found["the code"] = model.encode(x).mode()
        if "decode" in provides:
            z = found.get("the code")
            if z is None:
                z = torch.ones(len(x), *_latent_of(model).shape, device=x.device)
            found["the decoded image"] = model.decode(z)
        if "classify" in provides:
            found["the logits"] = model(x)
    if not found:
        raise CheckSkipped("it provides none of encode, decode and classify")
    return found


def _default_loss(subject: Subject, shape: Shape) -> nn.Module:
    """The default loss of the model, with its default options."""
    entry = subject.forge.registry.get("losses", subject.entry.spec.default_loss)
    return build_with_defaults(entry, shape)
