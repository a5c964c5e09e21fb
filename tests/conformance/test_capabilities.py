"""How the checks hide capabilities of a model."""

from __future__ import annotations

import pytest
from torch import nn

from latentforge import LatentSpec
from latentforge.conformance.capabilities import restrict_to_needs
from latentforge.conformance.subject import CheckFailed


class Attribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.latent = LatentSpec((3,), prior="normal")

    def own_prior(self):
        return self.latent.prior


class Property(nn.Module):
    @property
    def latent(self):
        return LatentSpec((3,), prior="normal")

    def own_prior(self):
        return self.latent.prior


@pytest.mark.parametrize("kind", [Attribute, Property])
def test_the_prior_is_hidden_from_other_code_only(kind):
    model = kind()
    with restrict_to_needs((model, {"decode", "prior"}, {"decode"}), field="needs"):
        assert model.own_prior() == "normal"
        assert model.latent.shape == (3,)
    other = kind()
    with (
        pytest.raises(CheckFailed, match="it uses prior, which is not in `needs`"),
        restrict_to_needs((other, {"decode", "prior"}, {"decode"}), field="needs"),
    ):
        raise ValueError(other.latent.prior)
