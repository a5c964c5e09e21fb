"""Validation of plain values against a config dataclass: accepted values and error messages."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from annotated_types import Ge, Lt

from latentforge import Count, Fraction, NonNegative, Positive, Seed, Size
from latentforge.config.request import toml_value
from latentforge.config.validation import (
    Faults,
    Option,
    check,
    describe,
    find_default_faults,
    plain,
)
from latentforge.errors import PluginError


@dataclass(frozen=True)
class Inner:
    width: Size = 3
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Config:
    size: Size = 1
    count: Count = 0
    lr: Positive = 1e-3
    weight: NonNegative = 0.0
    share: Fraction = 0.5
    seed: Seed = 0
    hidden: tuple[Size, ...] = (8, 4)
    pair: tuple[Count, Count] = (0, 1)
    maybe: Size | None = None
    kind: Literal["linear", "spherical"] = "linear"
    flag: bool = False
    text: str = ""
    options: dict[str, float | list[float]] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Required:
    name: str
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")


def faults_of(cls: type = Config, path: str = "model", **given) -> list[str]:
    faults = Faults()
    checked = check(cls, given, path, faults)
    assert (checked is None) == bool(faults.lines)
    return faults.lines


def checked(cls: type = Config, **given):
    faults = Faults()
    config = check(cls, given, "model", faults)
    assert faults.lines == []
    return config


# ---------------------------------------------------------------- accepted values


def test_no_values_give_all_defaults():
    assert checked() == Config()


def test_lists_become_tuples_and_integers_become_floats():
    config = checked(hidden=[5, 6, 7], pair=[2, 3], lr=1, options={"betas": [0, 1], "eps": 1})
    assert config.hidden == (5, 6, 7)
    assert config.pair == (2, 3)
    assert config.lr == 1.0
    assert type(config.lr) is float
    assert config.options == {"betas": [0.0, 1.0], "eps": 1.0}


@pytest.mark.parametrize("value", [None, 3])
def test_optional_value_may_be_none(value):
    assert checked(maybe=value).maybe == value


def test_a_table_becomes_the_nested_dataclass():
    assert checked(inner={"width": 9}).inner == Inner(width=9)


@pytest.mark.parametrize(
    ("given", "example"),
    [
        ({"hidden": 8}, "--set 'model.hidden=[8]'"),
        ({"hidden": "8, 16"}, "--set 'model.hidden=[8, 16]'"),
        ({"hidden": "wide"}, "--set 'model.hidden=[64]'"),  # the default
        ({"names": "a,b"}, """--set 'model.names=["a", "b"]'"""),
        ({"names": "3"}, """--set 'model.names=["3"]'"""),
        ({"names": "[a]"}, """--set 'model.names=["a"]'"""),
        ({"names": "[a, 'b']"}, """--set 'model.names=["a", "b"]'"""),
        ({"ends": 0.5}, "--set 'model.ends=[0.1, 0.9]'"),
        ({"pair": 3}, "--set 'model.pair=[3, 4]'"),
    ],
)
def test_list_error_has_an_example_that_works(given, example):
    @dataclass(frozen=True)
    class Lists:
        hidden: tuple[Size, ...] = (64,)
        names: tuple[str, ...] = ()
        ends: tuple[float, float] = (0.1, 0.9)
        pair: tuple[int, int] | None = None

    faults = Faults()
    assert check(Lists, given, "model", faults) is None
    [line] = faults.lines
    assert f"must be a list, as in {example}, got " in line
    [text] = shlex.split(example)[1:]
    key, _, value = text.partition("=")
    assert check(Lists, {key.removeprefix("model."): toml_value(value)}, "model", Faults())
    of_file = Faults({f"model.{next(iter(given))}": "run.toml"})
    check(Lists, given, "model", of_file)
    assert "must be a list, such as [" in of_file.lines[0]


def test_list_error_without_a_valid_example_has_none():
    pair = make_dataclass("Pair", [("pair", tuple[int, int] | None, None)])
    assert faults_of(pair, pair="x") == ['model.pair: must be a list, got "x"']


def test_empty_list_becomes_an_empty_tuple():
    assert checked(hidden=[]).hidden == ()


def test_inclusive_bounds_are_accepted():
    config = checked(size=1, count=0, weight=0.0, share=0.0, seed=2**63 - 1)
    assert (config.size, config.count, config.seed) == (1, 0, 2**63 - 1)


def test_numpy_numbers_are_accepted():
    """A sweep is often written as `for latent_dim in np.arange(2, 8)`."""
    config = checked(size=np.int64(3), lr=np.float32(0.5), hidden=np.array([4, 2]))
    assert config == checked(size=3, lr=0.5, hidden=[4, 2])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"size": 0}, "model.size: must be greater than 0, got 0"),
        ({"size": -3}, "model.size: must be greater than 0, got -3"),
        ({"size": "abc"}, 'model.size: must be a valid integer, got "abc"'),
        ({"size": "3"}, 'model.size: must be a valid integer, got "3"'),
        ({"size": True}, "model.size: must be a valid integer, got true"),
        ({"size": 2.5}, "model.size: must be a valid integer, got 2.5"),
        ({"size": None}, "model.size: must be a valid integer, got null"),
        ({"count": -1}, "model.count: must be greater than or equal to 0, got -1"),
        ({"lr": 0}, "model.lr: must be greater than 0, got 0"),
        ({"lr": math.nan}, "model.lr: must be a finite number, got NaN"),
        ({"lr": math.inf}, "model.lr: must be a finite number, got Infinity"),
        ({"weight": -math.inf}, "model.weight: must be a finite number, got -Infinity"),
        ({"lr": True}, "model.lr: must be a valid number, got true"),
        ({"share": 1}, "model.share: must be less than 1, got 1"),
        ({"seed": 2**63}, f"less than or equal to {2**63 - 1}, got {2**63}"),
        ({"flag": 1}, "model.flag: must be a valid boolean, got 1"),
        ({"text": 5}, "model.text: must be a valid string, got 5"),
        ({"maybe": 0}, "model.maybe: must be greater than 0, got 0"),
        ({"maybe": "x"}, 'model.maybe: must be a valid integer, got "x"'),
        ({"hidden": [8, 0]}, "model.hidden[1]: must be greater than 0, got 0"),
        ({"hidden": [True]}, "model.hidden[0]: must be a valid integer, got true"),
        ({"hidden": [math.nan]}, "model.hidden[0]: must be a valid integer, got NaN"),
        ({"inner": {"width": 0}}, "model.inner.width: must be greater than 0, got 0"),
        ({"inner": {"names": [3]}}, "model.inner.names[0]: must be a valid string, got 3"),
        ({"options": {(1, 2): 0.5}}, "bool or None, not tuple"),
    ],
)
def test_invalid_value_is_reported_with_its_key_path(given, fault):
    (line,) = faults_of(**given)
    assert line.endswith(fault)
    assert line.startswith("model.")


@pytest.mark.parametrize("value", [[0], [0, 1, 2], []])
def test_wrong_list_length_is_reported_with_the_expected_one(value):
    (line,) = faults_of(pair=value)
    assert line.startswith("model.pair: ")
    assert "2" in line.partition("got")[0]
    assert line.endswith(f"got {json.dumps(value)}")
    assert "Field required" not in line
    assert "validation" not in line


@pytest.mark.parametrize(
    ("bad", "place"),
    [(math.nan, "bad"), ([1.0, math.inf], "bad[1]"), (True, "bad"), ("x", "bad")],
)
def test_values_inside_a_table_of_options_are_checked_too(bad, place):
    (line,) = faults_of(options={"good": 1.0, "bad": bad})
    assert line.startswith(f"model.options.{place}: must be a ")


def test_misspelt_choice_suggests_the_likely_one_and_lists_all():
    (line,) = faults_of(kind="sperical")
    assert line == (
        "model.kind: must be one of linear, spherical (did you mean 'spherical'?), got \"sperical\""
    )


def test_misspelt_key_suggests_the_likely_one():
    assert faults_of(hiden=[3]) == ["model.hiden: no such option; did you mean 'hidden'?"]
    assert faults_of(inner={"widht": 3}) == [
        "model.inner.widht: no such option; did you mean 'width'?"
    ]


def test_key_that_is_not_a_string_is_refused():
    faults = Faults()
    assert check(Inner, {3: 1}, "model", faults) is None
    assert faults.lines == ["model.3: no such option; known options: width, names"]


def test_all_errors_are_reported_at_once():
    lines = faults_of(size=0, lr=math.nan, hidden=[0, 1, -1], kind="x", nothing=1, inner={"a": 1})
    assert [line.partition(":")[0] for line in lines] == [
        "model.size",
        "model.lr",
        "model.hidden[0]",
        "model.hidden[2]",
        "model.kind",
        "model.nothing",
        "model.inner.a",
    ]


def test_missing_required_field_is_reported():
    assert faults_of(Required, "role") == ["role.name: is required"]


def test_post_init_error_is_reported_for_the_section():
    assert faults_of(Required, "range", name="x", low=3) == ["range: low 3 must be below high 1"]


def test_config_class_that_raises_is_blamed_on_its_author():
    by_default = make_dataclass("Odd", [("size", int, field(default_factory=lambda: 1 / 0))])
    by_check = make_dataclass("Odd", [], namespace={"__post_init__": lambda self: 1 / 0})
    for cls in (by_default, by_check):
        assert find_default_faults(cls) == ["Odd(): ZeroDivisionError: division by zero"]
    with pytest.raises(PluginError, match="the default of 'size' raises: ZeroDivisionError: div"):
        describe(by_default)
    with pytest.raises(PluginError, match="config Odd cannot be created: ZeroDiv") as caught:
        check(by_check, {}, "model", Faults())
    assert "raise ValueError in __post_init__" in caught.value.hint


def test_error_names_the_origin_of_the_value():
    faults = Faults(origins={"model.size": "--size", "model.hidden": "run.toml"})
    check(Config, {"size": 0, "hidden": [0], "count": -1}, "model", faults)
    assert [line.partition(": ")[0] for line in faults.lines] == [
        "model.size (from --size)",
        "model.hidden[0] (from run.toml)",
        "model.count",
    ]


def test_long_value_is_shortened():
    (line,) = faults_of(hidden="x" * 1000)
    assert line.endswith("...")
    assert len(line) < 130


# ---------------------------------------------------------------- description and output


def test_options_are_described_in_order_with_type_and_default():
    @dataclass(frozen=True)
    class Shown:
        hidden: tuple[Size, ...] = (8, 4)
        pair: tuple[Count, Count] = (0, 1)
        steps: Annotated[int, Ge(2), Lt(100)] = 10
        kind: Literal["linear", "spherical"] = "linear"
        root: str | None = None
        many: list[float] = field(default_factory=list)
        inner: Inner = field(default_factory=Inner)

    assert describe(Shown) == [
        Option("hidden", "list of int > 0", (8, 4)),
        Option("pair", "[int >= 0, int >= 0]", (0, 1)),
        Option("steps", "int >= 2 and < 100", 10),
        Option("kind", "linear | spherical", "linear"),
        Option("root", "str | none", None),
        Option("many", "list of float", []),
        Option("inner.width", "int > 0", 3),
        Option("inner.names", "list of str", ("a",)),
    ]


def test_config_round_trips_through_plain_values():
    config = checked(hidden=[5], inner={"width": 2}, options={"betas": [0.5]})
    values = plain(config)
    assert json.loads(json.dumps(values)) == values
    assert values["hidden"] == [5]
    assert checked(**values) == config
