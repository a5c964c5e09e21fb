"""The data of the checks: the example that a model states, data that a likelihood supports, and the
shape, data and runs that are given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from latentforge import DataSpec, Forge, hookimpl
from latentforge.conformance import CheckFailed, CheckSkipped, NotChecked, checks_of
from latentforge.conformance.examples import Examples
from latentforge.contracts import RANGES, Terms
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid
from latentforge.latent import to_range

from . import twins
from .twins.roles import NEEDS, ROLES, UNMODIFIED, Distils, Student
from .twins.roles import codes as codes_of

ROW = (1, 1, 64)
LIGHT = "the hook module imports nothing heavy"  # which cannot be tried with an object
COUNTS = "the data must be whole numbers"
NUMBERS = {"train": np.random.default_rng(0).normal(3, 2, (60, 12)).astype(np.float32)}


@pytest.fixture(autouse=True)
def in_a_new_folder(work):
    pass


def outcomes(kind, spec, *others, names=None, **how):
    """{check: None, or the exception that it raised} of a component in a plugin with `others`,
    which are pairs (kind, spec)."""
    plugin = twins.plugin(kind, spec)
    for other_kind, other in others:
        setattr(plugin, f"latentforge_{other_kind}", offering(other_kind, other))
    found = {}
    for check in checks_of(kind, "twin/good", forge=Forge([plugin]), **how):
        if names is None or check.name in names:
            try:
                check()
                found[check.name] = None
            except Exception as error:
                found[check.name] = error
    return found


def offering(kind, spec):
    def offer():
        return [spec]

    offer.__name__ = f"latentforge_{kind}"
    return hookimpl(offer)


def faults(found):
    return {name: error for name, error in found.items() if error and not is_skip(error)}


def is_skip(error):
    return isinstance(error, CheckSkipped)


class OnlyRows(twins.models.Good):
    """Supports nothing but its example."""

    def __init__(self, config, data):
        if data.shape != ROW:
            raise UsageError(f"it supports {ROW}")
        super().__init__(config, data)


class RowLoss(twins.losses.GoodLoss):
    seen: list = []  # noqa: RUF012

    def terms(self, model, batch, step):
        self.seen.append(tuple(batch.x.shape[1:]))
        return super().terms(model, batch, step)


ROW_MODEL = twins.model(OnlyRows, example=DataSpec(ROW))


def test_a_model_is_checked_with_the_example_that_it_states():
    without = outcomes("models", twins.model(OnlyRows))
    assert isinstance(without["it implements what it provides"], NotChecked)
    found = outcomes("models", ROW_MODEL)
    assert not faults(found)
    assert found["codes and images have the right shapes [example]"] is None
    assert is_skip(found["codes and images have the right shapes [1x28x28]"])
    assert found["ten steps lower the default loss"] is None


def test_components_of_its_plugin_are_checked_with_the_example():
    RowLoss.seen.clear()
    found = outcomes("losses", twins.loss(RowLoss), ("models", ROW_MODEL))
    assert not faults(found)
    assert {*RowLoss.seen} == {ROW}  # and no images of twice the width
    shapes = []

    def look(context, config):
        shapes.append(context.data.shape)
        return twins.explorers.good_look(context, config)

    explorer = twins.explorer(look, roles={"judge": {"classify"}})
    assert not faults(outcomes("explorers", explorer, ("models", ROW_MODEL)))
    assert {*shapes} == {ROW}
    assert not faults(outcomes("callbacks", twins.callback(), ("models", ROW_MODEL)))


def test_signals_of_an_example_stay_signals_in_tiny_runs():
    class OnlySignals(twins.models.Good):
        def __init__(self, config, data):
            if data.kind != "signal":
                raise UsageError("it supports signals")
            super().__init__(config, data)

    seen = set()

    def look(context, config):
        seen.add((context.data.kind, context.data.shape))
        return twins.explorers.good_look(context, config)

    # without a layout, an example of this shape could be 8 channels of 6 values
    model = twins.model(OnlySignals, example=DataSpec((6, 8), "signal"))
    explorer = twins.explorer(look, needs={"encode", "decode"})
    assert not faults(outcomes("explorers", explorer, ("models", model)))
    assert seen == {("signal", (6, 8))}
    assert not faults(outcomes("callbacks", twins.callback(), ("models", model)))


@pytest.mark.parametrize("shape", [ROW, (12,)])
def test_given_shape_replaces_the_default_shapes(shape):
    RowLoss.seen.clear()
    assert not faults(outcomes("losses", twins.loss(RowLoss), shape=shape))
    assert {*RowLoss.seen} == {shape, (*shape[:-1], 2 * shape[-1])}


def test_given_data_is_that_of_the_checks():
    seen = []

    class Remembers(twins.models.Good):
        def encode(self, x):
            seen.append(x.detach())
            return super().encode(x)

    found = outcomes("models", twins.model(Remembers), data="digits")
    assert not faults(found)
    assert found["codes and images have the right shapes [example]"] is None
    images = Forge().load_data("digits").split("train")
    real = images.batch_at(range(len(images))).x
    batches = [x for x in seen if x.shape == (6, *real.shape[1:]) and x.device.type == "cpu"]
    are_real = [all((real == row).flatten(1).all(1).any() for row in x) for x in batches]
    assert sum(are_real) > len(are_real) / 2  # not that of a default shape
    explorer = twins.explorer(roles={"judge": {"classify"}})
    assert not faults(outcomes("explorers", explorer, data="digits"))
    unlabelled = {"train": np.random.default_rng(0).random((20, 8, 8), np.float32)}
    assert not faults(outcomes("losses", twins.loss(), data=unlabelled))
    needs_labels = outcomes("losses", twins.loss(labels=True), data=unlabelled)
    untried = [name for name, error in needs_labels.items() if type(error) is NotChecked]
    assert len(untried) > 10
    assert "no labels" in str(needs_labels["terms are finite scalars"])


def test_data_and_shape_together_are_refused():
    with pytest.raises(UsageError, match="shape of its own"):
        checks_of("models", "ae", data="digits", shape=ROW)


def test_given_run_is_used_in_its_role_with_its_data():
    train = {"epochs": 1, "threads": 1, "device": "cpu"}
    judge = Forge().train("mlp-classifier", data="digits", train=train, run="judge", quiet=True)
    names = []

    def look(context, config):
        names.append((context.roles["judge"].name, context.data.shape))
        return twins.explorers.good_look(context, config)

    explorer = twins.explorer(look, roles={"judge": {"classify"}})
    assert not faults(outcomes("explorers", explorer, roles={"judge": judge}))
    assert {*names} == {("judge", (1, 28, 28))}  # of digits


def test_training_roles_are_tiny_runs_of_the_same_data():
    student = twins.model(Student, roles=ROLES)
    found = outcomes("models", student)
    assert not faults(found)
    assert found["state survives saving and loading"] is None
    assert not faults(outcomes("losses", twins.loss(Distils, roles=ROLES)))
    assert not faults(outcomes("datasets", twins.dataset(codes_of, roles=ROLES)))
    # the tiny run of a callback is one of the student, with a teacher of its own
    assert not faults(outcomes("callbacks", twins.callback(), ("models", student)))


def test_given_runs_are_roles_of_a_training(work):
    train = {"epochs": 1, "threads": 1, "device": "cpu"}
    teacher = Forge().train("ae", data="digits", train=train, run="teacher", quiet=True)
    seen = []

    class Looks(Student):
        def __init__(self, config, data, roles):
            super().__init__(config, data, roles)
            seen.append((roles["teacher"].name, data.shape))

    found = outcomes("models", twins.model(Looks, roles=ROLES), roles={"teacher": teacher})
    assert not faults(found)
    assert {*seen} == {("teacher", (1, 28, 28))}
    assert is_skip(found["codes and images have the right shapes [3x32x32]"])


def test_default_shape_that_no_run_for_a_role_supports_is_skipped():
    class Quantized(twins.models.Good):  # the only model with this capability
        def __init__(self, config, data):
            if data.kind != "image":
                raise UsageError("it supports images alone")
            super().__init__(config, data)

    @hookimpl
    def latentforge_models():
        provides = {*twins.models.PROVIDES, "entries"}
        yield twins.model(Quantized, name="quantized", provides=provides)
        yield twins.model(Student, roles={"teacher": {"encode", "entries"}})

    plugin = SimpleNamespace(latentforge_models=latentforge_models, __name__="twin")
    shapes = "codes and images have the right shapes [{}]"
    checks = {check.name: check for check in checks_of("models", "good", forge=Forge([plugin]))}
    checks[shapes.format("1x28x28")]()
    with pytest.raises(CheckSkipped, match="no model for its roles supports that shape") as skipped:
        checks[shapes.format("12 numbers")]()
    assert not isinstance(skipped.value, NotChecked)


class Poisson(nn.Module):
    """-log of a Poisson density without the constant, so it may be negative; of counts alone."""

    def __init__(self, config, data):
        super().__init__()

    def forward(self, model, batch, step):
        if step.first and not torch.equal(batch.x, batch.x.round()):
            raise UsageError(COUNTS)
        rate = nn.functional.softplus(model.decode_logits(model.encode(batch.x).sample())) + 1e-6
        nll = (rate - batch.x * rate.log()).flatten(1).sum(1)
        return Terms({"recon": nll.mean()})


class PoissonMean(Poisson):
    def forward(self, model, batch, step):
        return Terms({"recon": super().forward(model, batch, step).total() / batch.x[0].numel()})


def test_likelihood_of_counts_is_checked_with_counts():
    found = outcomes("losses", twins.loss(Poisson))
    of_roles = {NEEDS, UNMODIFIED}
    assert {name for name, error in found.items() if error} == {LIGHT, *of_roles}
    found = outcomes("losses", twins.loss(PoissonMean))
    assert [*faults(found)] == ["a reconstruction is a sum over pixels"]


class Rates(twins.models.Good):
    def decode(self, z):
        return nn.functional.softplus(self.decode_logits(z))


def test_model_whose_default_loss_wants_counts_is_checked_with_counts():
    spec = twins.model(Rates, default_loss="twin/good", ranges={"unit", "counts"})
    found = outcomes("models", spec, ("losses", twins.loss(Poisson)))
    assert not faults(found)
    for name in ("ten steps lower the default loss", "gradients reach every parameter"):
        assert found[name] is None
    assert found["codes and images have the right shapes [1x28x28]"] is None
    assert is_skip(found["decode is the sigmoid of its logits"])


class InRange(twins.models.Good):
    """Decodes to the range of its data."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.range = data.range

    def decode(self, z):
        return to_range(self.decode_logits(z), self.range)


