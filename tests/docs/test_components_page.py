"""docs/components.md lists the existing components, and no others."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from latentforge import Forge
from latentforge.config.schema import TrainConfig

TEXT = (Path(__file__).parents[2] / "docs" / "components.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (\w[\w ]*)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


def named(section: str) -> set[str]:
    """The code spans in the first cell of a section's table rows."""
    rows = re.findall(r"^\| (`.*?) \|", SECTIONS[section], re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        (kind.capitalize(), kind)
        for kind in ("models", "losses", "datasets", "explorers", "objectives")
    ],
)
def test_every_component_has_its_row(section, kind):
    assert named(section) == {entry.name for entry in Forge().registry.entries(kind)}


@pytest.mark.parametrize("section", ["Explorers", "Objectives"])
def test_roles_are_listed_with_optional_ones_in_brackets(section):
    for entry in Forge().registry.entries(section.lower()):
        [cell] = re.findall(rf"^\| `{entry.name}` \|.*\| (.*?) ?\|$", SECTIONS[section], re.M)
        assert set(re.findall(r"\[`(\w+)`\]", cell)) == set(entry.spec.optional_roles or {})
        assert set(re.findall(r"`(\w+)`", cell)) == {
            *(entry.spec.roles or {}),
            *(entry.spec.optional_roles or {}),
        }


def test_every_measure_has_its_row_and_its_default():
    for entry in Forge().registry.entries("measures"):
        pattern = rf"^\| .*`{entry.name}`.*? \| .* \| (\w+) \|$"
        [row] = re.findall(pattern, SECTIONS["Measures"], re.M)
        assert row == ("yes" if entry.spec.default else "no"), entry.name
    assert named("Measures") == {entry.name for entry in Forge().registry.entries("measures")}


def test_every_key_of_train_is_explained():
    explained = set(re.findall(r"`(\w+)(?:\.\w+)?`", SECTIONS["Training"]))
    plain = {"epochs", "batch_size", "lr", "optimizer", "seed", "weight_decay"}
    plain |= {"optimizer_options", "device", "threads", "log_every", "evaluate_every"}
    assert {field.name for field in fields(TrainConfig)} - plain <= explained
