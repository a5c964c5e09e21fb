"""Every check passes on a good component and fails on a twin that is broken in exactly that way."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from ignite.engine import Events

from latentforge import Forge
from latentforge.conformance import CHECKED, CheckFailed, CheckSkipped, NotChecked, checks_of
from latentforge.conformance.common import the_hook_module_imports_nothing_heavy
from latentforge.errors import UsageError
from latentforge.specs import KINDS

from ..plugin import plugin_of
from . import twins

FINITE = "it returns finite numbers with a protocol"
TERMS = "terms are finite scalars"
LIGHT = "the hook module imports nothing heavy"


def checks(kind, offered):
    forge = Forge([twins.plugin(kind, offered)])
    return {check.name: check for check in checks_of(kind, "twin/good", forge=forge)}


@pytest.fixture(autouse=True)
def in_a_new_folder(work):
    pass


@pytest.mark.parametrize("kind", CHECKED)
def test_good_component_passes(kind):
    passed = 0
    for check in checks(kind, twins.GOOD[kind]).values():
        try:
            check()
            passed += 1
        except CheckSkipped:
            pass
    assert passed > 4


def test_a_loss_that_declares_factors_receives_them():
    loss = replace(twins.TWINS["losses"]["it works without factors"][1], factors=True)
    found = checks("losses", loss)
    for name in ("terms are finite scalars", "it does not synchronize the device"):
        found[name]()
    with pytest.raises(CheckSkipped, match="factors=True"):
        found["it works without factors"]()


@pytest.mark.parametrize("name", ["Scheduled", "LateStart", "TouchesZero", "Hinge"])
def test_a_schedule_of_a_weight_does_not_alternate(name):
    checks("losses", twins.losses.loss(getattr(twins.losses, name)))["weights do not alternate"]()


def test_an_explorer_that_declares_factors_receives_them():
    found = checks("explorers", twins.explorers.explorer(twins.explorers.reads_level, factors=True))
    for name in ("it returns findings", "data without some classes works"):
        found[name]()
    undeclared = checks("explorers", twins.explorers.explorer(twins.explorers.reads_level))
    with pytest.raises(CheckFailed, match="level"):
        undeclared["it returns findings"]()


def test_a_measure_that_declares_labels_and_factors_receives_them():
    for cls, field in (("ReadsLabels", "labels"), ("ReadsLevel", "factors")):
        spec = twins.measure(getattr(twins.measures, cls), **{field: True})
        found = checks("measures", spec)
        found[FINITE]()
        with pytest.raises(CheckSkipped, match=f"{field}=True"):
            found[f"it works without {field}"]()


def test_a_measure_may_refuse_a_split():
    class Compares(twins.measures.ComparesTwo):
        def compute(self):
            if len(torch.cat(self.codes)) < 2 or self.context.split == "train":
                raise UsageError("no pairs")
            return super().compute()

    found = checks("measures", twins.measure(Compares))
    found[FINITE]()
    for name in ("a split of one image works", "metric names do not depend on the split"):
        with pytest.raises(CheckSkipped, match="no pairs"):
            found[name]()


def test_a_measure_may_measure_times():
    calls = iter(range(9))

    class Timed(twins.measures.Means):
        def compute(self):
            return {**super().compute(), "encode_seconds": next(calls)}

    checks("measures", twins.measure(Timed))["the same evaluation gives the same numbers"]()


def test_a_measure_of_the_likelihood_is_tried_with_a_loss_that_declares_one():
    class Likelihood(twins.measures.Means):
        def __init__(self, config, context):
            super().__init__(config, context)
            assert context.loss.likelihood is not None

    model = twins.model(default_loss="Plugin/good")  # preferred; its loss declares none
    found = plugin_of(model, twins.loss(), twins.measure(Likelihood, likelihood=True))
    by_name = {c.name: c for c in checks_of("measures", "Plugin/good", forge=Forge([found]))}
    by_name[FINITE]()


def test_a_measure_of_a_model_that_supports_no_tiny_images_is_tried():
    class Vectors(twins.models.Good):
        def __init__(self, config, data):
            if data.kind != "vector":
                raise UsageError("it supports vectors")
            super().__init__(config, data)

    model = twins.model(Vectors, provides=twins.models.PROVIDES | {"own"})
    forge = Forge([plugin_of(model, twins.measure(needs={"encode", "own"}))])
    by_name = {c.name: c for c in checks_of("measures", "Plugin/good", forge=forge)}
    by_name[FINITE]()


@pytest.mark.parametrize("kind", CHECKED)
def test_every_check_has_a_twin(kind):
    names = set(checks(kind, twins.GOOD[kind]))
    assert names == {*twins.TWINS[kind], *twins.OPTIONS, LIGHT}


@pytest.mark.parametrize(
    ("kind", "name", "twin"),
    [
        (kind, name, number)
        for kind, named in twins.TWINS.items()
        for name, found in named.items()
        for number in range(len(found))
    ],
)
def test_a_check_fails_on_its_twin(kind, name, twin):
    check = checks(kind, twins.TWINS[kind][name][twin])[name]
    with pytest.raises(twins.RAISES.get((kind, name, twin), CheckFailed)):
        check()


@pytest.mark.parametrize("kind", CHECKED)
@pytest.mark.parametrize("name", twins.OPTIONS)
def test_bad_options_are_found_in_every_kind(kind, name):
    offered = replace(twins.GOOD[kind], config=twins.OPTIONS[name])
    with pytest.raises(AssertionError) as failure:
        checks(kind, offered)[name]()
    assert "size" in str(failure.value)


@pytest.mark.slow
def test_a_heavy_hook_module_is_found_in_every_kind(work):
    """The check loads the module alone in a new process, so its kind does not matter."""
    text = (
        "{first}\nfrom latentforge import ModelSpec, hookimpl\n\n\n@hookimpl\n"
        "def latentforge_models():\n    yield ModelSpec(name='m', summary='s', build=print,\n"
        "        provides={{'encode'}}, default_loss='elbo')\n"
    )
    for first, heavy in (("import torch", True), ("import json", False)):
        file = work / f"hooks_{heavy}.py"
        file.write_text(text.format(first=first))
        forge = Forge([str(file)])
        [check] = [
            check
            for check in checks_of("models", f"hooks_{heavy}/m", forge=forge)
            if check.function is the_hook_module_imports_nothing_heavy
        ]
        if heavy:
            with pytest.raises(AssertionError, match="imports torch"):
                check()
        else:
            check()


def test_each_fault_has_its_own_hint():
    name = "terms are finite scalars"
    hints = []
    for twin in twins.TWINS["losses"][name][2:]:
        with pytest.raises(CheckFailed) as failure:
            checks("losses", twin)[name]()
        hints.append(failure.value.hint)
    assert len({*hints}) == len(hints)


def test_other_checks_are_skipped_after_the_first_fails():
    failed, skipped = {}, set()
    found = checks("models", twins.TWINS["models"]["it implements what it provides"][3])
    del found[LIGHT]
    for check in found.values():
        try:
            check()
        except CheckFailed as failure:
            failed[check.name] = failure.saw
        except CheckSkipped as why:
            skipped.add(str(why))
    assert skipped == {"see 'it implements what it provides'"}
    assert list(failed) == ["it implements what it provides"]
    [saw] = failed.values()
    assert "but the tuple that `encode` returns has no mode" in saw


def test_a_good_model_with_its_own_prior_passes():
    skipped = set()
    for check in checks("models", twins.codes.with_prior()).values():
        try:
            check()
        except CheckSkipped:
            skipped.add(check.name)
    assert {"kl matches the posterior", "the kl to the prior matches the posterior"} <= skipped
    assert not skipped & {"log prob matches the samples", "the prior matches its samples"}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (
            twins.codes.with_prior(twins.codes.KlPrior),
            "the kl to the prior matches the posterior",
        ),
        (
            twins.conditional.with_label_prior(twins.conditional.LabelKl),
            "the kl to the prior matches the posterior",
        ),
        (twins.codes.with_terms(), "log ratio terms sum to the log ratio"),
    ],
)
def test_a_good_kl_to_an_own_prior_and_good_terms_pass(model, name):
    passed = set()
    for check in checks("models", model).values():
        with suppress(CheckSkipped):
            check()
            passed.add(check.name)
    assert name in passed


def test_the_densities_of_one_dimension_are_checked():
    forge = Forge([twins.plugin("models", twins.codes.with_prior())])
    found = checks_of("models", "twin/good", forge=forge, options={"size": 1})
    by_name = {check.name: check for check in found}
    by_name["log prob matches the samples"]()
    by_name["the prior matches its samples"]()


@pytest.mark.parametrize(
    "model",
    [
        twins.models.model(),
        twins.codes.with_prior(),
        twins.codes.with_prior(twins.codes.KlPrior),
    ],
)
def test_a_loss_that_needs_variational_may_estimate_the_kl(model):
    needs = {"encode", "decode_logits", "variational"}
    forge = Forge([plugin_of(model, twins.loss(twins.losses.Estimates, needs=needs))])
    found = checks_of("losses", "Plugin/good", forge=forge)
    {check.name: check for check in found}["it uses only declared capabilities"]()


def test_an_explorer_may_ask_what_the_run_in_a_role_provides():
    explore = twins.explorers.uses_its_role_as_it_can
    found = checks(
        "explorers", twins.explorers.explorer(explore, needs=set(), roles={"other": set()})
    )
    found["it uses only declared capabilities"]()


def refuse(*arguments):
    raise UsageError("not like this")


class NoisyDecoder(twins.models.Good):
    def decode(self, z):
        return super().decode(z) + torch.rand(())


class Branches(twins.models.Good):
    def encode(self, x):
        return super().encode(-x if x.sum() > 0 else x)


class Codes(twins.objectives.Bright):
    def score(self, x, request):
        return (x @ torch.ones(2)) - request


class Stops(twins.callbacks.Watch):
    def attach(self, engines):
        engines.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())


NO_SHAPE = "none of the test data, such as (1, 28, 28): not like this; state `example` in the Model"
ROWS = "one score and one flag per row"
FAILS = (twins.model(NoisyDecoder, {"decode"}), "inference is deterministic", "the decoded image")
SKIPPED = [  # the component, the check, the reason
    (twins.model(provides={"layers"}), "inference is deterministic", "none of encode, decode and"),
    (twins.model(Branches), "it works on another device", "it reads values, and tensors on"),
    (twins.callback(Stops), "a resumed run ends with the same weights", "before a second epoch"),
]
NOT_CHECKED = [
    (twins.model(refuse), "it implements what it provides", NO_SHAPE),
    (twins.loss(needs={"fly"}), TERMS, "no installed model provides fly"),
    (twins.dataset(refuse), "it loads as images or vectors", "it needs options: not like this"),
    (twins.objective(Codes), ROWS, "pass example=, a function that returns inputs"),
    (twins.callback(refuse), "it attaches and trains", "it rejects the test run: not like this"),
    (twins.measure(refuse), FINITE, "it rejects the test run: not like this"),
    (twins.explorer(refuse), "it returns findings", "it rejects the test run: not like this"),
    (twins.loss(refuse, needs={"codebook"}), TERMS, "such as fsq with (1, 28, 28): not like this"),
]
OUTCOMES = [
    (*FAILS, CheckFailed),
    *((*row, CheckSkipped) for row in SKIPPED),
    *((*row, NotChecked) for row in NOT_CHECKED),
]


@pytest.mark.parametrize(("spec", "name", "said", "outcome"), OUTCOMES)
def test_check_of_an_unusual_component_says_why_it_fails_or_is_skipped(spec, name, said, outcome):
    [kind] = [kind.plural for kind in KINDS.values() if isinstance(spec, kind.spec)]
    with pytest.raises(outcome) as caught:
        checks(kind, spec)[name]()
    assert type(caught.value) is outcome
    assert said in str(caught.value)


def test_wrong_example_and_kind_without_checks_are_refused():
    forge = Forge([twins.plugin("objectives", twins.objective(Codes))])
    found = checks_of("objectives", "twin/good", forge=forge, example=lambda: torch.rand(3, 2))
    with pytest.raises(CheckFailed, match="the example has 3 rows"):
        {check.name: check for check in found}[ROWS]()
    with pytest.raises(UsageError, match="there are no checks for presets"):
        checks_of("presets", "loss")