class Squares(twins.losses.GoodLoss):
    seen: list = []  # noqa: RUF012

    def __init__(self, config, data):
        super().__init__(config, data)
        self.spec = data

    def terms(self, model, batch, step):
        self.seen.append((self.spec.range_name, batch.x.detach()))
        decoded = model.decode(model.encode(batch.x).sample())
        squares = (decoded - batch.x).square().flatten(1).sum(1)
        return {"recon": squares.mean(), "scale": self.log_scale.square() + self.log_scale}


@pytest.mark.parametrize("values", RANGES)
def test_components_are_checked_with_data_of_their_ranges(values):
    Squares.seen.clear()
    model = twins.model(InRange, default_loss="twin/good", ranges={values})
    loss = twins.loss(Squares, needs={"encode", "decode"}, ranges={values, "unit"})
    found = outcomes("models", model, ("losses", loss))
    assert not faults(found)
    assert found["ten steps lower the default loss"] is None
    assert found["codes and images have the right shapes [3x32x32]"] is None
    assert not faults(outcomes("losses", loss, ("models", model)))
    others = (("models", model), ("losses", loss))
    assert not faults(outcomes("callbacks", twins.callback(), *others))  # a tiny run
    assert {name for name, _ in Squares.seen} == {values}
    x = torch.cat([x.flatten() for _, x in Squares.seen if x.device.type == "cpu"])
    low, high = {"unit": (0, 1), "signed": (-1, 1), "counts": (0, 20), "any": (-3, 3)}[values]
    assert low <= float(x.min()) < low + 0.3 * (high - low)
    assert high >= float(x.max()) > high - 0.3 * (high - low)


