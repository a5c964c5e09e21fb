import pytest

from latentforge.testing import check_explorer, check_loss, check_model

CHECKS = [*check_model("latentforge-vq/vq-vae"), *check_loss("vq"), *check_explorer("codebook")]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_contract_is_kept(check):
    check()
