"""The measure `nll`: -log p(x) by importance sampling (Burda, Grosse and Salakhutdinov 2016)."""

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

from .config import NllConfig


def build(config: NllConfig, context: EvaluateContext):
    from .estimate import Nll

    return Nll(config, context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="nll",
        summary="-log p(x) by importance sampling, with its standard error",
        build=build,
        likelihood=True,
        protocol="nats per image, -log mean p(x|z) p(z) / q(z|x) over samples of q(z|x)",
        config=NllConfig,
        needs={"encode", "decode", "prior", "log_prob"},
        default=False,
    )