@pytest.mark.parametrize(("values", "skips"), [("signed", False), ("any", True)])
def test_images_of_data_without_bounds_may_be_clipped(values, skips):
    def draw(context, config):
        images = context.data.to_unit(context.model.decode(10 * context.codes("test")))
        return Findings([ImageGrid("decoded", "Decoded", [images])])

    model = twins.model(InRange, default_loss="twin/good", ranges={values})
    loss = twins.loss(Squares, needs={"encode", "decode"})
    found = outcomes(
        "explorers",
        twins.explorer(draw, needs={"encode", "decode"}),
        ("models", model),
        ("losses", loss),
    )
    assert not faults(found)
    assert is_skip(found["images are between 0 and 1"]) == skips


def test_decoded_values_outside_the_range_are_a_fault():
    class TooLarge(InRange):
        def decode(self, z):
            return 2 * super().decode(z)

    model = twins.model(TooLarge, default_loss="twin/good", ranges={"signed"})
    loss = twins.loss(Squares, needs={"encode", "decode"})
    name = "codes and images have the right shapes [1x28x28]"
    found = outcomes("models", model, ("losses", loss), names={name})
    assert isinstance(found[name], CheckFailed)


def test_given_data_that_the_ranges_exclude_is_not_checked():
    found = outcomes("models", twins.model(), data={**NUMBERS, "range": "any"})
    assert "data.range is any" in str(found["it implements what it provides"])
    assert {type(error) for error in found.values()} <= {type(None), NotChecked, CheckSkipped}
    model = twins.model(InRange, default_loss="twin/good", ranges={"any"})
    loss = twins.loss(Squares, needs={"encode", "decode"})
    found = outcomes("models", model, ("losses", loss), data={**NUMBERS, "range": "any"})
    assert not faults(found)
    assert found["codes and images have the right shapes [example]"] is None
    data = {**NUMBERS, "range": "any"}
    others = (("models", model), ("losses", loss))
    assert not faults(outcomes("callbacks", twins.callback(), *others, data=data))


