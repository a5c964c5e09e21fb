"""The exceptions of LatentForge."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentforge.errors import UsageError, similar_names, similar_paths


@pytest.mark.parametrize("keyword", ["hint", "remedy"])
def test_the_hint_has_two_names(keyword):
    error = UsageError("no split 'tset'", **{keyword: "did you mean 'test'?"})
    assert error.hint == error.remedy == "did you mean 'test'?"
    assert str(error) == "no split 'tset'\n  try: did you mean 'test'?"


MODELS = ("ae", "beta-vae", "cnn-classifier", "conv-vae", "deconv-vae", "mlp-classifier", "vae")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("eas", ["ae"]),
        ("AE", ["ae"]),
        ("vea", ["vae"]),
        ("cae", ["ae", "vae"]),
        ("beta_vae", ["beta-vae"]),
        ("betavae", ["beta-vae"]),
        ("cnn-clasifier", ["cnn-classifier"]),
        ("classifier", ["cnn-classifier", "mlp-classifier"]),  # a part of the name
        ("conv", ["conv-vae"]),
        ("gan", []),
        ("vq-vae", []),  # another model, not a typing error
        ("dip-vae", []),
        ("resnet", []),
        ("x", []),
        ("", []),
    ],
)
def test_similar_names_are_only_those_that_can_be_meant(name, meant):
    assert similar_names(name, MODELS) == meant


def test_the_suffix_of_a_file_is_no_similarity():
    files = [Path("a/mine.toml"), Path("a/vae.toml")]
    assert similar_paths(Path("a/mien.toml"), files) == "did you mean 'a/mine.toml'?"
    assert similar_paths(Path("a/nope.toml"), files) == ""
