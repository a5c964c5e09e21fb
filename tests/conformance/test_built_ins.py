"""Every built-in component keeps its contract, by the checks that strangers are asked to pass."""

from __future__ import annotations

from functools import cache

import pytest

from latentforge import Forge
from latentforge.conformance import CHECKED, CheckSkipped, checks_of
from latentforge.plugins import load_plugins

SMALL = {  # options with which a check is one of seconds
    "guided": {"restarts": 2, "steps": 5, "settle": 2, "solutions": 1},
}
COMPONENTS = [
    (kind, entry.name)
    for kind in CHECKED
    for entry in load_plugins(only=["latentforge"]).entries(kind)
]


@cache
def forge():
    return Forge()


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_built_in_keeps_its_contract(kind, name, work):
    failed = {}
    for check in checks_of(kind, name, forge=forge(), options=SMALL.get(name)):
        try:
            check()
        except CheckSkipped:
            continue
        except Exception as error:
            failed[check.name] = repr(error)
    assert not failed