class Shy(twins.losses.GoodLoss):
    def forward(self, model, batch, step):
        if step.first:
            raise UsageError("never like this")
        return super().forward(model, batch, step)


def test_loss_that_refuses_all_data_is_not_checked():
    loss = twins.loss(Shy, needs={"codebook"})  # of few models
    found = outcomes("losses", loss, names={"terms are finite scalars"})
    assert type(found["terms are finite scalars"]) is NotChecked
    assert "never like this" in str(found["terms are finite scalars"])
    model = twins.model(default_loss="twin/good")
    found = outcomes("models", model, ("losses", twins.loss(Shy)))
    names = {name for name, error in found.items() if type(error) is NotChecked}
    assert names == {
        "gradients reach every parameter",
        "ten steps lower the default loss",
        "state survives saving and loading",
        "training continues from the saved state",
    }
    assert "its default loss 'twin/good' refuses the test data" in str(found[min(names)])


def test_recon_that_crosses_zero_is_a_sum_over_pixels():
    name = "a reconstruction is a sum over pixels"
    assert outcomes("losses", twins.loss(twins.losses.SumOfDensities), names={name}) == {name: None}


def test_large_codes_need_smaller_steps():
    name = "ten steps lower the default loss"
    good = twins.models.autoencoder(twins.models.LargeCodes)
    assert outcomes("models", good, names={name}) == {name: None}


def test_objective_is_checked_with_the_example_that_it_states():
    class Points(twins.objectives.Bright):
        def score(self, x, request):
            return -(x @ torch.ones(2, device=x.device) - request).square()

    without = outcomes("objectives", twins.objective(Points))
    name = "one score and one flag per row"
    assert type(without[name]) is NotChecked
    spec = twins.objective(Points, example=DataSpec((2,), "vector"))
    found = outcomes("objectives", spec)
    assert not faults(found)
    assert found[name] is None


def test_random_examples_are_within_their_range():
    cases = ({}, {"range": (-1.0, 1.0)}, {"range": None, "limits": (2.0, 4.0)})
    for case, (low, high) in zip(cases, ((0.0, 1.0), (-1.0, 1.0), (2.0, 4.0)), strict=True):
        x = Examples(DataSpec((3, 8, 8), **case)).batch(50).x
        assert low <= float(x.min()) < low + 0.3 * (high - low)
        assert high >= float(x.max()) > high - 0.3 * (high - low)
    counts = Examples(DataSpec((12,), "vector", range=(0.0, float("inf")))).batch(50).x
    assert torch.equal(counts, counts.round())
    assert float(counts.max()) > 3


def test_examples_of_data_cycle_through_its_classes():
    x, y = np.random.default_rng(0).random((40, 4), np.float32), np.repeat([0, 1, 2, 3], 10)
    splits = Forge().load_data({"train": (x, y), "test": (x, y)})
    batch = Examples(splits.spec, splits).batch(10)
    assert batch.y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert len({tuple(row.tolist()) for row in batch.x}) == 10
    assert len(Examples(splits.spec, splits).batch(100).x) == 100


@pytest.mark.parametrize("classes", [2, 5])
def test_conditional_model_is_checked_with_the_labels_of_the_data(classes):
    x, y = np.random.default_rng(0).random((40, 12), np.float32), np.arange(40) % classes
    found = outcomes("models", twins.conditional.conditional(), data={"train": (x, y)})
    assert not faults(found)
    for name in ("an image does not depend on its batch", "the outputs depend on the label"):
        assert found[name] is None


def test_conditional_model_is_not_checked_without_labels():
    x = np.random.default_rng(0).random((40, 12), np.float32)
    found = outcomes("models", twins.conditional.conditional(), data={"train": x})
    assert not faults(found)
    assert type(found["it implements what it provides"]) is NotChecked
    assert "needs labels" in str(found["it implements what it provides"])
