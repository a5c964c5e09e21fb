"""The command that shows the data of a run has the options of the run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from latentforge import DatasetSpec, Forge, hookimpl
from latentforge.config.data_command import data_command
from latentforge.config.resolve import resolve_dataset
from latentforge.runtime.python_form import python_form


@dataclass(frozen=True)
class Config:
    label: str = "a"
    sizes: tuple[int, ...] = (1,)
    limit: int | None = 3


class Plugin:
    @hookimpl
    def latentforge_datasets(self):
        yield DatasetSpec(
            name="parts", summary="Parts", load=lambda config, split: None, config=Config
        )


@pytest.fixture(scope="module")
def registry():
    return Forge([Plugin()]).registry


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label": "a b"},
        {"label": "5"},
        {"label": "true"},
        {"label": 'it\'s "x"'},
        {"sizes": (2, 3), "limit": 9},
        {"validation": 0.25, "binarize": "threshold"},
    ],
)
def test_options_of_the_command_are_those_of_the_data(registry, options):
    dataset, data = resolve_dataset(registry, "parts", options)
    command = data_command(dataset, data)
    *words, name = shlex.split(command)[:4]
    assert words == ["latentforge", "data", "show"]
    sets = shlex.split(command)[4:]
    assert sets[::2] == ["--set"] * len(options)
    forge = SimpleNamespace(describe_data=lambda name, options=(): (name, options))
    in_python = eval(python_form(f"`{command}`"), {"forge": forge})
    for arguments in ((name, sets[1::2]), in_python):
        again, again_data = resolve_dataset(registry, *arguments)
        assert (again.options, again_data) == (dataset.options, data)


def test_option_without_a_value_is_left_out(registry):
    dataset, data = resolve_dataset(registry, "parts", {"limit": None})
    assert dataset.options.limit is None
    assert "limit" not in data_command(dataset, data)
