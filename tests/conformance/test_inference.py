"""The checks give models their inference options, and find options that training depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from latentforge import Forge
from latentforge.conformance import CheckFailed, CheckSkipped, checks_of
from latentforge.conformance.samplers import list_other_samplers

from ..plugin import plugin_of
from .twins import BadDefault, Undescribed, model
from .twins.inference import INFERENCE, Guidance, Sampler, refine


def checks(offered):
    forge = Forge([plugin_of(offered)])
    return {check.name: check for check in checks_of("models", "Plugin/good", forge=forge)}


def test_a_good_model_with_inference_options_passes_every_check(work):
    for check in checks(refine()).values():
        try:
            check()
        except CheckSkipped:
            assert check.name not in INFERENCE


def test_the_checks_vary_every_option():
    assert list_other_samplers(Sampler) == {
        "steps": Sampler(steps=4),
        "solver": Sampler(solver="sin"),
        "guidance.scale": Sampler(guidance=Guidance(2.0)),
    }


@pytest.mark.parametrize("name", INFERENCE)
def test_a_model_without_other_values_is_skipped(name, work):
    @dataclass(frozen=True)
    class Fixed:
        """`names` are not varied."""

        names: list[str] = field(default_factory=list)

    for offered in (model(), refine(inference=Fixed)):
        with pytest.raises(CheckSkipped, match="inference options"):
            checks(offered)[name]()


@pytest.mark.parametrize(
    ("name", "inference"),
    [
        ("every option has a valid default", BadDefault),
        ("every option is described", Undescribed),
    ],
)
def test_bad_inference_options_are_found(name, inference, work):
    with pytest.raises(CheckFailed, match="size"):
        checks(refine(inference=inference))[name]()
