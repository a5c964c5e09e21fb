"""Contract checks for models: their interface, training, state and devices."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from latentforge.conformance.assertions import (
    make_step,
    parameters_without_gradient,
    require_same,
    require_shape_support,
    require_tensor,
    require_unmodified,
    run_with_seeds,
    skip_unless_provided,
    train_steps,
    use_other_device,
)
from latentforge.conformance.capabilities import MODEL_ATTRIBUTES, POSTERIOR_ATTRIBUTES
from latentforge.conformance.examples import SHAPES, Examples, make_data_spec
from latentforge.conformance.fixtures import build
from latentforge.conformance.global_state import require_no_global_change, restore_settings
from latentforge.conformance.labels import label_cycle
from latentforge.conformance.model_fixtures import (
    batch_for,
    build_model,
    examples_for,
    infer,
    latent_of,
    parts_for,
)
from latentforge.conformance.subject import CheckSkipped, NotChecked, Subject, require
from latentforge.conformance.training_roles import (
    require_declared_needs,
    require_unmodified_roles,
)
from latentforge.errors import UsageError
from latentforge.latent import Given, given

RATES = (1.0, 0.1, 0.01, 10.0)  # factors of the learning rate; the last for differences that vanish


def it_implements_what_it_provides(subject: Subject) -> None:
    """The model and its posteriors must have the attributes that the other checks use."""
    model, provides = build_model(subject).eval(), subject.entry.provides
    _require_attributes(model, MODEL_ATTRIBUTES, provides, "the model")
    if provides & {"encode", "decode"}:
        latent_of(model)
    if "encode" in provides:
        with torch.no_grad():
            posterior = model.encode(batch_for(subject).x)
        names = {"encode": ("mode", "sample"), **POSTERIOR_ATTRIBUTES}
        owner = f"the {type(posterior).__name__} that `encode` returns"
        _require_attributes(posterior, names, provides, owner)
    if "prior" in provides and latent_of(model).prior == "own":
        hint = "define prior(), which returns a latentforge.contracts.Prior"
        require(hasattr(model, "prior"), "latent.prior is 'own', but it has no prior()", hint)
        prior = given(model, batch_for(subject).y, provides).prior()
        for name in ("log_prob", "sample"):
            saw = f"the {type(prior).__name__} that `prior` returns has no {name}"
            require(hasattr(prior, name), saw, f"define {name}")
    if "layers" in provides:
        modules = dict(model.named_modules())
        unknown = [name for name in model.layers() if name not in modules]
        saw = f"layers() returns {unknown}, which are not submodules"
        require(not unknown, saw, "fix layers()")


def codes_and_images_have_the_right_shapes(subject: Subject, case: str) -> None:
    examples = _examples_of_case(subject, case)
    data = examples.spec
    try:
        model = build(subject, data).eval()
    except UsageError as error:
        raise CheckSkipped(f"it does not support that shape: {error.message}") from None
    except NotChecked:
        if case not in SHAPES:
            raise
        # Nothing that the user gives changes a default shape.
        raise CheckSkipped("no model for its roles supports that shape") from None
    provides = subject.entry.provides
    x = examples.batch().x
    with require_shape_support(subject, data), torch.no_grad():
        if "encode" in provides:
            latent = latent_of(model)
            posterior = model.encode(x)
            require_tensor(posterior.mode(), (6, *latent.shape), "the mode", torch.float32)
            require_tensor(posterior.sample(), (6, *latent.shape), "a sample", torch.float32)
        if "decode" in provides:
            image = model.decode(torch.randn(6, *latent_of(model).shape))
            require_tensor(image, (6, *data.shape), "a decoded image", torch.float32)
            low, high = float(image.min()), float(image.max())
            least, most = data.range or (-math.inf, math.inf)
            saw = f"decoded values go from {low:.3g} to {high:.3g}"
            hint = f"end decode with to_range(values, data.range), which maps to {data.range}"
            require(low >= least and high <= most, saw, hint)
        if "decode_logits" in provides:
            z = torch.randn(6, *latent_of(model).shape)
            require_tensor(model.decode_logits(z), (6, *data.shape), "the logits", torch.float32)
        if "classify" in provides:
            require_tensor(model(x), (6, len(data.classes)), "the logits", torch.float32)


def the_batch_is_not_modified(subject: Subject) -> None:
    model, batch = build_model(subject), batch_for(subject)
    with require_unmodified(batch):
        infer(subject, model.train(), batch.x)
        infer(subject, model.eval(), batch.x)


def gradients_reach_every_parameter(subject: Subject) -> None:
    """The gradients of the default loss must reach every parameter within three training steps. In
    the first step, a layer that is initialised with zeros passes no gradient to earlier layers."""
    model, loss, batch = parts_for(subject)
    unused = parameters_without_gradient(model, train_steps(model, loss, batch))
    saw = f"no gradient of loss {subject.entry.spec.default_loss!r} reaches {', '.join(unused)}"
    require(not unused, saw, "use them, remove them, or freeze them with requires_grad_(False)")


def ten_steps_lower_the_default_loss(subject: Subject) -> None:
    """Smaller steps are tried too, because the scale of the codes or of the data may make the first
    ones too large. Against the gradient, the loss rises however small the steps are."""
    lr = subject.entry.spec.train.get("lr", 1e-3)
    changes = []
    for factor in RATES:
        first, *_, last = train_steps(*parts_for(subject), steps=[make_step()] * 11, lr=factor * lr)
        changes.append(f"from {first.item():.5g} to {last.item():.5g} with lr={factor * lr:g}")
        if last < first:
            break
    saw = f"ten steps of Adam change the loss {', '.join(changes)}"
    hint = "check the sign of the loss and the scale of the first activations"
    require(last < first, saw, hint)


def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    one, same, other = (build_model(subject, seed).state_dict() for seed in (0, 0, 1))
    differ = [name for name in one if not torch.equal(one[name], same[name])]
    saw = f"two models with the same seed have different values of {', '.join(differ)}"
    require(not differ, saw, "initialise weights with torch's default generator and no other")
    weights = [name for name, value in one.items() if value.is_floating_point()]
    reseeded = not weights or any(not torch.equal(one[name], other[name]) for name in weights)
    hint = "initialise them with torch's default generator, and do not seed it"
    require(reseeded, "another seed gives the same weights", hint)


def it_uses_only_declared_capabilities_of_its_roles(subject: Subject) -> None:
    data = examples_for(subject).spec
    require_declared_needs(subject, data, partial(_train_and_infer, subject))


def the_runs_in_its_roles_are_not_modified(subject: Subject) -> None:
    data = examples_for(subject).spec
    require_unmodified_roles(subject, data, partial(_train_and_infer, subject))


def inference_is_deterministic(subject: Subject) -> None:
    """In evaluation mode, the mode of the posterior and its decoded image are always the same."""
    model, x = build_model(subject).eval(), batch_for(subject).x
    one, other = run_with_seeds((0, 1), lambda: infer(subject, model, x))
    hint = "return the mean in mode(), not a sample; use dropout and noise only in training mode"
    for name, value in one.items():
        saw = f"{name} differs from one call to the next"
        require(torch.equal(value, other[name]), saw, hint)


def decode_is_the_sigmoid_of_its_logits(subject: Subject) -> None:
    skip_unless_provided(subject, "decode_logits")
    skip_unless_provided(subject, "decode")
    if examples_for(subject).spec.range_name != "unit":
        raise CheckSkipped("its data is not in [0, 1]")
    model = build_model(subject).eval()
    z = torch.randn(6, *latent_of(model).shape)
    with torch.no_grad():
        image, expected = model.decode(z), model.decode_logits(z).sigmoid()
    saw = "sigmoid(decode_logits(z)) is not decode(z)"
    require_same(image, expected, saw, "call decode_logits in decode")


def images_are_differentiable_in_the_code(subject: Subject) -> None:
    skip_unless_provided(subject, "decode")
    model = build_model(subject).eval()
    z = torch.randn(3, *latent_of(model).shape, requires_grad=True)
    image = model.decode(z)
    require(image.requires_grad, "decode(z) has no gradient", "do not detach z in decode")
    [gradient] = torch.autograd.grad(image.sum(), z, allow_unused=True)
    usable = gradient is not None and gradient.isfinite().all() and gradient.any()
    hint = "a search follows this gradient: keep decode differentiable"
    require(usable, "the image has no finite non-zero gradient in z", hint)


def a_batch_of_one_works(subject: Subject) -> None:
    model, batch = build_model(subject).eval(), batch_for(subject)
    for name, value in infer(subject, model, batch.x[:1]).items():
        require(len(value) == 1, f"{name} of one image has {len(value)} rows", "do not squeeze")


def an_image_does_not_depend_on_its_batch(subject: Subject) -> None:
    model, batch = build_model(subject).eval(), batch_for(subject)
    row = label_cycle(examples_for(subject).spec)  # it has the label that a single row has
    alone, joint = (infer(subject, model, x) for x in (batch.x[row : row + 1], batch.x))
    hint = "in evaluation mode normalise with running statistics, not with batch statistics"
    for name, value in joint.items():
        saw = f"{name} of an image depends on the other images of its batch"
        require_same(value[row : row + 1], alone[name], saw, hint)


def state_survives_saving_and_loading(subject: Subject) -> None:
    """The state is saved after a few steps, which may change more than the weights."""
    one, loss, batch = parts_for(subject)
    other = build_model(subject, 1)
    list(train_steps(one, loss, batch))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    before, after = (infer(subject, model.eval(), batch.x) for model in (one, other))
    hint = "store what it needs as a parameter, a buffer (register_buffer) or an option"
    for name, value in before.items():
        require_same(value, after[name], f"{name} of the reloaded model differs", hint)


def training_continues_from_the_saved_state(subject: Subject) -> None:
    """Steps after a reload must change the state like steps of the model that was saved: a run that
    resumes is bit-identical. What training needs must therefore be in the state."""
    one, loss, batch = parts_for(subject)
    other = build_model(subject, 1)
    list(train_steps(one, loss, batch))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    same_loss = copy.deepcopy(loss)
    list(train_steps(one, loss, batch))
    list(train_steps(other, same_loss, batch))
    found = other.state_dict()
    hint = "keep what changes from step to step in a parameter or a buffer, not in an attribute"
    for name, value in one.state_dict().items():
        saw = f"{name} differs after steps that follow a reload"
        require_same(value.double(), found[name].double(), saw, hint)


def the_outputs_depend_on_the_label(subject: Subject) -> None:
    """What is generated must depend on the label: the images of a code, the prior, or the codes of
    images, unless codes are drawn from N(0, I). Compared after three training steps, because a
    model may start with labels of no effect."""
    model, x = _conditional_model(subject), batch_for(subject).x
    if len(examples_for(subject).spec.classes) < 2:
        raise NotChecked("the data has only one class; give other data with --data NAME")
    provides = subject.entry.provides
    codes_are_fixed = "decode" in provides and latent_of(model).prior == "normal"

    def outputs(view: Any) -> Iterator[torch.Tensor]:
        if "decode" in provides:
            yield view.decode(torch.ones(6, *latent_of(model).shape))
        if "prior" in provides and latent_of(model).prior == "own":
            prior = view.prior()
            yield prior.log_prob(torch.ones(6, *latent_of(model).shape))
            yield run_with_seeds((0,), lambda: prior.sample(6))[0]
        if "encode" in provides and not codes_are_fixed:
            posterior = view.encode(x)
            yield posterior.mode()
            yield run_with_seeds((0,), posterior.sample)[0]

    with torch.no_grad():
        one, other = (list(outputs(model.given(torch.full((6,), label)))) for label in (0, 1))
    depends = any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    hint = "use y in encode, decode or prior, and return Given(self, y) from given"
    if codes_are_fixed:
        hint = "use y in decode, as the prior is N(0, I), and return Given(self, y) from given"
    require(depends, "the outputs do not depend on y", hint)


def each_row_is_under_its_own_label(subject: Subject) -> None:
    """Rows in another order, with their labels, must give the same results in that order."""
    model, batch = _conditional_model(subject), batch_for(subject)
    assert batch.y is not None
    view, hint = model.given(batch.y), "return latentforge.latent.Given(self, y)"
    require(isinstance(view, Given), f"given(y) returns {type(view).__name__}", hint)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    other = model.given(batch.y[order])
    expected, found = infer(subject, view, batch.x), infer(subject, other, batch.x[order])
    if getattr(model, "latent", None) and model.latent.prior == "own":
        z = torch.randn(len(order), *model.latent.shape, generator=torch.Generator().manual_seed(0))
        expected["the prior's log_prob"] = view.prior().log_prob(z)
        found["the prior's log_prob"] = other.prior().log_prob(z[order])
    for name, value in expected.items():
        saw = f"{name} of a row depends on the labels of other rows"
        require_same(value[order], found[name], saw, "compute row i from y[i] alone")


def it_works_on_another_device(subject: Subject) -> None:
    if subject.entry.spec.roles:
        raise CheckSkipped("the runs in its roles are on the CPU")
    with use_other_device(DEVICE_HINT) as device:
        model = build_model(subject).eval().to(device)
        x = batch_for(subject).x.to(device)
        for name, value in infer(subject, model, x).items():
            require(value.device.type == device.type, f"{name} is on {value.device}", DEVICE_HINT)


def global_state_is_unchanged(subject: Subject) -> None:
    with restore_settings():
        examples = examples_for(subject)
    x = examples.batch().x  # before the model can change the default dtype
    with require_no_global_change("building and running it"):
        infer(subject, build(subject, examples.spec).eval(), x)


def two_models_share_no_parameters(subject: Subject) -> None:
    one, other = (build_model(subject, seed) for seed in (0, 1))
    addresses = {value.data_ptr() for value in (*one.parameters(), *one.buffers())}
    shared = [name for name, p in other.named_parameters() if p.data_ptr() in addresses]
    require(not shared, f"two models share {', '.join(shared)}", "make the layers inside build")


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


def _train_and_infer(subject: Subject) -> None:
    model, loss, batch = parts_for(subject)
    list(train_steps(model, loss, batch))
    with suppress(CheckSkipped):  # a model that only the loss calls
        infer(subject, model.eval(), batch.x)


def _conditional_model(subject: Subject) -> Any:
    """A conditional model in evaluation mode, after a few training steps."""
    skip_unless_provided(subject, "conditional")
    model, loss, batch = parts_for(subject)
    list(train_steps(model, loss, batch))
    return model.eval()


def _examples_of_case(subject: Subject, case: str) -> Examples:
    """The examples of one of the default shapes, in the range that the model supports, or those
    that it states or that were given."""
    examples = examples_for(subject)
    if case in SHAPES:
        return Examples(make_data_spec(SHAPES[case], examples.spec.range_name))
    if not (subject.entry.spec.example or subject.shape or examples.splits):
        raise CheckSkipped("it states no example, and none is given")
    return examples
