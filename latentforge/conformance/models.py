"""Contract checks for models."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from latentforge.conformance.assertions import (
    CLASSES,
    build,
    build_with_defaults,
    make_batch,
    make_step,
    parameters_without_gradient,
    require_same,
    require_shape_support,
    require_tensor,
    require_unmodified,
    run_with_seeds,
    seed_torch,
    skip_unless_provided,
    supported_shape,
    train_steps,
    use_other_device,
)
from latentforge.conformance.capabilities import MODEL_ATTRIBUTES, POSTERIOR_ATTRIBUTES
from latentforge.conformance.global_state import require_no_global_change, restore_settings
from latentforge.conformance.subject import CheckSkipped, Subject, require
from latentforge.contracts import LatentSpec
from latentforge.errors import UsageError
from latentforge.latent import Given, group_slices

SAMPLES = 400  # samples of a posterior, to estimate its KL
DRAWS = 1000  # samples that are compared with their density
MAX_FULL = 64  # dimensions of a Gaussian with full covariance
DENSITY_ERROR = 0.01  # nats; accepted error of a mean log density
Shape = tuple[int, ...]


def it_implements_what_it_provides(subject: Subject) -> None:
    """The model and its posteriors must have the attributes that the other checks use."""
    model, provides = _build(subject).eval(), subject.entry.provides
    _require_attributes(model, MODEL_ATTRIBUTES, provides, "the model")
    if provides & {"encode", "decode"}:
        _latent_of(model)
    if "encode" in provides:
        with torch.no_grad():
            posterior = model.encode(make_batch(supported_shape(subject)).x)
        names = {"encode": ("mode", "sample"), **POSTERIOR_ATTRIBUTES}
        owner = f"the {type(posterior).__name__} that `encode` returns"
        _require_attributes(posterior, names, provides, owner)
    if "prior" in provides and _latent_of(model).prior == "own":
        hint = "define prior(), which returns a latentforge.contracts.Prior"
        require(hasattr(model, "prior"), "latent.prior is 'own', but it has no prior()", hint)
        prior = model.prior()
        for name in ("log_prob", "sample"):
            saw = f"the {type(prior).__name__} that `prior` returns has no {name}"
            require(hasattr(prior, name), saw, f"define {name}")
    if "layers" in provides:
        modules = dict(model.named_modules())
        unknown = [name for name in model.layers() if name not in modules]
        saw = f"layers() returns {unknown}, which are not submodules"
        require(not unknown, saw, "fix layers()")


def codes_and_images_have_the_right_shapes(subject: Subject, shape: Shape) -> None:
    try:
        model = build(subject, shape).eval()
    except UsageError as error:
        raise CheckSkipped(f"it does not support that shape: {error.message}") from None
    provides = subject.entry.provides
    x = make_batch(shape).x
    with require_shape_support(subject, shape), torch.no_grad():
        if "encode" in provides:
            latent = _latent_of(model)
            posterior = model.encode(x)
            require_tensor(posterior.mode(), (6, *latent.shape), "the mode", torch.float32)
            require_tensor(posterior.sample(), (6, *latent.shape), "a sample", torch.float32)
        if "decode" in provides:
            image = model.decode(torch.randn(6, *_latent_of(model).shape))
            require_tensor(image, (6, *shape), "a decoded image", torch.float32)
            low, high = float(image.min()), float(image.max())
            saw = f"decoded values go from {low:.3g} to {high:.3g}"
            hint = "end decode with a sigmoid or another map into [0, 1]"
            require(low >= 0 and high <= 1, saw, hint)
        if "decode_logits" in provides:
            z = torch.randn(6, *_latent_of(model).shape)
            require_tensor(model.decode_logits(z), (6, *shape), "the logits", torch.float32)
        if "classify" in provides:
            require_tensor(model(x), (6, len(CLASSES)), "the logits", torch.float32)


def the_batch_is_not_modified(subject: Subject) -> None:
    shape = supported_shape(subject)
    model, batch = build(subject, shape), make_batch(shape)
    with require_unmodified(batch):
        _infer(subject, model.train(), batch.x)
        _infer(subject, model.eval(), batch.x)


def gradients_reach_every_parameter(subject: Subject) -> None:
    """The gradients of the default loss must reach every parameter within three training steps. In
    the first step, a layer that is initialised with zeros passes no gradient to earlier layers."""
    shape = supported_shape(subject)
    model, loss = build(subject, shape), _default_loss(subject, shape)
    unused = parameters_without_gradient(model, train_steps(model, loss, make_batch(shape)))
    saw = f"no gradient of loss {subject.entry.spec.default_loss!r} reaches {', '.join(unused)}"
    require(not unused, saw, "use them, remove them, or freeze them with requires_grad_(False)")


def ten_steps_lower_the_default_loss(subject: Subject) -> None:
    shape = supported_shape(subject)
    model, loss, batch = build(subject, shape), _default_loss(subject, shape), make_batch(shape)
    first, *_, last = train_steps(model, loss, batch, steps=[make_step()] * 11)
    before, after = first.item(), last.item()
    saw = f"ten steps of Adam change the loss from {before:.5g} to {after:.5g}"
    hint = "check the sign of the loss and the scale of the first activations"
    require(after < before, saw, hint)


def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    shape = supported_shape(subject)
    one, same, other = (build(subject, shape, seed).state_dict() for seed in (0, 0, 1))
    differ = [name for name in one if not torch.equal(one[name], same[name])]
    saw = f"two models with the same seed have different values of {', '.join(differ)}"
    require(not differ, saw, "initialise weights with torch's default generator and no other")
    weights = [name for name, value in one.items() if value.is_floating_point()]
    reseeded = not weights or any(not torch.equal(one[name], other[name]) for name in weights)
    hint = "initialise them with torch's default generator, and do not seed it"
    require(reseeded, "another seed gives the same weights", hint)


def inference_is_deterministic(subject: Subject) -> None:
    """In evaluation mode, the mode of the posterior and its decoded image are always the same."""
    model, x = _build(subject).eval(), make_batch(supported_shape(subject)).x
    one, other = run_with_seeds((0, 1), lambda: _infer(subject, model, x))
    hint = "return the mean in mode(), not a sample; use dropout and noise only in training mode"
    for name, value in one.items():
        saw = f"{name} differs from one call to the next"
        require(torch.equal(value, other[name]), saw, hint)


def the_mode_is_the_mean(subject: Subject) -> None:
    skip_unless_provided(subject, "diagonal_gaussian")
    posterior = _posterior_of(subject)
    require_same(posterior.mean, posterior.mode(), "mode() is not the mean", "return self.mean")


def samples_depend_only_on_the_seed(subject: Subject) -> None:
    skip_unless_provided(subject, "variational")
    one, same, other = run_with_seeds((0, 0, 1), _posterior_of(subject).sample)
    hint = "use torch.randn_like or latentforge.latent.noise_like"
    require(torch.equal(one, same), "two samples with the same seed differ", hint)
    hint = "sample() must be random; only mode() is deterministic"
    require(not torch.equal(one, other), "all samples are equal", hint)


def kl_matches_the_posterior(subject: Subject) -> None:
    """kl() is compared with an estimate from samples and log_prob for the prior N(0, I). They must
    agree within five standard errors."""
    skip_unless_provided(subject, "kl")
    latent = _latent_of(_build(subject))
    posterior = _posterior_of(subject)
    kl = posterior.kl()
    require_tensor(kl, (6, *latent.shape), "kl()", torch.float32)
    saw = f"it provides kl, but latent.prior is {latent.prior!r}"
    require(latent.prior == "normal", saw, "prior='normal'")
    skip_unless_provided(subject, "log_prob")
    from latentforge.latent import standard_normal_log_prob

    seed_torch(0)
    values = []
    with torch.no_grad():
        for _ in range(SAMPLES):
            z = posterior.sample()
            values.append(posterior.log_prob(z) - standard_normal_log_prob(z))
    samples = torch.stack(values).double()  # (SAMPLES, 6)
    mean, error = samples.mean(0), samples.std(0) / math.sqrt(len(samples))
    total = kl.detach().flatten(1).sum(1)
    excess = (mean - total).abs() - 5 * error - 1e-3 * mean.abs() - 1e-3
    saw = f"kl() sums to {total.tolist()}, its estimate from samples is {mean.tolist()}"
    hint = "kl() is KL(q || p) in nats for each latent dimension; log_prob(z) is log q(z|x)"
    require((excess < 0).all(), saw, hint)


def log_prob_matches_the_samples(subject: Subject) -> None:
    """The samples are of the posterior of one image."""
    skip_unless_provided(subject, "log_prob")
    x = make_batch(supported_shape(subject)).x
    posterior = _build(subject).eval().encode(x[:1].expand(DRAWS, *x.shape[1:]))
    hint = "log_prob(z) is log q(z|x) in nats, with its constant, of the z that sample() returns"
    _require_density(lambda _: posterior.sample(), posterior.log_prob, "log_prob(z)", hint)


def the_prior_matches_its_samples(subject: Subject) -> None:
    """Applies to a model whose prior is its own."""
    skip_unless_provided(subject, "prior")
    model = _build(subject).eval()
    latent = _latent_of(model)
    saw = f"it provides prior, but latent.prior is {latent.prior!r}"
    require(latent.prior in ("normal", "own"), saw, "prior='normal' or prior='own'")
    if latent.prior == "normal":
        raise CheckSkipped("its prior is N(0, I)")
    prior = model.prior()
    one, same = run_with_seeds((0, 0), lambda: prior.sample(6).detach())
    require_tensor(one, (6, *latent.shape), "a sample of the prior", torch.float32)
    hint = "sample with torch's default generator"
    require(torch.equal(one, same), "two samples of the prior with the same seed differ", hint)
    z = one.clone().requires_grad_()
    hint = "a search follows the gradient of log p(z): keep log_prob differentiable in z"
    require(prior.log_prob(z).requires_grad, "the prior's log_prob(z) has no gradient", hint)
    hint = "log_prob(z) is log p(z) in nats, with its constant, of the z that sample(n) returns"
    _require_density(prior.sample, prior.log_prob, "the prior's log_prob(z)", hint)


def decode_is_the_sigmoid_of_its_logits(subject: Subject) -> None:
    skip_unless_provided(subject, "decode_logits")
    skip_unless_provided(subject, "decode")
    model = _build(subject).eval()
    z = torch.randn(6, *_latent_of(model).shape)
    with torch.no_grad():
        image, expected = model.decode(z), model.decode_logits(z).sigmoid()
    saw = "sigmoid(decode_logits(z)) is not decode(z)"
    require_same(image, expected, saw, "call decode_logits in decode")


def images_are_differentiable_in_the_code(subject: Subject) -> None:
    skip_unless_provided(subject, "decode")
    model = _build(subject).eval()
    z = torch.randn(3, *_latent_of(model).shape, requires_grad=True)
    image = model.decode(z)
    require(image.requires_grad, "decode(z) has no gradient", "do not detach z in decode")
    [gradient] = torch.autograd.grad(image.sum(), z, allow_unused=True)
    usable = gradient is not None and gradient.isfinite().all() and gradient.any()
    hint = "a search follows this gradient: keep decode differentiable"
    require(usable, "the image has no finite non-zero gradient in z", hint)


def a_batch_of_one_works(subject: Subject) -> None:
    model, batch = _build(subject).eval(), make_batch(supported_shape(subject))
    for name, value in _infer(subject, model, batch.x[:1]).items():
        require(len(value) == 1, f"{name} of one image has {len(value)} rows", "do not squeeze")


def an_image_does_not_depend_on_its_batch(subject: Subject) -> None:
    model, batch = _build(subject).eval(), make_batch(supported_shape(subject))
    # row 3 of the batch has the label that a single row has
    alone, joint = (_infer(subject, model, x) for x in (batch.x[3:4], batch.x))
    hint = "in evaluation mode normalise with running statistics, not with batch statistics"
    for name, value in joint.items():
        saw = f"{name} of an image depends on the other images of its batch"
        require_same(value[3:4], alone[name], saw, hint)


def state_survives_saving_and_loading(subject: Subject) -> None:
    """The state is saved after a few steps, which may change more than the weights."""
    shape = supported_shape(subject)
    one, other = build(subject, shape, 0), build(subject, shape, 1)
    list(train_steps(one, _default_loss(subject, shape), make_batch(shape)))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    x = make_batch(shape).x
    before, after = (_infer(subject, model.eval(), x) for model in (one, other))
    hint = "store what it needs as a parameter, a buffer (register_buffer) or an option"
    for name, value in before.items():
        require_same(value, after[name], f"{name} of the reloaded model differs", hint)


def training_continues_from_the_saved_state(subject: Subject) -> None:
    """Steps after a reload must change the state like steps of the model that was saved: a run that
    resumes is bit-identical. What training needs must therefore be in the state."""
    shape = supported_shape(subject)
    batch, losses = make_batch(shape), [_default_loss(subject, shape)]
    one, other = build(subject, shape, 0), build(subject, shape, 1)
    list(train_steps(one, losses[0], batch))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    losses.append(copy.deepcopy(losses[0]))
    for model, loss in zip((one, other), losses, strict=True):
        list(train_steps(model, loss, batch))
    found = other.state_dict()
    hint = "keep what changes from step to step in a parameter or a buffer, not in an attribute"
    for name, value in one.state_dict().items():
        saw = f"{name} differs after steps that follow a reload"
        require_same(value.double(), found[name].double(), saw, hint)


def every_group_of_the_code_reaches_the_image(subject: Subject) -> None:
    skip_unless_provided(subject, "decode")
    model = _build(subject).eval()
    slices = group_slices(_latent_of(model))
    if not slices:
        raise CheckSkipped("its code has no groups")
    z = torch.zeros(1, *model.latent.shape)
    with torch.no_grad():
        before = model.decode(z)
        for name, part in slices.items():
            other = z.clone()
            other[:, part] = 3.0
            changes = not torch.equal(model.decode(other), before)
            saw = f"another value of group {name!r} does not change the decoded image"
            require(changes, saw, "give the groups in the order and with the sizes of the code")


def codes_are_entries_of_the_codebook(subject: Subject) -> None:
    skip_unless_provided(subject, "codebook")
    model = _build(subject).eval()
    posterior = model.encode(make_batch(supported_shape(subject)).x)
    dim, *grid = _latent_of(model).shape
    entries = len(model.codebook)
    require_tensor(model.codebook.detach(), (entries, dim), "codebook", torch.float32)
    require_tensor(posterior.entry, (6, *grid), "entry", torch.int64)
    low, high = (int(value) for value in posterior.entry.aminmax())
    saw = f"entry goes from {low} to {high}, and the codebook has {entries} entries"
    require(low >= 0 and high < entries, saw, "entry indexes the codebook")
    expected = model.codebook[posterior.entry].movedim(-1, 1)
    saw, hint = "mode() is not codebook[entry]", "return the entries, with the dimension first"
    require_same(posterior.mode(), expected, saw, hint)


def the_outputs_depend_on_the_label(subject: Subject) -> None:
    """Compared after three training steps, because a model may start with labels of no effect."""
    model, x = _conditional_model(subject), make_batch(supported_shape(subject)).x
    views = [model.given(torch.full((6,), label)) for label in (0, 1)]
    with torch.no_grad():
        if "decode" in subject.entry.provides:  # an encoder may do without the label
            z = torch.ones(6, *_latent_of(model).shape)
            one, other = (view.decode(z) for view in views)
        else:
            one, other = (view.encode(x).mode() for view in views)
    hint = "use y in encode and decode, and return Given(self, y) from given"
    require(not torch.equal(one, other), "the outputs do not depend on y", hint)


def each_row_is_under_its_own_label(subject: Subject) -> None:
    """Rows in another order, with their labels, must give the same results in that order."""
    model, batch = _conditional_model(subject), make_batch(supported_shape(subject))
    assert batch.y is not None
    view, hint = model.given(batch.y), "return latentforge.latent.Given(self, y)"
    require(isinstance(view, Given), f"given(y) returns {type(view).__name__}", hint)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    expected = _infer(subject, view, batch.x)
    found = _infer(subject, model.given(batch.y[order]), batch.x[order])
    for name, value in expected.items():
        saw = f"{name} of a row depends on the labels of other rows"
        require_same(value[order], found[name], saw, "compute row i from y[i] alone")


def it_works_on_another_device(subject: Subject) -> None:
    with use_other_device(DEVICE_HINT) as device:
        model = _build(subject).eval().to(device)
        x = make_batch(supported_shape(subject)).x.to(device)
        for name, value in _infer(subject, model, x).items():
            require(value.device.type == device.type, f"{name} is on {value.device}", DEVICE_HINT)


def global_state_is_unchanged(subject: Subject) -> None:
    with restore_settings():
        shape = supported_shape(subject)
    x = make_batch(shape).x  # before the model can change the default dtype
    with require_no_global_change("building and running it"):
        _infer(subject, build(subject, shape).eval(), x)


def two_models_share_no_parameters(subject: Subject) -> None:
    one, other = (_build(subject, seed) for seed in (0, 1))
    addresses = {value.data_ptr() for value in (*one.parameters(), *one.buffers())}
    shared = [name for name, p in other.named_parameters() if p.data_ptr() in addresses]
    require(not shared, f"two models share {', '.join(shared)}", "make the layers inside build")


def _require_density(
    draw: Callable[[int], Tensor], log_prob: Callable[[Tensor], Tensor], what: str, hint: str
) -> None:
    """Raise CheckFailed if samples contradict their density p.

    For every Gaussian r, the mean of log p - log r is at least 0 over samples of p, and at most 0
    over samples of r: both are Kullback-Leibler divergences, up to the sign. r is fitted to other
    samples of p, so that they are small. The means may deviate by five standard errors.
    """
    seed_torch(0)
    with torch.no_grad():
        first, z = draw(DRAWS), draw(DRAWS)
        values = log_prob(z)
        require_tensor(values, (DRAWS,), what, torch.float32)
        rows = first.flatten(1).double()
        if rows.shape[1] <= MAX_FULL:
            root = torch.linalg.cholesky(rows.T.cov() + 1e-12 * torch.eye(rows.shape[1]))
        else:
            root = (rows.std(0) + 1e-6).diag()
        gaussian: Any = MultivariateNormal(rows.mean(0), scale_tril=root, validate_args=False)
        other = gaussian.sample((DRAWS,))
        difference = values.double() - gaussian.log_prob(z.flatten(1).double())
        other_values = log_prob(other.float().view_as(z)).double()
        other_difference = other_values - gaussian.log_prob(other)
    least, most = float(difference.mean()), float(other_difference.mean())
    error, other_error = (float(v.std()) / DRAWS**0.5 for v in (difference, other_difference))
    saw = f"on its samples, {what} is on average {-least:.3g} nats below that of a fitted Gaussian"
    require(least >= -5 * error - DENSITY_ERROR, saw, hint)
    saw = f"on samples of a Gaussian, {what} is on average {most:.3g} nats above the Gaussian's"
    require(not most > 5 * other_error + DENSITY_ERROR, saw, hint)


DEVICE_HINT = (
    "register buffers, and make tensors with device=x.device (x.new_zeros, torch.zeros_like)"
)


def _require_attributes(
    value: Any, names: Mapping[str, Sequence[str]], provides: Set[str], owner: str
) -> None:
    """Raise CheckFailed if a value lacks an attribute of a capability that is provided."""
    for capability in (name for name in names if name in provides):
        for name in names[capability]:
            # every module inherits a forward, which raises unless a subclass overrides it
            inherited = getattr(type(value), name, None) is nn.Module.forward
            saw = f"it provides {capability!r}, but {owner} has no {name}"
            hint = f"define {name}, or remove {capability!r} from `provides`"
            require(getattr(value, name, None) is not None and not inherited, saw, hint)


def _build(subject: Subject, seed: int = 0) -> Any:
    return build(subject, supported_shape(subject), seed)


def _conditional_model(subject: Subject) -> Any:
    """A conditional model in evaluation mode, after a few training steps."""
    skip_unless_provided(subject, "conditional")
    model, shape = _build(subject), supported_shape(subject)
    list(train_steps(model, _default_loss(subject, shape), make_batch(shape)))
    return model.eval()


def _posterior_of(subject: Subject) -> Any:
    """The posterior q(z|x) of six images, from a new model."""
    return _build(subject).eval().encode(make_batch(supported_shape(subject)).x)


def _latent_of(model: nn.Module) -> LatentSpec:
    latent = getattr(model, "latent", None)
    hint = "set self.latent = LatentSpec(shape=(latent_dim,), prior='normal') in __init__"
    require(isinstance(latent, LatentSpec), f"model.latent is {type(latent).__name__}", hint)
    assert isinstance(latent, LatentSpec)
    return latent


def _infer(subject: Subject, model: Any, x: Tensor) -> dict[str, Tensor]:
    """Return the outputs of the model that explorers use, by name. Raises CheckSkipped if there
    are none."""
    provides = subject.entry.provides
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
