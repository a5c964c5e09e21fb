"""What `guided` says about a search that satisfied few requests, on small runs on digits."""

from __future__ import annotations

import re

import pytest

from latentforge import Forge

from .. import undrawn

SMALL = {"encoder": [64], "decoder": [64], "latent_dim": 2}
FAST = {"n": 20, "restarts": 2, "steps": 20, "settle": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs on digits: a trained, an untrained and a collapsed VAE, two classifiers of the digits
    and one that was not trained."""
    where, forge = tmp_path_factory.mktemp("advice"), Forge()
    untrained = {"epochs": 1, "lr": 1e-9}
    for name, train, loss in (
        ("vae", {"epochs": 20, "lr": 5e-3}, "elbo"),
        ("early", untrained, "elbo"),
        ("collapsed", {"epochs": 6}, {"name": "beta-elbo", "beta": 60.0}),
    ):
        settings = {"model": SMALL, "loss": loss, "train": train}
        forge.train("vae", data="digits", **settings, run=where / name, quiet=True)
    for name, train in (
        ("guide", {"epochs": 8, "lr": 3e-3}),
        ("judge", {"epochs": 8, "lr": 3e-3, "seed": 1}),
        ("unrelated", untrained),
    ):
        forge.train("mlp-classifier", data="digits", train=train, run=where / name, quiet=True)
    return where


def find(folder, run="vae", classifier="guide", judge=None, **options):
    roles = {"classifier": folder / classifier} | ({"judge": folder / judge} if judge else {})
    options = {**FAST, **options}
    return undrawn.find(Forge().registry, "guided", folder / run, roles=roles, **options)


def notes(*args, **options):
    return find(*args, **options).notes


@pytest.mark.parametrize("run", ["early", "collapsed"])
def test_a_decoder_that_ignores_the_code_is_named(folder, run):
    verdict, advice = notes(folder, run)
    assert re.match(r"[0-4] of 20 requests satisfied", verdict)
    assert advice.startswith("the decoded image hardly depends on the code: ")
    share = float(re.search(r"500 training images vary ([\d.]+)% as much", advice)[1])
    assert share < 5
    assert "smaller weight of the KL" in advice


def test_requests_of_other_classes_than_the_condition_are_named(folder, tmp_path):
    settings = {"data": "digits", "train": {"epochs": 12, "lr": 1e-2}, "quiet": True}
    run = Forge().train("cvae", model=SMALL, run=tmp_path / "cvae", **settings).path
    verdict, advice, starts = notes(folder, run, condition=3, target=4)
    failed = 20 - int(re.match(r"(\d+) of 20 requests", verdict)[1])
    assert failed >= 16
    assert f"{failed} requests that failed, of 20, asked for other classes than cond" in advice
    assert "target=3" in advice
    assert "steps" not in advice
    assert "requests of other classes are hardly possible" in starts
    # without a target, all requests are of the class of the condition
    made = find(folder, run, condition=3)
    assert int(re.match(r"(\d+) of 20 requests", made.notes[0])[1]) > 10
    assert [note for note in made.notes if "condition=3" in note] == [
        "condition=3: the decoder draws class 3, and all starts are of it"
    ]
    assert "starts: codes of random training images of class 3; each request" in made.protocol


def test_a_classifier_of_something_else_is_named(folder):
    verdict, advice = notes(folder, classifier="unrelated")
    assert verdict.startswith("0 of 20 requests satisfied")
    share = int(re.match(r"the classifier unrelated gets only (\d+)% of 500", advice)[1])
    assert share < 55
    assert "other data, on another range of values, or not long enough" in advice


def test_a_judge_of_something_else_is_named(folder):
    _, advice = notes(folder, judge="unrelated", steps=1, restarts=1)
    assert advice.startswith("the judge unrelated gets only")


def test_more_steps_are_suggested_and_help(folder):
    verdict, advice = notes(folder, steps=1, restarts=1)
    satisfied = int(verdict.split()[0])
    before, after = map(float, re.search(r"went from (\S+) to (\S+):", advice).groups())
    assert before < after < 0
    suggested = {key: int(value) for key, value in re.findall(r"(steps|restarts)=(\d+)", advice)}
    followed = notes(folder, **suggested)
    assert int(followed[0].split()[0]) >= 10 > satisfied
    assert len(followed) == 1  # nothing to explain


def test_poor_reconstructions_are_named():
    from types import SimpleNamespace

    import torch
    from latentforge_plugins.guided.advice import explain_classifier

    x = torch.rand(40, 1, 4, 4)
    batch = SimpleNamespace(x=x, y=torch.arange(40) % 4)
    rows = {float(image.sum()): label for image, label in zip(x, batch.y, strict=True)}

    def model(images):
        known = [rows.get(float(image.sum()), torch.tensor(0)) for image in images]
        return torch.nn.functional.one_hot(torch.stack(known), 4).float()

    [advice] = explain_classifier("the classifier c", model, batch, 1 - x)
    assert "gets 100% of 40 training images right, but only 25% of their reconstructions" in advice
    assert [*explain_classifier("the classifier c", model, batch, x)] == []
