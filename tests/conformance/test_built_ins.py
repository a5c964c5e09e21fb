"""Every built-in component passes the checks for third-party plugins."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest
from PIL import Image

from latentforge import Forge
from latentforge.conformance import CHECKED, CheckSkipped, checks_of
from latentforge.conformance.common import checks_for
from latentforge.plugins.loading import load_plugins

DATA = os.environ.get("LATENTFORGE_DATA")  # the folder of downloaded datasets
COMPONENTS = [
    (kind, entry.name)
    for kind in CHECKED
    for entry in load_plugins(only=["latentforge"]).entries(kind)
]

# of other components; `fid` needs ten images for each feature
OTHER_OPTIONS = {"fid": {("models", "mlp-classifier"): {"width": 1}}}


def options_of(name, folder):
    """Options that make a check take seconds, or that a component requires."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    match name:
        case "guided":
            return {"restarts": 2, "steps": 5, "settle": 2, "solutions": 1}
        case "arrays":
            np.savez(folder / "images.npz", x=x, y=np.arange(40) % 2)
            return {"path": str(folder / "images.npz")}
        case "folder":
            for number, image in enumerate(x):
                file = folder / "images" / ("even", "odd")[number % 2] / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
            return {"root": str(folder / "images")}
    return {}


@cache
def forge():
    return Forge()


@pytest.fixture(scope="module")
def subjects():
    """The subjects of earlier checks, which keep their run folders until they are deleted."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_built_in_keeps_its_contract(kind, name, work, subjects, monkeypatch):
    if DATA:
        monkeypatch.setenv("LATENTFORGE_DATA", DATA)
    failed, skipped = {}, {}
    given = {"options": options_of(name, work), "other_options": OTHER_OPTIONS.get(name)}
    checks = checks_of(kind, name, forge=forge(), **given)
    subject = checks[0].arguments[0]
    for earlier in () if given["other_options"] else subjects:  # each model is trained once
        subject.cache |= {k: run for k, run in earlier.cache.items() if k.startswith("run ")}
    if not given["other_options"]:
        subjects.append(subject)
    for check in checks:
        try:
            check()
        except CheckSkipped as why:
            skipped[check.name] = str(why)
        except Exception as error:
            failed[check.name] = repr(error)
    assert not failed
    if len(skipped) >= len(checks) - len(checks_for(kind)):
        pytest.skip("; ".join({*skipped.values()}))
