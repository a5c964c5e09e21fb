"""Search spaces and objectives, and requests that are refused before training."""

from __future__ import annotations

import pytest

from latentforge.errors import ConfigError
from latentforge.sweeps.search_space import read_space, read_texts

INVALID_SPACES = [
    ("train.lr", "write section.key=RANGE"),
    ("train.lr=log(1e-4)", "write log(LOW, HIGH)"),
    ("train.lr=normal(0, 1)", "write log(LOW, HIGH)"),
    ("train.lr=0.1", "write log(LOW, HIGH)"),
    ("train.lr=log(0, 1)", "train.lr=log(0, 1): log needs numbers above 0"),
    ("train.lr=log(1, 0.1)", "low must be less than high"),
    ("train.lr=uniform(1, 1)", "low must be less than high"),
    ("train.lr=uniform(1, inf)", "two finite numbers"),
    ("train.lr=uniform(-1e308, 1e308)", "too large"),
    ("train.lr=uniform(a, b)", "needs two numbers"),
    ("model.latent_dim=int(2, 3.5)", "two integers"),
    ("model.latent_dim=int(0, 4)", "model.latent_dim (from the space): must be greater"),
    ("model.latent_dim=uniform(2, 4)", "must be a valid integer"),
    ("train.lr=uniform(-1, 1)", "train.lr (from the space): must be greater than 0, got -1.0"),
    ("train.batch_size=[32, 0]", "train.batch_size (from the space)"),
    ("train.batch_size=[]", "a list with at least one value"),
    ("train.batch_size=[32, 32]", "contains a value twice"),
    ("train.rl=log(1e-4, 1)", "train.rl (from the space): no such option"),
    ("tarin.lr=log(1e-4, 1)", "did you mean 'train'"),
    ("model.name=['ae', 'veu']", "did you mean 'vae'"),
    ("data.validation=uniform(0.1, 0.2)", "are not comparable"),
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *((["--search=3", "--space", text], said) for text, said in INVALID_SPACES),
        (["--search=3"], "a search needs at least one key to vary"),
        (["--search=0", "--space=train.lr=[1]"], "at least 1 trial"),
        (["--space=train.lr=[1]"], "--search 20"),
        (["--objective=elbo", "--grid=train.lr=[1]"], "--search 20"),
        (["--storage=sqlite:///x.db", "--grid=train.lr=[1]"], "--search 20"),
        (["--search=3", "--space=train.lr=[1]", "--grid=train.seed=[0]"], "not both"),
        (["--search=3", "--space=train.lr=[1]", "--together"], "--together requires a grid"),
        (["--search=3", "--space=train.lr=[1]", "--objective=test/loss"], "validation/loss"),
        (["--search=3", "--space=train.lr=[1]", "--objective=reocn"], "did you mean 'recon'"),
        (["--search=3", "--space=train.lr=[1]", "--objective=fid"], "train.monitor=fid"),
        (["--search=3", "--space=train.lr=[1]", "--set=train.epochs=-1"], "train.epochs"),
        (["--search=3", "--space=train.lr=[1]", "--set=data.validation=0"], "data.validation=0.1"),
        (["--search=3", "--space=loss.beta=[1, 4]", "--loss=beta-elbo"], "changes loss.beta"),
        (["--search=3", "--space=model.name=['ae', 'vae']"], "changes model.name"),
    ],
)
def test_invalid_search_request_is_refused_before_training(cli, work, words, said):
    answer = cli("sweep", "vae", *words)
    assert answer.code == 2
    assert said in answer.err
    assert not (work / "runs").exists()


def test_duplicate_key_is_refused_and_ranges_round_trip():
    with pytest.raises(ConfigError, match="given twice"):
        read_texts(["train.lr=[1]", "train.lr=log(1, 2)"])
    space = read_space(read_texts(["train.lr= log( .1 , 2e0 )", "train.optimizer=['sgd', 'adam']"]))
    assert space["train.lr"].as_json() == "log(0.1, 2.0)"
    assert read_space({key: part.as_json() for key, part in space.items()}) == space
